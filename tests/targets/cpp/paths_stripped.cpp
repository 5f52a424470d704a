// flags: -O2 -fomit-frame-pointer -Ltarget/targets -Wno-format-truncation -lpaths_library -Wl,-rpath,$ORIGIN -s
#include "paths.cpp"
