// flags: -Wno-use-after-free
#include "semantics.h"
