// flags: -O2 -l:libjemalloc.so.2
#include "heap_profile.h"
