package stacks;

import java.util.ArrayList;
import java.util.List;
import java.util.function.IntConsumer;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/**
 * Has methods compiled that allocate native memory, and throws them away:
 * {@code round N} does so with a class of a loader of its own, N times;
 * {@code hold N} has N classes compiled and kept, which {@code use} has allocate
 * and throws away.
 */
public class Thrown {
    public static final class Work implements IntConsumer {
        private static final int WARM = 30_000;

        @Override
        public void accept(int count) {
            for (int i = 0; i < WARM; i++) {
                first(false);
                second(false);
            }
            for (int i = 0; i < count; i++) {
                first(true);
                second(true);
            }
        }

        private static void first(boolean really) {
            if (really) {
                new Deflater().end();
            }
        }

        private static void second(boolean really) {
            if (really) {
                new Inflater().end();
            }
        }
    }

    /** How often each method of a copy allocates. */
    private static final int CALLS = 7;

    private static final List<IntConsumer> held = new ArrayList<>();

    private static IntConsumer copy() throws ReflectiveOperationException {
        Class<?> copy = new Copies(Work.class.getName()).loadClass(Work.class.getName());
        return (IntConsumer) copy.getDeclaredConstructor().newInstance();
    }

    /** Does what it is told to: {@code round}, {@code hold} or {@code use}. */
    public static int run(String name, int count) throws ReflectiveOperationException {
        if (name.equals("use")) {
            while (!held.isEmpty()) {
                held.remove(held.size() - 1).accept(CALLS);
                System.gc();
            }
            return count;
        }
        for (int i = 0; i < count; i++) {
            IntConsumer copy = copy();
            if (name.equals("hold")) {
                copy.accept(0);
                held.add(copy);
            } else {
                copy.accept(CALLS);
                copy = null;
                System.gc();
            }
        }
        return count;
    }

    public static void main(String[] arguments) throws Exception {
        // The JDK's own classes are compiled or not, but loaded.
        new Work().accept(1);
        Commands.serve(words -> run(words[0], Integer.parseInt(words[1])));
    }
}
