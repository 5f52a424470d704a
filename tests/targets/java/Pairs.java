import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import sun.misc.Unsafe;

/**
 * Times pairs of malloc and free from Java, for `cargo xtask bench`.
 *
 * <p>Prints its pid and `ready`; for each line `N DEPTH` on standard input runs N pairs of 64
 * bytes, DEPTH calls further down than without, and prints the nanoseconds of one pair. Before it
 * is ready it runs often enough that the compilers have done what they do. They must be told not
 * to inline {@code deeper} and {@code pairs}, so that a call is a frame.
 */
class Pairs {
    private static final int WARM_UPS = 5_000;
    private static final int WARM_DEPTH = 50;
    private static final Unsafe UNSAFE = unsafe();

    public static void main(String[] arguments) throws Exception {
        for (int round = 0; round < 3; round++) {
            for (int index = 0; index < WARM_UPS; index++) {
                deeper(2, WARM_DEPTH);
            }
            pairs(1_000_000);
            // The compilers work in the background.
            Thread.sleep(300);
        }
        System.out.println("pid " + Pid.own());
        System.out.println("ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            System.out.println(time(Integer.parseInt(words[0]), Integer.parseInt(words[1])));
        }
    }

    private static double time(int count, int depth) {
        long begin = System.nanoTime();
        deeper(count, depth);
        return (double) (System.nanoTime() - begin) / count;
    }

    private static void deeper(int count, int depth) {
        if (depth > 0) {
            deeper(count, depth - 1);
        } else {
            pairs(count);
        }
    }

    private static void pairs(int count) {
        for (int index = 0; index < count; index++) {
            UNSAFE.freeMemory(UNSAFE.allocateMemory(64));
        }
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
