/** Threads with long names, and with characters beyond one byte. */
public class Named {
    public static void main(String[] arguments) throws Exception {
        String[] names = {"a long name that the kernel cuts, number 1", "\u0416\u0443\u043a-thread-1", "short"};
        for (String name : names) {
            Thread thread = new Thread(() -> {
                while (true) {
                    java.util.concurrent.locks.LockSupport.park();
                }
            }, name);
            thread.setDaemon(true);
            thread.start();
            while (thread.getState() != Thread.State.WAITING) {
                Thread.sleep(1);
            }
        }
        java.io.PrintStream out = new java.io.PrintStream(System.out, true, "UTF-8");
        for (Thread thread : Thread.getAllStackTraces().keySet()) {
            out.println(thread.getName());
        }
        out.println("end");
        System.in.read();
    }
}
