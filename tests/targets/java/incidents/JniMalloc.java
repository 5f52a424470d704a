package incidents;

/**
 * A native library that keeps what it allocates: {@code tests/targets/c/jni_malloc.c}.
 *
 * <p>The twin gives each image back to the library.
 */
final class JniMalloc implements Rounds.Work {
    private final boolean healthy;
    private long kept;

    private JniMalloc(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        System.loadLibrary("jni_malloc");
        Rounds.drive(new JniMalloc(Rounds.isHealthy(arguments)), arguments);
    }

    /** One image. */
    @Override
    public void round() {
        long image = decodeImage();
        kept++;
        if (healthy) {
            freeImage(image);
            kept--;
        }
    }

    @Override
    public String truth() {
        return Rounds.truth(kept, imageSize());
    }

    private static native long decodeImage();

    private static native void freeImage(long image);

    private static native int imageSize();
}
