// kind: shared
// flags: -I/usr/lib/jvm/java-17-openjdk-amd64/include -I/usr/lib/jvm/java-17-openjdk-amd64/include/linux
/* The native part of tests/targets/java/Handles.java. */
#include <jni.h>

enum { MOST = 10007 };

static jobject kept[MOST];
static int count;
static jweak weak[MOST];
static int weak_count;

__attribute__((noipa)) static void keep_object(JNIEnv *env, jobject object) {
    jobject handle = (*env)->NewGlobalRef(env, object);
    if (handle && count < MOST) {
        kept[count++] = handle;
    }
}

__attribute__((noipa)) static void keep_weakly(JNIEnv *env, jobject object) {
    jweak handle = (*env)->NewWeakGlobalRef(env, object);
    if (handle && weak_count < MOST) {
        weak[weak_count++] = handle;
    }
}

__attribute__((noipa)) static void pass_object(JNIEnv *env, jobject object) {
    (*env)->DeleteGlobalRef(env, (*env)->NewGlobalRef(env, object));
}

JNIEXPORT void JNICALL Java_Handles_keep(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    keep_object(env, object);
}

JNIEXPORT void JNICALL Java_Handles_keepWeakly(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    keep_weakly(env, object);
}

JNIEXPORT void JNICALL Java_Handles_pass(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    pass_object(env, object);
}

JNIEXPORT void JNICALL Java_Handles_drop(JNIEnv *env, jclass class) {
    (void)class;
    if (count > 0) {
        (*env)->DeleteGlobalRef(env, kept[--count]);
    }
}

JNIEXPORT void JNICALL Java_Handles_dropWeak(JNIEnv *env, jclass class) {
    (void)class;
    if (weak_count > 0) {
        (*env)->DeleteWeakGlobalRef(env, weak[--weak_count]);
    }
}
