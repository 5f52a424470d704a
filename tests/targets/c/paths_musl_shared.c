// flags: -O2 -fomit-frame-pointer -Wno-format-truncation
// cc: musl-gcc
/* The same with musl as a library. */
#include "paths_musl.c"
