package stacks;

import java.util.function.IntConsumer;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/**
 * Has methods compiled that allocate native memory, and throws them away:
 * {@code round N} does so with a class of a loader of its own, N times.
 */
class Thrown {
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

    private static void round() throws ReflectiveOperationException {
        Class<?> copy = new Copies(Work.class.getName()).loadClass(Work.class.getName());
        ((IntConsumer) copy.getDeclaredConstructor().newInstance()).accept(CALLS);
    }

    public static void main(String[] arguments) throws Exception {
        // The JDK's own classes are compiled or not, but loaded.
        new Work().accept(1);
        Commands.serve(
                words -> {
                    int rounds = Integer.parseInt(words[1]);
                    for (int i = 0; i < rounds; i++) {
                        round();
                        System.gc();
                    }
                    return rounds;
                });
    }
}
