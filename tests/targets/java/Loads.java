/** Loads the library that its argument names, and calls a function of it at once. */
class Loads {
    static native void allocate();

    public static void main(String[] arguments) {
        load(arguments[0]);
    }

    private static void load(String library) {
        System.load(library);
        allocate();
    }
}
