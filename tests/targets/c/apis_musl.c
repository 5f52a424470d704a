// cc: musl-gcc
#include "apis.h"
