// flags: -Wno-use-after-free
// cc: musl-gcc
#include "semantics.h"
