// kind: shared
// flags: -I/usr/lib/jvm/java-17-openjdk-amd64/include -I/usr/lib/jvm/java-17-openjdk-amd64/include/linux
/* The native part of tests/targets/java/Handles.java. */
#include <jni.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 10007 };

static jobject kept[MOST];
static int count;
static jweak weak[MOST];
static int weak_count;

struct node {
    struct node *next;
    jobject handle;
};

static struct node *first;

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

__attribute__((noipa)) static struct node *node_of(JNIEnv *env, jobject object) {
    struct node *node = malloc(sizeof *node);
    if (!node) {
        abort();
    }
    node->next = NULL;
    node->handle = (*env)->NewGlobalRef(env, object);
    return node;
}

JNIEXPORT void JNICALL Java_Handles_keepInList(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    struct node *node = node_of(env, object);
    node->next = first;
    first = node;
}

JNIEXPORT jlong JNICALL Java_Handles_keepInBlock(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    return (jlong)node_of(env, object);
}

JNIEXPORT void JNICALL Java_Handles_forget(JNIEnv *env, jclass class, jobject object) {
    (void)class;
    (*env)->NewGlobalRef(env, object);
}

/* Takes all objects out of an array, says so, and does not come back. */
JNIEXPORT void JNICALL Java_Handles_stay(JNIEnv *env, jclass class, jobjectArray objects, jobject taken) {
    (void)class;
    jsize count = (*env)->GetArrayLength(env, objects);
    if ((*env)->EnsureLocalCapacity(env, count + 16)) {
        abort();
    }
    for (jsize at = 0; at < count; at++) {
        (*env)->GetObjectArrayElement(env, objects, at);
        (*env)->SetObjectArrayElement(env, objects, at, NULL);
    }
    jclass latch = (*env)->GetObjectClass(env, taken);
    jmethodID count_down = (*env)->GetMethodID(env, latch, "countDown", "()V");
    (*env)->CallVoidMethod(env, taken, count_down);
    for (;;) {
        pause();
    }
}
