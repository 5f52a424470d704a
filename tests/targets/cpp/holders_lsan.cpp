// flags: -std=c++17 -fsanitize=leak
/* `holders_cpp` with a leak detector in it: `check` has it look, and tell on standard error. */
#include <sanitizer/lsan_interface.h>
#define CHECK() __lsan_do_recoverable_leak_check()
#include "holders_cpp.cpp"
