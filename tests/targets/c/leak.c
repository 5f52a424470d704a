#include "leak.h"
