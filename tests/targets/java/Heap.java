import common.Pid;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Fills its heap as it is told, one command a line: `grow N` keeps N more
 * objects, `arrays N` as many arrays, `churn N` makes and drops N, `direct N` keeps a direct buffer of N
 * bytes, `collect` collects all garbage.
 */
class Heap {
    /** 24 bytes an object: a header of 12 and 12 of fields. */
    static final class Grown {
        int a;
        long b;
    }

    static final class Churned {
        int a;
        long b;
    }

    /** What the tests of native memory want to know of a command. */
    static final String NOTHING =
            "{\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}";

    static final List<Object> kept = new ArrayList<>(2_000_000);
    static volatile Object last;

    public static void main(String[] arguments) throws IOException {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        // What runs for the first time makes objects of its own.
        run("grow", 1);
        run("arrays", 1);
        run("churn", 1);
        run("direct", 1);
        System.out.println(Pid.own() + " ready");
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ");
            run(words[0], words.length > 1 ? Integer.parseInt(words[1]) : 0);
            System.out.println("done " + NOTHING);
        }
    }

    private static void run(String name, int count) {
        switch (name) {
            case "grow":
                for (int i = 0; i < count; i++) {
                    kept.add(new Grown());
                }
                break;
            case "arrays":
                for (int i = 0; i < count; i++) {
                    kept.add(new Grown[7]);
                }
                break;
            case "churn":
                for (int i = 0; i < count; i++) {
                    last = new Churned();
                }
                last = null;
                break;
            case "direct":
                kept.add(ByteBuffer.allocateDirect(count));
                break;
            case "collect":
                System.gc();
                break;
            default:
                throw new IllegalArgumentException(name);
        }
    }
}
