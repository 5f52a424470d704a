// flags: -static
#include "copied.c"
