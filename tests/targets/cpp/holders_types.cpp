// flags: -std=c++17 -gdwarf-4 -fdebug-types-section
/* `holders_cpp` whose classes have units of their own in its debug information. */
#include "holders_cpp.cpp"
