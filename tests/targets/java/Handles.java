import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;

/** Makes global handles in native code ({@code tests/targets/c/jni_handles.c}), as it is told. */
class Handles {
    public static void main(String[] arguments) throws Exception {
        System.loadLibrary("jni_handles");
        System.out.println(Pid.own() + " ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            int times = Integer.parseInt(words[1]);
            for (int time = 0; time < times; time++) {
                once(words[0]);
            }
            System.out.println("done " + times);
        }
    }

    static void once(String command) {
        switch (command) {
            case "keep":
                keep(new Object());
                break;
            case "keepWeakly":
                keepWeakly(new Object());
                break;
            case "pass":
                pass(new Object());
                break;
            case "passNothing":
                pass(null);
                break;
            case "drop":
                drop();
                break;
            case "dropWeak":
                dropWeak();
                break;
            default:
                throw new IllegalArgumentException(command);
        }
    }

    private static native void keep(Object object);

    private static native void keepWeakly(Object object);

    private static native void pass(Object object);

    private static native void drop();

    private static native void dropWeak();
}
