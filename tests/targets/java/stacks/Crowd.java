package stacks;

import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.locks.LockSupport;

/**
 * Many parked threads and much compiled code. {@code threads N} starts N;
 * {@code classes N} loads N copies of a class with 20 methods; {@code call}
 * calls all of these some times; {@code gap} tells the longest time between two
 * looks at the clock since it was asked last, in
 * microseconds, from {@code clock} on.
 */
public class Crowd {
    /** What is copied. */
    public static class Work implements Runnable {
        static volatile int sum;

        @Override
        public void run() {
            int x = sum;
            x = a(x) + b(x) + c(x) + d(x) + e(x) + f(x) + g(x) + h(x) + i(x) + j(x);
            sum = k(x) + l(x) + m(x) + n(x) + o(x) + p(x) + q(x) + r(x) + s(x) + t(x);
        }

        // One that calls no other and is more than a field's value.
        static int a(int x) { return x * 3 + sum; }
        static int b(int x) { return x * 5 + sum; }
        static int c(int x) { return x * 7 + sum; }
        static int d(int x) { return x * 9 + sum; }
        static int e(int x) { return x * 11 + sum; }
        static int f(int x) { return x * 13 + sum; }
        static int g(int x) { return x * 15 + sum; }
        static int h(int x) { return x * 17 + sum; }
        static int i(int x) { return x * 19 + sum; }
        static int j(int x) { return x * 21 + sum; }
        static int k(int x) { return x * 23 + sum; }
        static int l(int x) { return x * 25 + sum; }
        static int m(int x) { return x * 27 + sum; }
        static int n(int x) { return x * 29 + sum; }
        static int o(int x) { return x * 31 + sum; }
        static int p(int x) { return x * 33 + sum; }
        static int q(int x) { return x * 35 + sum; }
        static int r(int x) { return x * 37 + sum; }
        static int s(int x) { return x * 39 + sum; }
        static int t(int x) { return x * 41 + sum; }
    }

    private static final int CALLS = 10;
    private static final long SMALL_STACK = 128 << 10;

    private static final List<Runnable> kept = new ArrayList<>();
    private static long longest;

    public static void main(String[] arguments) throws Exception {
        Commands.serve(
                words -> {
                    switch (words[0]) {
                        case "threads":
                            threads(Integer.parseInt(words[1]));
                            return "";
                        case "classes":
                            classes(Integer.parseInt(words[1]));
                            return "";
                        case "call":
                            call();
                            return "";
                        case "clock":
                            watchClock();
                            return "";
                        case "gap":
                            return gap() / 1_000;
                        default:
                            throw new IllegalArgumentException(words[0]);
                    }
                });
    }

    private static void threads(int count) throws InterruptedException {
        CountDownLatch started = new CountDownLatch(count);
        Runnable park =
                () -> {
                    started.countDown();
                    for (;;) {
                        LockSupport.park();
                    }
                };
        for (int i = 0; i < count; i++) {
            Thread thread = new Thread(null, park, "parked-" + i, SMALL_STACK);
            thread.setDaemon(true);
            thread.start();
        }
        started.await();
    }

    private static void classes(int count) throws ReflectiveOperationException {
        String name = Work.class.getName();
        for (int i = 0; i < count; i++) {
            Class<?> copy = new Copies(name).loadClass(name);
            Runnable work = (Runnable) copy.getDeclaredConstructor().newInstance();
            kept.add(work);
        }
    }

    private static void call() {
        for (Runnable work : kept) {
            for (int call = 0; call < CALLS; call++) {
                work.run();
            }
        }
    }

    /** It takes a processor for itself. */
    private static void watchClock() {
        Thread clock = new Thread(Crowd::watch, "clock");
        clock.setDaemon(true);
        clock.start();
    }

    private static void watch() {
        long last = System.nanoTime();
        for (;;) {
            long now = System.nanoTime();
            if (now - last > 100_000) {
                note(now - last);
            }
            last = now;
        }
    }

    private static synchronized void note(long gap) {
        longest = Math.max(longest, gap);
    }

    private static synchronized long gap() {
        long gap = longest;
        longest = 0;
        return gap;
    }
}
