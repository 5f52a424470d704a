import stacks.Commands;
import stacks.Mix;
import stacks.Thrown;

/**
 * What {@link Mix}, {@link Thrown}, {@link Handles} and {@link Started} do, in one JVM: the
 * command's first word says whose it is.
 */
class All {
    public static void main(String[] arguments) throws Exception {
        // Libraries are loaded, and the JDK's own classes.
        System.loadLibrary("jni_handles");
        Mix.rounds(1);
        new Thrown.Work().accept(1);
        Commands.serve(words -> run(words[0], words[1], Integer.parseInt(words[2])));
    }

    private static long run(String whose, String what, int times) throws Exception {
        switch (whose) {
            case "mix":
                return Mix.workOnce(times);
            case "thrown":
                return Thrown.run(what, times);
            case "handles":
                for (int time = 0; time < times; time++) {
                    Handles.once(what);
                }
                return times;
            case "started":
                for (int time = 0; time < times; time++) {
                    if (what.equals("stay")) {
                        Started.stay();
                    } else {
                        Started.end();
                    }
                }
                return times;
            default:
                throw new IllegalArgumentException(whose);
        }
    }
}
