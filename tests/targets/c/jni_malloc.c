// kind: shared
// flags: -I/usr/lib/jvm/java-17-openjdk-amd64/include -I/usr/lib/jvm/java-17-openjdk-amd64/include/linux
/* The native part of tests/targets/java/incidents/JniMalloc.java. */
#include <jni.h>
#include <stdlib.h>
#include <string.h>

enum { IMAGE_BYTES = 6007 };

__attribute__((noipa)) static char *new_image(void) {
    char *image = malloc(IMAGE_BYTES);
    if (image) {
        memset(image, 1, IMAGE_BYTES);
    }
    return image;
}

JNIEXPORT jlong JNICALL Java_incidents_JniMalloc_decodeImage(JNIEnv *env, jclass class) {
    (void)env;
    (void)class;
    return (jlong)new_image();
}

JNIEXPORT void JNICALL Java_incidents_JniMalloc_freeImage(JNIEnv *env, jclass class, jlong image) {
    (void)env;
    (void)class;
    free((void *)image);
}

JNIEXPORT jint JNICALL Java_incidents_JniMalloc_imageSize(JNIEnv *env, jclass class) {
    (void)env;
    (void)class;
    return IMAGE_BYTES;
}
