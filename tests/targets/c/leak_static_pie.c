// flags: -static-pie
#include "leak.h"
