// flags: -std=c++17 -gdwarf-5 -fdebug-types-section -Wa,--compress-debug-sections=zstd -Wl,--compress-debug-sections=zstd
/* `holders_cpp` with its debug information compressed by zstd, and classes in units of their own. */
#include "holders_cpp.cpp"
