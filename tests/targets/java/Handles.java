import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CountDownLatch;

/** Makes global handles in native code ({@code tests/targets/c/jni_handles.c}), as it is told. */
class Handles {
    static final class Kept {
        long a;
    }

    static final class InList {
        long a;
    }

    static final class Forgotten {
        long a;
    }

    static final class Local {
        long a;
    }

    /** Keeps the address of a native block that has a handle. */
    static final class Peer {
        final long block;

        Peer(long block) {
            this.block = block;
        }
    }

    static final class OfPeer {
        long a;
    }

    static final List<Peer> peers = new ArrayList<>();

    public static void main(String[] arguments) throws Exception {
        System.loadLibrary("jni_handles");
        System.out.println(Pid.own() + " ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            int times = Integer.parseInt(words[1]);
            if (words[0].equals("local")) {
                keepLocally(times);
            } else {
                for (int time = 0; time < times; time++) {
                    once(words[0]);
                }
            }
            System.out.println("done " + times);
        }
    }

    static void once(String command) {
        switch (command) {
            case "keep":
                keep(new Kept());
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
            case "list":
                keepInList(new InList());
                break;
            case "peer":
                peers.add(new Peer(keepInBlock(new OfPeer())));
                break;
            case "forget":
                forget(new Forgotten());
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

    /** A thread that stays in native code, which alone has these objects then. */
    private static void keepLocally(int count) throws InterruptedException {
        Object[] objects = new Object[count];
        for (int i = 0; i < count; i++) {
            objects[i] = new Local();
        }
        CountDownLatch taken = new CountDownLatch(1);
        Thread thread = new Thread(() -> stay(objects, taken), "in-native-1");
        thread.setDaemon(true);
        thread.start();
        taken.await();
    }

    private static native void keep(Object object);

    private static native void keepInList(Object object);

    private static native long keepInBlock(Object object);

    private static native void forget(Object object);

    private static native void stay(Object[] objects, CountDownLatch taken);

    private static native void keepWeakly(Object object);

    private static native void pass(Object object);

    private static native void drop();

    private static native void dropWeak();
}
