// flags: -O2 -fno-omit-frame-pointer -faligned-new -Wl,-Bstatic -ljemalloc_pic -Wl,-Bdynamic -lm
/* With jemalloc as a part of the program. */
#include "operators.cpp"
