// flags: -O2 -fno-omit-frame-pointer -fno-optimize-sibling-calls
// The same as pairs.c with frame pointers, by which the kernel finds all of
// its frames.
#include "pairs.c"
