package incidents;

import java.lang.reflect.Field;
import sun.misc.Unsafe;

/**
 * Memory from {@code Unsafe}, as off-heap caches have it, whose owner forgets it.
 *
 * <p>The twin frees an entry when it is evicted.
 */
final class UnsafeKept implements Rounds.Work {
    private static final int SIZE = 4099;

    private static final Unsafe UNSAFE = unsafe();

    private final boolean healthy;
    private final long[] entries = new long[7];
    private int next;
    private long forgotten;

    private UnsafeKept(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new UnsafeKept(Rounds.isHealthy(arguments)), arguments);
    }

    /** One entry takes the place of the oldest. */
    @Override
    public void round() {
        evict(next);
        entries[next] = newEntry();
        next = (next + 1) % entries.length;
    }

    /** Those that are in the cache are no leak. */
    @Override
    public String truth() {
        return Rounds.truth(forgotten, SIZE);
    }

    private long newEntry() {
        long address = UNSAFE.allocateMemory(SIZE);
        UNSAFE.setMemory(address, SIZE, (byte) 1);
        return address;
    }

    private void evict(int entry) {
        if (entries[entry] == 0) {
            return;
        }
        if (healthy) {
            UNSAFE.freeMemory(entries[entry]);
        } else {
            forgotten++;
        }
    }

    private static Unsafe unsafe() {
        try {
            Field field = Unsafe.class.getDeclaredField("theUnsafe");
            field.setAccessible(true);
            return (Unsafe) field.get(null);
        } catch (ReflectiveOperationException missing) {
            throw new IllegalStateException(missing);
        }
    }
}
