// kind: shared
// flags: -O2 -fomit-frame-pointer -falign-functions=64 -Wl,-z,separate-code -DWORDS=29
#include "plugin_thin.cpp"
