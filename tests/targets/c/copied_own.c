/* The same with an allocator in the code that is copied. */
#define OWN_ALLOCATOR
#include "copied.c"
