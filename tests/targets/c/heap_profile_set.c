// flags: -O2 -l:libjemalloc.so.2
/* The profiler is set up by the program itself. */
const char *malloc_conf = "prof:true,lg_prof_sample:0";
#include "heap_profile.h"
