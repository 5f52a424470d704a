package stacks;

import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.lang.invoke.MethodHandle;
import java.lang.invoke.MethodHandles;
import java.lang.invoke.MethodType;
import java.util.Arrays;
import java.util.List;

/**
 * Threads that wait in native code with a block of memory of a known size: a
 * read of more than 8 KiB takes a buffer of that size.
 *
 * <p>{@code warm N} goes the way to the read N times; {@code block FILE SIZE}
 * starts the thread {@code bSIZE}, which reads from the file. Up to four such
 * threads begin at different lines.
 */
public class Blocked {
    interface Path {
        int go(InputStream input, byte[] buffer) throws Throwable;
    }

    interface Start {
        void go(InputStream input, byte[] buffer);
    }

    private static final Start[] STARTS = {
        (input, buffer) -> path(input, buffer),
        (input, buffer) -> path(input, buffer),
        (input, buffer) -> path(input, buffer),
        (input, buffer) -> path(input, buffer),
    };

    private static final int DEPTH = 12;
    private static final MethodHandle DESCEND = descend();

    private static int blocked;
    static volatile int sum;

    public static void main(String[] arguments) throws Exception {
        Commands.serve(
                words -> {
                    switch (words[0]) {
                        case "warm":
                            warm(Integer.parseInt(words[1]));
                            return "";
                        case "block":
                            block(words[1], Integer.parseInt(words[2]));
                            return "";
                        default:
                            throw new IllegalArgumentException(words[0]);
                    }
                });
    }

    private static void warm(int times) throws IOException {
        byte[] few = new byte[8];
        try (InputStream zeros = new FileInputStream("/dev/zero")) {
            for (int i = 0; i < times; i++) {
                path(zeros, few);
            }
        }
    }

    private static void block(String file, int size) throws IOException {
        InputStream input = new FileInputStream(file);
        Start start = STARTS[blocked++];
        Thread thread = new Thread(() -> start.go(input, new byte[size]), "b" + size);
        thread.setDaemon(true);
        thread.start();
    }

    private static void path(InputStream input, byte[] buffer) {
        Path handle = (in, to) -> (int) DESCEND.invokeExact(in, to, DEPTH);
        Path reflection =
                (in, to) ->
                        (Integer)
                                Blocked.class
                                        .getDeclaredMethod("each", Path.class, InputStream.class, byte[].class)
                                        .invoke(null, handle, in, to);
        sum += each(reflection, input, buffer);
    }

    static int each(Path path, InputStream input, byte[] buffer) {
        return Arrays.asList(1, 2).stream().limit(1).mapToInt(one -> go(path, input, buffer) + one).sum();
    }

    private static int go(Path path, InputStream input, byte[] buffer) {
        try {
            return path.go(input, buffer);
        } catch (Error | RuntimeException problem) {
            throw problem;
        } catch (Throwable problem) {
            throw new IllegalStateException(problem);
        }
    }

    private static int descend(InputStream input, byte[] buffer, int depth) {
        if (depth == 0) {
            return read(input, buffer);
        }
        if (depth % 2 == 0) {
            return descend(input, buffer, depth - 1) + 1;
        }
        return -descend(input, buffer, depth - 1);
    }

    private static int read(InputStream input, byte[] buffer) {
        synchronized (input) {
            try {
                return input.read(buffer);
            } catch (IOException problem) {
                throw new UncheckedIOException(problem);
            }
        }
    }

    private static MethodHandle descend() {
        MethodType type =
                MethodType.methodType(int.class, InputStream.class, byte[].class, int.class);
        try {
            return MethodHandles.lookup().findStatic(Blocked.class, "descend", type);
        } catch (ReflectiveOperationException problem) {
            throw new ExceptionInInitializerError(problem);
        }
    }
}
