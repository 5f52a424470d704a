package stacks;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.zip.Deflater;

/**
 * Virtual threads (21 and later) that allocate before and after they gave up
 * their carrier. {@code work N} starts N and tells how often each was done.
 */
public class Virtual {
    private static final int DEPTH = 30;
    private static final int SLEEPS = 20;

    private static final AtomicLong before = new AtomicLong();
    private static final AtomicLong after = new AtomicLong();

    public static void main(String[] arguments) throws Exception {
        // Loads the library.
        new Deflater().end();
        Commands.serve(
                words -> {
                    work(Integer.parseInt(words[1]));
                    return before.get() + " " + after.get();
                });
    }

    private static void work(int threads) throws Exception {
        // Compiled for releases that have none of this.
        ExecutorService executor =
                (ExecutorService)
                        Executors.class.getMethod("newVirtualThreadPerTaskExecutor").invoke(null);
        List<Future<?>> futures = new ArrayList<>();
        for (int i = 0; i < threads; i++) {
            futures.add(executor.submit(() -> descend(DEPTH)));
        }
        for (Future<?> future : futures) {
            future.get();
        }
        executor.shutdown();
    }

    private static Void descend(int depth) throws InterruptedException {
        if (depth > 0) {
            return descend(depth - 1);
        }
        mounted();
        for (int i = 0; i < SLEEPS; i++) {
            Thread.sleep(1);
            continued();
        }
        return null;
    }

    private static void mounted() {
        new Deflater().end();
        before.incrementAndGet();
    }

    private static void continued() {
        new Deflater().end();
        after.incrementAndGet();
    }
}
