package incidents;

import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ThreadLocalRandom;

/**
 * Drives an incident in rounds, as lines on standard input tell:
 *
 * <pre>
 * round N    N rounds of work; answers "done N"
 * truth      answers "truth instances=N …": how many objects or blocks are held that should not be
 * gc         collects garbage, and runs the cleaners of what it found; answers "done gc"
 * exit       ends the program, as does the end of input
 * </pre>
 *
 * With the arguments {@code auto SECONDS} it works alone, at a steady rate. With the argument
 * {@code healthy} the program is its own twin without the bug.
 */
final class Rounds {
    private static final int ROUNDS_A_SECOND = 20;
    private static final int MOST_SHIFTED = 8192;

    /**
     * A thread's allocation buffer is new after a collection. If the same work always followed, the
     * same objects would fill it, and the VM would sample no others.
     */
    private static volatile byte[] shift;

    /** An incident. */
    interface Work {
        void round() throws Exception;

        /** What is held that should not be, as {@link Rounds#truth} writes it. */
        String truth();
    }

    private Rounds() {}

    static boolean isHealthy(String[] arguments) {
        return Arrays.asList(arguments).contains("healthy");
    }

    /** Objects or blocks, and of how many bytes each is, where the program knows that. */
    static String truth(long instances, int size) {
        return "instances=" + instances + " size=" + size + " bytes=" + instances * size;
    }

    static String truth(long instances) {
        return "instances=" + instances;
    }

    static void drive(Work work, String[] arguments) throws Exception {
        System.out.println(Pid.own() + " ready");
        List<String> words = Arrays.asList(arguments);
        int auto = words.indexOf("auto");
        if (auto >= 0) {
            alone(work, Integer.parseInt(words.get(auto + 1)));
        } else {
            asTold(work);
        }
        System.exit(0); // whatever threads an incident has left
    }

    private static void alone(Work work, int seconds) throws Exception {
        for (int round = 0; round < seconds * ROUNDS_A_SECOND; round++) {
            work.round();
            Thread.sleep(1000 / ROUNDS_A_SECOND);
        }
        System.out.println("truth " + work.truth());
    }

    private static void asTold(Work work) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            switch (words[0]) {
                case "round":
                    int rounds = Integer.parseInt(words[1]);
                    shift = new byte[ThreadLocalRandom.current().nextInt(MOST_SHIFTED)];
                    for (int round = 0; round < rounds; round++) {
                        work.round();
                    }
                    System.out.println("done " + rounds);
                    break;
                case "truth":
                    System.out.println("truth " + work.truth());
                    break;
                case "gc":
                    Garbage.collect();
                    System.out.println("done gc");
                    break;
                case "exit":
                    return;
                default:
                    System.out.println("no command: " + line);
            }
        }
    }
}
