import common.Pid;
import java.io.IOException;
import java.lang.reflect.Field;
import java.util.zip.Deflater;
import sun.misc.Unsafe;

/**
 * A service that compresses its answers, and keeps native memory of each fiftieth request: for
 * `cargo xtask bench answers`. See `leaky.h` for what it prints.
 */
class Leaky {
    private static final double REQUESTS = 1000;
    private static final int LEAK = 10_007;
    private static final int BUFFERS = 503;
    private static final Unsafe UNSAFE = unsafe();

    private static final long[] buffers = new long[BUFFERS];
    private static final byte[] answer = new byte[4096];
    private static long requests;
    private static long leaked;

    public static void main(String[] arguments) throws IOException, InterruptedException {
        System.out.println("pid " + Pid.own() + "\nready");
        tellTruth();
        Thread input = new Thread(Leaky::awaitEnd);
        input.start();
        double allowed = 0;
        long last = System.nanoTime();
        long told = last;
        while (input.isAlive()) {
            Thread.sleep(2);
            long now = System.nanoTime();
            boolean due = now - told >= 20_000_000 || now - last >= 6_000_000;
            allowed = Math.min(allowed + (now - last) / 1e9 * REQUESTS, REQUESTS / 20);
            last = now;
            if (due) {
                tellTruth();
            }
            for (; allowed >= 1; allowed -= 1) {
                request();
            }
            if (due) {
                tellTruth();
                told = now;
            }
        }
    }

    private static void awaitEnd() {
        try {
            while (System.in.read() >= 0) {}
        } catch (IOException problem) {
            // That is an end, too.
        }
    }

    private static void tellTruth() {
        System.out.println("truth " + System.currentTimeMillis() / 1e3 + " " + leaked);
    }

    private static void request() {
        requests++;
        compress();
        int slot = (int) (requests * 7919 % BUFFERS);
        UNSAFE.freeMemory(buffers[slot]);
        buffers[slot] = UNSAFE.allocateMemory(1009);
        if (requests % 50 == 0) {
            leak();
        }
    }

    /** Its native memory comes and goes. */
    private static void compress() {
        Deflater deflater = new Deflater(1);
        deflater.setInput(answer);
        deflater.finish();
        deflater.deflate(new byte[answer.length]);
        deflater.end();
    }

    private static void leak() {
        long block = UNSAFE.allocateMemory(LEAK);
        UNSAFE.setMemory(block, LEAK, (byte) 1);
        leaked += LEAK;
    }

    private static Unsafe unsafe() {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            return (Unsafe) field.get(null);
        } catch (ReflectiveOperationException problem) {
            throw new IllegalStateException(problem);
        }
    }
}
