// kind: shared
// flags: -I/usr/lib/jvm/java-17-openjdk-amd64/include -I/usr/lib/jvm/java-17-openjdk-amd64/include/linux
/* What tests/targets/java/Loads.java loads. */
#include <jni.h>
#include <stdlib.h>

__attribute__((noipa)) static void *loads_allocates(size_t bytes) {
    void *volatile block = malloc(bytes);
    return block;
}

/* Before the loader returns. */
__attribute__((constructor)) static void loads_constructor(void) {
    loads_allocates(7001);
}

JNIEXPORT void JNICALL Java_Loads_allocate(JNIEnv *env, jclass class) {
    (void)env;
    (void)class;
    loads_allocates(7013);
}
