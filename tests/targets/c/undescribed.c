// flags: -O2 -fomit-frame-pointer -fno-asynchronous-unwind-tables -fno-unwind-tables
/* Its only call frame information is for debuggers: `.debug_frame`. */
#include "target.h"

SITE static void take(unsigned long size) {
    opaque(malloc(any(size)));
}

SITE static void inner(int rounds) {
    char room[200];
    opaque(room);
    if (rounds > 0)
        inner(rounds - 1);
    else
        take(1009);
    opaque(room);
}

SITE static void nested(void) {
    inner(3);
    truth("nested", 1009, 1, 0);
}

static const Command commands[] = {
    COMMAND(nested),
    {NULL, NULL},
};

int main(int count, char **arguments) {
    return serve(count, arguments, commands);
}
