// flags: -static
#include "leak.h"
