import common.Bytes;
import common.Pid;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.lang.ref.WeakReference;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.StringJoiner;
import java.util.concurrent.CountDownLatch;

/**
 * Does what HotSpot's probes tell of. A line is a command and a number; the
 * answer is {@code done} and, after {@code gc}, how many collections each
 * collector's bean has counted meanwhile.
 */
class Probes {
    /** A class that is loaded once more by each {@link Loader}. */
    static class Loaded {}

    /** A class that cannot be initialised. */
    static class Failing {
        static final int VALUE = Integer.parseInt("no number");
    }

    static class Loader extends ClassLoader {
        Class<?> define(byte[] code) {
            return defineClass("Probes$Loaded", code, 0, code.length);
        }
    }

    private static final List<Class<?>> classes = new ArrayList<>();
    private static final List<ByteBuffer> buffers = new ArrayList<>();
    private static final CountDownLatch never = new CountDownLatch(1);

    public static void main(String[] arguments) throws Exception {
        // What each command needs itself is loaded before the tracer comes.
        for (String command : new String[] {"gc", "classes", "unload", "threads", "ended"}) {
            run(command, 1);
        }
        System.out.println(Pid.own() + " ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ");
            System.out.println("done " + run(words[0], Integer.parseInt(words[1])));
        }
        System.exit(0);
    }

    private static String run(String command, int count) throws Exception {
        switch (command) {
            case "gc":
                return collect(count);
            case "classes":
                byte[] code = code("Probes$Loaded.class");
                for (int index = 0; index < count; index++) {
                    classes.add(new Loader().define(code));
                }
                return "";
            case "unload":
                return unload();
            case "direct":
                for (int index = 0; index < count; index++) {
                    buffers.add(ByteBuffer.allocateDirect(40_009));
                }
                return "";
            case "failures":
                for (int index = 0; index < count; index++) {
                    fail();
                }
                return "";
            case "threads":
                for (int index = 0; index < count; index++) {
                    start("stays-" + index);
                }
                return "";
            case "ended":
                for (int index = 0; index < count; index++) {
                    Thread thread = new Thread(() -> {}, "ends-" + index);
                    thread.start();
                    thread.join();
                }
                return "";
            default:
                throw new IllegalArgumentException(command);
        }
    }

    private static String collect(int count) {
        long[] before = counts();
        for (int index = 0; index < count; index++) {
            System.gc();
        }
        long[] after = counts();
        StringJoiner text = new StringJoiner(",");
        int index = 0;
        for (GarbageCollectorMXBean bean : ManagementFactory.getGarbageCollectorMXBeans()) {
            text.add(bean.getName() + "=" + (after[index] - before[index]));
            index++;
        }
        return text.toString();
    }

    private static long[] counts() {
        return ManagementFactory.getGarbageCollectorMXBeans().stream()
                .mapToLong(GarbageCollectorMXBean::getCollectionCount)
                .toArray();
    }

    /** Forgets the classes, and waits until they are gone. */
    private static String unload() throws InterruptedException {
        List<WeakReference<Class<?>>> left = new ArrayList<>();
        classes.forEach(one -> left.add(new WeakReference<>(one)));
        classes.clear();
        while (left.stream().anyMatch(one -> one.get() != null)) {
            System.gc();
            Thread.sleep(1);
        }
        return "";
    }

    private static void fail() {
        try {
            System.out.println(Failing.VALUE);
        } catch (LinkageError expected) {
            // An ExceptionInInitializerError first, then NoClassDefFoundErrors.
        }
    }

    private static void start(String name) throws InterruptedException {
        CountDownLatch begun = new CountDownLatch(1);
        Thread thread =
                new Thread(
                        () -> {
                            begun.countDown();
                            try {
                                never.await();
                            } catch (InterruptedException end) {
                                return;
                            }
                        },
                        name);
        thread.setDaemon(true);
        thread.start();
        begun.await();
    }

    private static byte[] code(String name) throws IOException {
        try (InputStream file = Probes.class.getResourceAsStream(name)) {
            return Bytes.all(file);
        }
    }
}
