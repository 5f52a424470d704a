#include "apis.h"
