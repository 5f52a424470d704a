import java.lang.reflect.Method;
import java.util.concurrent.locks.LockSupport;
import java.util.function.IntUnaryOperator;

/** A thread that is blocked deep inside code of all compilers. */
public class Deep implements Runnable {
    /** Whom the deepest method wakes before it waits: itself, but once. Never
        null, since code compiled before has no branch for that. */
    static volatile Thread woken;
    static volatile Thread other;
    static volatile boolean over;
    static final Deep DEEP = new Deep();
    static Method reflected;

    static int bottom(int x) {
        LockSupport.unpark(woken);
        LockSupport.park();
        return x + 1;
    }

    static int small(int x) {
        int y = x * 3;
        return bottom(y) + y;
    }

    static class Inner<T> {
        final T value;

        Inner(T value) {
            this.value = value;
            value.hashCode();
        }
    }

    static class Even {
        int pass(int x) {
            return small(x);
        }
    }

    /** Once this is loaded, calls of the above must be compiled anew. */
    static class Odd extends Even {
        @Override
        int pass(int x) {
            return 1;
        }
    }

    static Even even = new Even();

    /** Hot: inlines the methods above. */
    static int hot(int x) {
        Inner<Integer> inner =
            new Inner<>(x);
        return inner.value
            + even.pass(inner.value);
    }

    /** Called less often: left to the first compiler. */
    int tepid(int x, int times) {
        int sum = 0;
        for (int i = 0; i < times; i++) {
            sum += hot(x + i);
        }
        return sum;
    }

    /** Called once. */
    int cold(int x, int times) {
        IntUnaryOperator lambda = y -> tepid(y, times);
        return lambda.applyAsInt(x);
    }

    public static int byReflection(int x, int times) {
        return DEEP.cold(x, times);
    }

    @Override
    public void run() {
        try {
            woken = Thread.currentThread();
            for (int i = 0; i < 1500; i++) {
                tepid(i, 20);
            }
            for (int i = 0; i < 400; i++) {
                reflected.invoke(null, i, 3);
            }
            woken = other;
            while (!over) {
                reflected.invoke(null, 5, 1);
            }
        } catch (ReflectiveOperationException error) {
            throw new AssertionError(error);
        }
    }

    public static void main(String[] arguments) throws Exception {
        other = Thread.currentThread();
        reflected = Deep.class.getMethod("byReflection", int.class, int.class);
        Thread worker = new Thread(DEEP, "worker");
        worker.setDaemon(true);
        worker.start();
        while (woken != other || worker.getState() != Thread.State.WAITING) {
            Thread.sleep(1);
        }
        if (arguments.length > 0) {
            new Odd();
        }
        for (StackTraceElement frame : worker.getStackTrace()) {
            System.out.println(frame.getClassName() + " " + frame.getMethodName() + " "
                + frame.getFileName() + " " + frame.getLineNumber());
        }
        System.out.println("end");
        System.in.read();
    }
}
