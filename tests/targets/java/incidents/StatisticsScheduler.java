package incidents;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicLong;

/**
 * Statistics that a scheduler keeps.
 *
 * <p>Load-balancer contexts are cached by a digest of their settings, which is computed in two ways:
 * one in lower case, one in upper. So no look-up finds anything, and each request builds a new
 * context and puts it in the place of the last. Each of its servers' statistics has a publisher on
 * the shared scheduler, which nobody cancels: it holds the statistics, with their buffers.
 *
 * <p>The twin shuts the context down that it replaces. (Its keys do not match either, so that both
 * do the same work.)
 */
final class StatisticsScheduler implements Rounds.Work {
    private static final int SERVERS = 3;
    private static final int SAMPLES = 211;
    private static final int ARRAY_HEADER = 16;
    private static final AtomicLong PUBLISHERS = new AtomicLong();

    private final boolean healthy;
    private final ScheduledThreadPoolExecutor scheduler = new ScheduledThreadPoolExecutor(1);
    private final Map<String, Context> cache = new HashMap<>();

    private StatisticsScheduler(boolean healthy) {
        this.healthy = healthy;
        scheduler.setRemoveOnCancelPolicy(true);
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new StatisticsScheduler(Rounds.isHealthy(arguments)), arguments);
    }

    /** One request. */
    @Override
    public void round() {
        contextOf("orders, 3 servers, round robin").servers.get(0).buffer.record(1.0);
    }

    /** The last context is in use, and so no leak. */
    @Override
    public String truth() {
        long inUse = cache.size() * SERVERS;
        return Rounds.truth(2 * (PUBLISHERS.get() - inUse), ARRAY_HEADER + Double.BYTES * SAMPLES);
    }

    private Context contextOf(String settings) {
        Context context = cache.get(digest(settings).toUpperCase(Locale.ROOT));
        if (context == null) {
            context = new Context();
            Context replaced = cache.put(digest(settings), context);
            if (healthy && replaced != null) {
                replaced.shutdown();
            }
        }
        return context;
    }

    private static String digest(String settings) {
        return Integer.toHexString(settings.hashCode() | 0xa0000000);
    }

    /** A load balancer's view of its servers. */
    private final class Context {
        final List<ServerStatistics> servers = new ArrayList<>();

        Context() {
            for (int server = 0; server < SERVERS; server++) {
                ServerStatistics statistics = new ServerStatistics();
                statistics.initialize();
                servers.add(statistics);
            }
        }

        void shutdown() {
            servers.forEach(ServerStatistics::shutdown);
        }
    }

    /** Response times of one server. */
    private final class ServerStatistics {
        Buffer buffer;
        private ScheduledFuture<?> publisher;

        void initialize() {
            buffer = distribution();
            publisher = scheduler.scheduleAtFixedRate(buffer::publish, 1, 1, TimeUnit.HOURS);
            PUBLISHERS.incrementAndGet();
        }

        private Buffer distribution() {
            return new Buffer();
        }

        void shutdown() {
            if (publisher.cancel(false)) {
                PUBLISHERS.decrementAndGet();
            }
        }
    }

    /** Two halves: one is written to while the other is published. */
    private static final class Buffer {
        private double[] current = new double[SAMPLES];
        private double[] published = new double[SAMPLES];
        private int next;

        synchronized void record(double sample) {
            current[next++ % SAMPLES] = sample;
        }

        synchronized void publish() {
            double[] before = published;
            published = current;
            current = before;
        }
    }
}
