// kind: shared
// flags: -O2 -fno-optimize-sibling-calls
/* A library that callers.cpp opens while it runs. */
#include <cstdlib>

extern "C" __attribute__((noipa)) void *later_takes(std::size_t size) { return malloc(size); }

extern "C" __attribute__((noipa)) void *later_news(std::size_t size) { return new char[size]; }
