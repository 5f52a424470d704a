package incidents;

import java.nio.ByteBuffer;
import java.lang.management.BufferPoolMXBean;
import java.lang.management.ManagementFactory;

/** Collects garbage, and waits until the native memory of what was found is free. */
final class Garbage {
    /** A field, so that it is none before it is forgotten. */
    private static volatile ByteBuffer last;

    private Garbage() {}

    static void collect() throws InterruptedException {
        // Cleaners run one after the other in a thread of their own. That of a buffer which became
        // garbage last need not run last, so wait until nothing changes over a whole collection.
        long before;
        long now = -1;
        do {
            before = now;
            last = ByteBuffer.allocateDirect(1);
            long count = buffers();
            last = null;
            do {
                System.gc();
                Thread.sleep(5);
            } while (buffers() >= count);
            now = buffers();
        } while (now != before);
    }

    /** Direct buffers whose memory is not free yet. */
    private static long buffers() {
        return ManagementFactory.getPlatformMXBeans(BufferPoolMXBean.class).stream()
                .filter(pool -> pool.getName().equals("direct"))
                .mapToLong(BufferPoolMXBean::getCount)
                .sum();
    }
}
