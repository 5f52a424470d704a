// flags: -static
// cc: musl-gcc
#include "leak.h"
