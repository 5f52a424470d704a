// jemalloc: gone_
// flags: -O2 -s target/targets/libjemalloc_gone_.a -ldl -lm -lstdc++
/* A program whose allocator nobody can name any more. */
#define PREFIX gone_
#include "prefixed.h"

int main(int count, char **arguments) { return serve(count, arguments, commands); }
