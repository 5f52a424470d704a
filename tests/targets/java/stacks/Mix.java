package stacks;

import common.Pid;
import java.io.IOException;
import java.io.PrintWriter;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.lang.reflect.Method;
import java.security.AccessController;
import java.security.PrivilegedAction;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.atomic.AtomicLong;
import java.util.concurrent.atomic.LongAdder;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.zip.DataFormatException;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/**
 * Native allocations below all that a JVM has on its stacks: interpreted code,
 * both compilers', code that is deoptimised, lambdas, streams, reflection,
 * method handles, exceptions, class initialisers.
 *
 * <p>{@code work N} runs N rounds in each of three new threads, and tells how
 * often {@code Deflater.init} was called; {@code traces FILE} writes where
 * from, if {@code -Dtraced=true}; {@code forever} works until the end.
 * With an argument the main thread does a few rounds once it is told to, and that
 * is all.
 */
public class Mix {
    interface Shape {
        double area();
    }

    static final class A implements Shape {
        @Override
        public double area() {
            return 1;
        }
    }

    static final class B implements Shape {
        @Override
        public double area() {
            return 2;
        }
    }

    static final class C implements Shape {
        @Override
        public double area() {
            return 3;
        }
    }

    private static final int THREADS = 3;
    /** Rounds between collections. */
    private static final int CYCLE = 50;
    private static final boolean TRACED = Boolean.getBoolean("traced");

    private static final AtomicLong calls = new AtomicLong();
    private static final Map<String, LongAdder> traces = new ConcurrentHashMap<>();
    private static final Queue<Object> kept = new ConcurrentLinkedQueue<>();
    static volatile Object sink;

    public static void main(String[] arguments) throws Exception {
        // Loads the libraries.
        rounds(1);
        if (arguments.length > 0) {
            // Tables of libraries that were just loaded come a little later.
            System.out.println(Pid.own() + " ready");
            System.in.read();
            System.out.println("done " + settled());
            // Names are read from a process that lives.
            Thread.sleep(2_000);
            return;
        }
        Commands.serve(
                words -> {
                    switch (words[0]) {
                        case "work":
                            return work(Integer.parseInt(words[1]));
                        case "traces":
                            return write(words[1]);
                        case "forever":
                            start(Integer.MAX_VALUE);
                            return "";
                        default:
                            throw new IllegalArgumentException(words[0]);
                    }
                });
    }

    private static long settled() {
        long before = calls.get();
        rounds(3);
        return calls.get() - before;
    }

    private static long work(int rounds) throws InterruptedException {
        long before = calls.get();
        for (int left = rounds; left > 0; left -= CYCLE) {
            workOnce(Math.min(left, CYCLE));
            collect();
        }
        return calls.get() - before;
    }

    /** So many rounds in each of three new threads, after which no class is unloaded. */
    public static long workOnce(int rounds) throws InterruptedException {
        long before = calls.get();
        for (Thread thread : start(rounds)) {
            thread.join();
        }
        return calls.get() - before;
    }

    /** Unloads classes and code, but not within a moment: names are read ten times a second. */
    private static void collect() throws InterruptedException {
        Thread.sleep(500);
        kept.clear();
        System.gc();
    }

    private static Thread[] start(int rounds) {
        Thread[] threads = new Thread[THREADS];
        for (int i = 0; i < threads.length; i++) {
            threads[i] = new Thread(() -> rounds(rounds), "mix-" + i);
            threads[i].setDaemon(true);
            threads[i].start();
        }
        return threads;
    }

    /** Rounds in the calling thread. */
    public static void rounds(int rounds) {
        try {
            for (int round = 0; round < rounds; round++) {
                round(round);
            }
        } catch (Throwable problem) {
            problem.printStackTrace();
            Runtime.getRuntime().halt(1);
        }
    }

    private static void round(int round) throws Throwable {
        Shape shape = round < 50 ? new A() : round % 3 == 0 ? new B() : new C();
        virtual(shape, round % 20);
        stream();
        reflection();
        handle();
        thrown(5);
        privileged();
        spin(20_000);
        if (round % 50 == 0) {
            Runnable epoch = Epoch.fresh();
            kept.add(epoch);
            epoch.run();
        }
    }

    private static double virtual(Shape shape, int depth) {
        if (depth == 0) {
            allocate();
            return shape.area();
        }
        return virtual(shape, depth - 1) + shape.area();
    }

    private static void stream() {
        sink = IntStream.range(0, 3).mapToObj(Mix::text).collect(Collectors.toList());
    }

    private static String text(int number) {
        allocate();
        return "number " + number;
    }

    private static void reflection() throws ReflectiveOperationException {
        Method method = Mix.class.getDeclaredMethod("allocate");
        method.invoke(null);
    }

    private static void handle() throws Throwable {
        MethodType type = MethodType.methodType(void.class);
        MethodHandle handle = MethodHandles.lookup().findStatic(Mix.class, "allocate", type);
        handle.invoke();
    }

    private static void thrown(int depth) {
        try {
            throwing(depth);
        } catch (IllegalStateException problem) {
            allocate();
        }
    }

    private static void throwing(int depth) {
        try {
            if (depth == 0) {
                allocate();
                throw new IllegalStateException("as meant");
            }
            throwing(depth - 1);
        } finally {
            sink = depth;
        }
    }

    @SuppressWarnings({"deprecation", "removal"})
    private static void privileged() {
        AccessController.doPrivileged(
                (PrivilegedAction<Object>)
                        () -> {
                            allocate();
                            return null;
                        });
    }

    /** Long enough to be compiled while it runs. */
    private static synchronized void spin(int times) {
        int sum = 0;
        for (int i = 1; i <= times; i++) {
            sum += i ^ (sum >> 1);
            if (i % 10_000 == 0) {
                allocate();
            }
        }
        sink = sum;
    }

    /** The only caller of {@code Deflater.init}. */
    public static void allocate() {
        // In one line, which the trace has and the tracer sees.
        Throwable here = TRACED ? new Throwable() : null; Deflater deflater = new Deflater();
        calls.incrementAndGet();
        if (here != null) {
            remember(here);
        }
        byte[] bytes = new byte[300];
        deflater.setInput(new byte[100]);
        deflater.finish();
        int length = deflater.deflate(bytes);
        deflater.end();
        inflate(bytes, length);
    }

    private static void inflate(byte[] bytes, int length) {
        Inflater inflater = new Inflater();
        inflater.setInput(bytes, 0, length);
        try {
            inflater.inflate(new byte[100]);
        } catch (DataFormatException problem) {
            throw new IllegalStateException(problem);
        } finally {
            inflater.end();
        }
    }

    private static void remember(Throwable here) {
        StringBuilder frames = new StringBuilder();
        for (StackTraceElement frame : here.getStackTrace()) {
            frames.append(frame.getClassName()).append('.').append(frame.getMethodName());
            frames.append(':').append(Math.max(0, frame.getLineNumber())).append(';');
        }
        traces.computeIfAbsent(frames.toString(), trace -> new LongAdder()).increment();
    }

    private static int write(String file) throws IOException {
        try (PrintWriter output = new PrintWriter(file)) {
            traces.forEach((trace, count) -> output.println(count + " " + trace));
        }
        return traces.size();
    }
}
