import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.util.concurrent.CountDownLatch;
import sun.misc.Unsafe;

/** Named threads that stay, each of which leaks native memory. */
class Threads {
    private static final String[] NAMES = {"billing", "warehouse-of-long-names"};
    private static final long[] SIZES = {8 * 1009, 8 * 2003};
    private static final int TIMES = 5;

    public static void main(String[] arguments) throws Exception {
        Unsafe unsafe = unsafe();
        System.out.println(Pid.own() + " ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        while (input.readLine() != null) {
            CountDownLatch leaked = new CountDownLatch(NAMES.length);
            for (int index = 0; index < NAMES.length; index++) {
                start(unsafe, NAMES[index], SIZES[index], leaked);
            }
            leaked.await();
            System.out.println(
                    "done {\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}");
        }
    }

    private static void start(Unsafe unsafe, String name, long size, CountDownLatch leaked) {
        Thread thread = new Thread(() -> work(unsafe, size, leaked), name);
        thread.setDaemon(true);
        thread.start();
    }

    private static void work(Unsafe unsafe, long size, CountDownLatch leaked) {
        for (int time = 0; time < TIMES; time++) {
            unsafe.allocateMemory(size);
        }
        leaked.countDown();
        while (true) {
            try {
                Thread.sleep(Long.MAX_VALUE);
            } catch (InterruptedException ignored) {
                // Nobody does.
            }
        }
    }

    private static Unsafe unsafe() throws ReflectiveOperationException {
        Field field = Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        return (Unsafe) field.get(null);
    }
}
