// flags: -O2 -fno-omit-frame-pointer -faligned-new -nostdinc++ -isystem /usr/lib/llvm-14/include/c++/v1 -nodefaultlibs -lc++ -lc++abi -lunwind -lm -lc -lgcc
/* With LLVM's library: operators and exceptions are libc++abi's, stacks are unwound by
 * LLVM's libunwind. */
#include "operators.cpp"
