// flags: -Wl,--build-id
// cc: musl-gcc
#include "leak.h"
