import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.concurrent.CountDownLatch;

/** Starts threads that stay, and others that end, as it is told. */
class Started {
    public static void main(String[] arguments) throws Exception {
        System.out.println(Pid.own() + " ready");
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String line = input.readLine(); line != null; line = input.readLine()) {
            String[] words = line.split(" ");
            int times = Integer.parseInt(words[1]);
            for (int time = 0; time < times; time++) {
                if (words[0].equals("stay")) {
                    stay();
                } else {
                    end();
                }
            }
            System.out.println("done " + times);
        }
    }

    static void stay() throws InterruptedException {
        CountDownLatch forever = new CountDownLatch(1);
        Thread thread = new Thread(() -> await(forever));
        thread.setDaemon(true);
        thread.start();
    }

    /** The thread's end may come a little after it is told. */
    static void end() throws InterruptedException {
        Thread thread = new Thread(() -> {});
        thread.start();
        thread.join();
    }

    private static void await(CountDownLatch latch) {
        try {
            latch.await();
        } catch (InterruptedException ignored) {
            // Nobody does.
        }
    }
}
