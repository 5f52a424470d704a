package stacks;

/**
 * Code that is deoptimised while it runs. Compiled calls of {@code area} rely on
 * there being one class that has it, until the deepest of them loads another.
 * Each loader's copy of this class can do so once.
 */
public class Epoch implements Runnable {
    abstract static class Shape {
        abstract int area();
    }

    static final class First extends Shape {
        @Override
        int area() {
            return 1;
        }
    }

    static final class Second extends Shape {
        @Override
        int area() {
            return 2;
        }
    }

    private static final int WARM = 30_000;
    private static final int DEPTH = 9;

    static volatile Shape other;
    static volatile int sum;

    static {
        Mix.allocate();
    }

    @Override
    public void run() {
        Shape shape = new First();
        for (int i = 0; i < WARM; i++) {
            sum += descend(shape, DEPTH, false);
        }
        sum += descend(shape, DEPTH, true);
    }

    private static int descend(Shape shape, int depth, boolean last) {
        if (depth == 0) {
            if (last) {
                other = new Second();
                Mix.allocate();
            }
            return shape.area();
        }
        return descend(shape, depth - 1, last) + shape.area();
    }

    /** A copy of this class and of those in it. */
    static Runnable fresh() throws ReflectiveOperationException {
        return (Runnable) new Copies(Epoch.class.getName())
                .loadClass(Epoch.class.getName())
                .getDeclaredConstructor()
                .newInstance();
    }
}
