// cc: musl-gcc
#include "leak.h"
