package incidents;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.atomic.AtomicLong;

/**
 * A chain of scopes in the threads of a pool.
 *
 * <p>A tracing agent opens a scope when a record's value is read. A listener gets its records in
 * batches, so the agent closes their scopes at the batch's end, and in the order in which they were
 * opened. A scope that is not the current one when it is closed does nothing; the last one restores
 * the one before, which is closed but stays. It is what the next batch's first scope will restore.
 *
 * <p>The twin closes the last scope first.
 */
final class ScopeChain implements Rounds.Work {
    private static final int RECORDS = 13;

    private static final ThreadLocal<ThreadLocalScope> CURRENT = new ThreadLocal<>();
    /** Scopes that have not been restored from, which some thread holds. */
    private static final AtomicLong HELD = new AtomicLong();

    private final boolean healthy;
    private final ExecutorService pool = Executors.newFixedThreadPool(3);

    private ScopeChain(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new ScopeChain(Rounds.isHealthy(arguments)), arguments);
    }

    /** One batch. */
    @Override
    public void round() throws Exception {
        pool.submit(this::onBatch).get();
    }

    @Override
    public String truth() {
        return Rounds.truth(HELD.get());
    }

    private long onBatch() {
        Advice advice = new Advice();
        long sum = 0;
        for (int number = 0; number < RECORDS; number++) {
            sum += new Record(number, advice).value();
        }
        advice.onBatchEnd(healthy);
        return sum;
    }

    /** What a listener reads. */
    private static final class Record {
        private final long value;
        private final Advice advice;

        Record(long value, Advice advice) {
            this.value = value;
            this.advice = advice;
        }

        long value() {
            advice.onValue(value);
            return value;
        }
    }

    /** What the agent wove in. */
    private static final class Advice {
        private final List<ThreadLocalScope> open = new ArrayList<>();

        void onValue(long value) {
            open.add(activate(new FakeSpan(value)));
        }

        ThreadLocalScope activate(FakeSpan span) {
            return new ThreadLocalScope(span);
        }

        void onBatchEnd(boolean healthy) {
            if (healthy) {
                for (int last = open.size() - 1; last >= 0; last--) {
                    open.get(last).close();
                }
            } else {
                for (ThreadLocalScope scope : open) {
                    scope.close();
                }
            }
        }
    }

    /** The work on one record. */
    private static final class FakeSpan {
        final long record;

        FakeSpan(long record) {
            this.record = record;
        }
    }

    /** Makes a span the thread's current one, until it is closed. */
    private static final class ThreadLocalScope {
        final FakeSpan span;
        private final ThreadLocalScope toRestore;

        ThreadLocalScope(FakeSpan span) {
            this.span = span;
            toRestore = CURRENT.get();
            CURRENT.set(this);
            HELD.incrementAndGet();
        }

        void close() {
            if (CURRENT.get() != this) {
                return; // not ours to restore
            }
            CURRENT.set(toRestore);
            HELD.decrementAndGet();
        }
    }
}
