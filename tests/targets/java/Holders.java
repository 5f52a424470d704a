import common.Pid;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.ref.SoftReference;
import java.lang.reflect.Field;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import sun.misc.Unsafe;

/**
 * Keeps objects of classes of its own, each in another way: `grow N` keeps N more of each,
 * `collect` collects all garbage, `churn N` makes N KiB of it, `pages N` keeps N arrays of 8 KiB,
 * `natives N` allocates N blocks of native memory in each of three functions, of which the last
 * forgets them.
 */
class Holders {
    static class Kept {
        long a;
    }

    static final class InList extends Kept {}

    static final class InMap extends Kept {}

    static final class OfService extends Kept {
        final Service service;

        OfService(Service service) {
            this.service = service;
        }
    }

    static final class OnStack extends Kept {}

    static final class Soft extends Kept {}

    /** An element of a list whose older elements point to newer ones. */
    static final class Forward extends Kept {
        Forward next;
    }

    /** Each holds the one that it will restore, in a variable of a thread of a pool. */
    static final class Scope extends Kept {
        final Scope toRestore;

        Scope(Scope toRestore) {
            this.toRestore = toRestore;
        }
    }

    static final class Task extends Kept implements Runnable {
        @Override
        public void run() {}
    }

    static final class Page {
        final byte[] content = new byte[8192];
    }

    /** All that it has points back to it. */
    static final class Service {
        final List<OfService> sessions = new ArrayList<>();
    }

    static final class Sessions {
        static final Service service = new Service();
    }

    /** Keeps native memory by its address. */
    static final class Peer {
        final long handle;

        Peer(long handle) {
            this.handle = handle;
        }
    }

    static final List<Page> pages = new ArrayList<>();
    static volatile int[] passing;
    static final Unsafe UNSAFE = unsafe();
    static final List<ByteBuffer> buffers = new ArrayList<>();
    static final Map<String, Peer> peers = new ConcurrentHashMap<>();
    static final List<InList> list = new ArrayList<>();
    static final Map<Integer, InMap> byId = new ConcurrentHashMap<>();
    static final Forward first = new Forward();
    static Forward last = first;
    static final ThreadLocal<Scope> active = new ThreadLocal<>();
    static final ScheduledThreadPoolExecutor timer = new ScheduledThreadPoolExecutor(1);
    static final List<SoftReference<Soft>> soft = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool =
                Executors.newSingleThreadExecutor(task -> new Thread(task, "pool-7-thread-3"));
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        List<OnStack> local = new ArrayList<>();
        run("grow", 1, local, pool);
        System.out.println(Pid.own() + " ready");
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ");
            run(words[0], words.length > 1 ? Integer.parseInt(words[1]) : 0, local, pool);
            System.out.println("done {\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}");
        }
        System.out.println(local.size());
        System.exit(0);
    }

    private static void run(String name, int count, List<OnStack> local, ExecutorService pool)
            throws Exception {
        switch (name) {
            case "grow":
                for (int i = 0; i < count; i++) {
                    keep(local);
                }
                pool.submit(() -> enter(count)).get();
                break;
            case "collect":
                System.gc();
                break;
            case "churn":
                for (int i = 0; i < count; i++) {
                    passing = new int[250];
                }
                break;
            case "pages":
                for (int i = 0; i < count; i++) {
                    pages.add(new Page());
                }
                break;
            case "natives":
                for (int i = 0; i < count; i++) {
                    inBuffer();
                    inPeer();
                    dropped();
                }
                break;
            default:
                throw new IllegalArgumentException(name);
        }
    }

    private static void inBuffer() {
        buffers.add(ByteBuffer.allocateDirect(7001));
    }

    private static void inPeer() {
        peers.put("peer " + peers.size(), new Peer(UNSAFE.allocateMemory(6007)));
    }

    private static void dropped() {
        UNSAFE.setMemory(UNSAFE.allocateMemory(5009), 5009, (byte) 1);
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

    private static void keep(List<OnStack> local) {
        list.add(new InList());
        byId.put(byId.size(), new InMap());
        Sessions.service.sessions.add(new OfService(Sessions.service));
        local.add(new OnStack());
        soft.add(new SoftReference<>(new Soft()));
        last.next = new Forward();
        last = last.next;
        timer.schedule(new Task(), 1, TimeUnit.DAYS);
    }

    private static void enter(int count) {
        for (int i = 0; i < count; i++) {
            active.set(new Scope(active.get()));
        }
    }
}
