import common.Pid;
import java.io.IOException;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.zip.Deflater;
import sun.misc.Unsafe;

/**
 * Labelled behaviours in Java: see `verdicts.h` for what a program of the suite does, and
 * `labels.json` for what each of these is. Those of the heap are judged by a class, whose
 * objects are told. All make garbage besides, as services do, of which some has become old: the
 * young generation is collected each second or two, and the old one each half of a minute.
 */
class Verdicts {
    interface Mode {
        void tick();
    }

    /** 24 bytes each, with what they point to not counted. */
    static class Entry {
        int number;
        long until;
    }

    static final class Kept extends Entry {}

    static final class Session extends Entry {}

    static final class Cached extends Entry {}

    static final class Row extends Entry {}

    static final class Recent extends Entry {}

    static final class Passing extends Entry {}

    private static final int OBJECT = 24;
    private static final Unsafe UNSAFE = unsafe();
    private static final Random random = new Random(1);
    private static final List<Object> kept = new ArrayList<>();
    private static final ArrayDeque<Object> queue = new ArrayDeque<>();
    private static final ArrayDeque<Long> blocks = new ArrayDeque<>();
    private static final ArrayDeque<byte[]> requests = new ArrayDeque<>();
    private static final ArrayDeque<Double> ends = new ArrayDeque<>();
    private static final Map<Integer, Object> byKey = new HashMap<>();
    private static volatile Object last;
    private static double now;
    private static double step;
    private static double end;
    private static int key;
    private static long held;

    public static void main(String[] arguments) throws IOException, InterruptedException {
        Mode mode = mode(arguments[0]);
        String told = told(arguments[0]);
        System.out.println(Pid.own() + " ready");
        while (System.in.read() != '\n') {}
        Thread input = new Thread(Verdicts::awaitEnd);
        input.start();
        long begin = System.nanoTime();
        double toldAt = 0;
        while (input.isAlive()) {
            Thread.sleep(10);
            double time = (System.nanoTime() - begin) / 1e9;
            step = time - now;
            now = time;
            litter();
            mode.tick();
            if (now - toldAt >= 1) {
                toldAt = now;
                System.out.println(
                        "live " + System.currentTimeMillis() / 1e3 + " " + told + " " + held);
            }
        }
    }

    private static Mode mode(String name) {
        switch (name) {
            case "keepDeflaters": return Verdicts::keepDeflaters;
            case "keepBuffers": return Verdicts::keepBuffers;
            case "keepRarely": return Verdicts::keepRarely;
            case "newestBlocks": return Verdicts::newestBlocks;
            case "gatherBlocks": return Verdicts::gatherBlocks;
            case "endDeflaters": return Verdicts::endDeflaters;
            case "poolBuffers": return Verdicts::poolBuffers;
            case "expireBlocks": return Verdicts::expireBlocks;
            case "keepObjects": return Verdicts::keepObjects;
            case "keepSessions": return Verdicts::keepSessions;
            case "fillCache": return Verdicts::fillCache;
            case "gatherRows": return Verdicts::gatherRows;
            case "recentEntries": return new Recently();
            case "dropObjects": return Verdicts::dropObjects;
            default: throw new IllegalArgumentException(name);
        }
    }

    private static String told(String mode) {
        switch (mode) {
            case "keepObjects": return "Verdicts$Kept";
            case "keepSessions": return "Verdicts$Session";
            case "fillCache": return "Verdicts$Cached";
            case "gatherRows": return "Verdicts$Row";
            case "recentEntries": return "Verdicts$Recent";
            case "dropObjects": return "Verdicts$Passing";
            default: return "Verdicts." + mode;
        }
    }

    private static void awaitEnd() {
        try {
            while (System.in.read() >= 0) {}
        } catch (IOException problem) {
            // That is an end, too.
        }
    }

    /** A megabyte a second that is garbage at once, and half of that after ten seconds. */
    private static void litter() {
        for (int come = arrivals(1000); come > 0; come--) {
            last = new byte[1000];
        }
        for (int come = arrivals(50); come > 0; come--) {
            requests.add(new byte[10000]);
            if (requests.size() > 500) {
                requests.remove();
            }
        }
    }

    /** How many come in this tick of so many a second, by chance. */
    private static int arrivals(double rate) {
        double mean = rate * step;
        int trials = 8 + 2 * (int) mean;
        int come = 0;
        for (int trial = 0; trial < trials; trial++) {
            come += random.nextDouble() < mean / trials ? 1 : 0;
        }
        return come;
    }

    // Native memory.

    private static void keepDeflaters() {
        for (int come = arrivals(2); come > 0; come--) {
            kept.add(new Deflater(1));
            // What zlib allocates for it, in four parts.
            held += 268_000;
        }
    }

    private static void keepBuffers() {
        for (int come = arrivals(12); come > 0; come--) {
            kept.add(ByteBuffer.allocateDirect(2003));
            held += 2003;
        }
    }

    private static void keepRarely() {
        for (int come = arrivals(0.5); come > 0; come--) {
            UNSAFE.allocateMemory(5003);
            held += 5003;
        }
    }

    private static void push(long size) {
        blocks.add(UNSAFE.allocateMemory(size));
        held += size;
    }

    private static void pop(long size) {
        UNSAFE.freeMemory(blocks.remove());
        held -= size;
    }

    private static void newestBlocks() {
        for (int come = arrivals(40); come > 0; come--) {
            if (blocks.size() == 250) {
                pop(1607);
            }
            push(1607);
        }
    }

    private static void gatherBlocks() {
        if (now >= end) {
            end += 8;
            while (!blocks.isEmpty()) {
                pop(1409);
            }
        }
        for (int come = arrivals(40); come > 0; come--) {
            push(1409);
        }
    }

    private static void endDeflaters() {
        for (int come = arrivals(20); come > 0; come--) {
            Deflater deflater = new Deflater(1);
            deflater.end();
        }
    }

    private static void poolBuffers() {
        while (kept.size() < 60 && now > 0.15 * kept.size()) {
            kept.add(ByteBuffer.allocateDirect(8009));
            held += 8009;
        }
    }

    private static void expireBlocks() {
        while (!ends.isEmpty() && ends.peek() <= now) {
            ends.remove();
            pop(1801);
        }
        for (int come = arrivals(30); come > 0; come--) {
            ends.add(now + 10);
            push(1801);
        }
    }

    // The heap.

    private static void keepObjects() {
        for (int come = arrivals(500); come > 0; come--) {
            kept.add(new Kept());
            held += OBJECT;
        }
    }

    private static void keepSessions() {
        for (int come = arrivals(100); come > 0; come--) {
            byKey.put(key++, new Session());
            held += OBJECT;
        }
    }

    private static void fillCache() {
        for (int come = arrivals(600); come > 0; come--) {
            int number = random.nextInt(1500);
            if (!byKey.containsKey(number)) {
                byKey.put(number, new Cached());
                held += OBJECT;
            }
        }
    }

    private static void gatherRows() {
        if (now >= end) {
            end += 9;
            queue.clear();
            held = 0;
        }
        for (int come = arrivals(400); come > 0; come--) {
            queue.add(new Row());
            held += OBJECT;
        }
    }

    /** The last 2,000. */
    private static final class Recently implements Mode {
        private final LinkedHashMap<Integer, Recent> entries = new LinkedHashMap<>();

        @Override
        public void tick() {
            for (int come = arrivals(300); come > 0; come--) {
                entries.put(key++, new Recent());
                if (entries.size() > 2000) {
                    entries.remove(entries.keySet().iterator().next());
                }
            }
            held = (long) entries.size() * OBJECT;
        }
    }

    private static void dropObjects() {
        for (int come = arrivals(500); come > 0; come--) {
            last = new Passing();
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
