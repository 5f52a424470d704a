// jemalloc: acme_
// flags: -O2 -fno-omit-frame-pointer target/targets/libjemalloc_acme_.a -ldl -lm -lstdc++
/* A prefix of which nobody has heard. */
#define PREFIX acme_
#include "prefixed.h"

int main(int count, char **arguments) { return serve(count, arguments, commands); }
