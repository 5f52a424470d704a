import java.io.FileInputStream;
import java.io.IOException;

/**
 * Loads the library that its first argument names, and calls a function of it
 * at once. It ends once the pipe was written that the second names.
 */
class Loads {
    static native void allocate();

    public static void main(String[] arguments) throws IOException {
        load(arguments[0]);
        System.out.println("loaded");
        try (FileInputStream go = new FileInputStream(arguments[1])) {
            go.read();
        }
    }

    private static void load(String library) {
        System.load(library);
        allocate();
    }
}
