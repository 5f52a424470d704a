import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.RandomAccessFile;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/**
 * Takes native memory as it is told, one command a line: `direct N` keeps a
 * direct buffer of N bytes, `map N` a mapping of a file of N bytes, `threads N`
 * keeps N threads, `collect` collects all garbage. `pools` prints what the
 * management beans say of buffers: count, capacity and bytes used.
 */
class Native {
    static final String NOTHING =
            "{\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}";

    static final List<Object> kept = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        System.out.println(pid() + " ready");
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ");
            run(words[0], words.length > 1 ? Integer.parseInt(words[1]) : 0);
            System.out.println("done " + NOTHING);
        }
    }

    /** Of all ways to learn it the one that every release has. */
    private static String pid() {
        return ManagementFactory.getRuntimeMXBean().getName().split("@")[0];
    }

    private static void run(String name, int count) throws Exception {
        switch (name) {
            case "direct":
                kept.add(ByteBuffer.allocateDirect(count));
                break;
            case "map":
                kept.add(mapped(count));
                break;
            case "threads":
                start(count);
                break;
            case "collect":
                System.gc();
                break;
            case "pools":
                System.out.println("pools" + pool("direct") + pool("mapped"));
                break;
            default:
                throw new IllegalArgumentException(name);
        }
    }

    private static Object mapped(int size) throws IOException {
        Path path = Files.createTempFile("unfreed", ".mapped");
        try (RandomAccessFile file = new RandomAccessFile(path.toFile(), "rw")) {
            return file.getChannel().map(FileChannel.MapMode.READ_WRITE, 0, size);
        } finally {
            Files.delete(path);
        }
    }

    private static void start(int count) throws InterruptedException {
        CountDownLatch started = new CountDownLatch(count);
        for (int index = 0; index < count; index++) {
            Thread thread = new Thread(() -> stay(started));
            thread.setDaemon(true);
            thread.start();
        }
        started.await();
    }

    private static void stay(CountDownLatch started) {
        started.countDown();
        while (true) {
            try {
                Thread.sleep(Long.MAX_VALUE);
            } catch (InterruptedException ignored) {
                // Nobody does.
            }
        }
    }

    private static String pool(String name) {
        for (BufferPoolMXBean pool :
                ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class)) {
            if (pool.getName().equals(name)) {
                return " " + pool.getCount()
                        + " " + pool.getTotalCapacity()
                        + " " + pool.getMemoryUsed();
            }
        }
        throw new IllegalStateException(name);
    }
}
