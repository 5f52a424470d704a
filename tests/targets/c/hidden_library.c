// kind: shared
// flags: -O2 -fno-omit-frame-pointer -fvisibility=hidden -Wl,--exclude-libs,ALL -Wl,-Bstatic -ljemalloc_pic -Wl,-Bdynamic -lm
/* An allocator that a library keeps to itself, as Python's wheels do. */
#define PREFIX
#include "prefixed.h"

__attribute__((visibility("default"))) int hidden_serve(int count, char **arguments);

int hidden_serve(int count, char **arguments) { return serve(count, arguments, commands); }
