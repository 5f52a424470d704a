package stacks;

/** The template of classes that {@link Generated} makes, by other names. */
public class Text000000 implements Runnable {
    @Override
    public void run() {
        Generated.pack(true);
        Generated.pack(false);
    }
}
