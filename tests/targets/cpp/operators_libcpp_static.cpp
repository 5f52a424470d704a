// flags: -O2 -fno-omit-frame-pointer -faligned-new -nostdinc++ -isystem /usr/lib/llvm-14/include/c++/v1 -nodefaultlibs -L/usr/lib/llvm-14/lib -Wl,-Bstatic -lc++ -lc++abi -Wl,-Bdynamic -lunwind -lm -lc -lgcc
/* With libc++abi as a part of the program. */
#include "operators.cpp"
