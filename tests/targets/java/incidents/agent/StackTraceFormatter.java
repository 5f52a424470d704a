package incidents.agent;

/** A logging framework's formatter, which says of each frame where its class comes from. */
public final class StackTraceFormatter {
    private long failures;

    /** Writes an exception's frames as text. */
    public String format(Throwable exception) {
        StringBuilder text = new StringBuilder().append(exception);
        for (StackTraceElement frame : exception.getStackTrace()) {
            text.append("\n\tat ").append(frame).append(locationOf(frame));
        }
        return text.toString();
    }

    /** How many classes could not be linked so far. */
    public long failures() {
        return failures;
    }

    private String locationOf(StackTraceElement frame) {
        Class<?> found = loadClass(frame.getClassName());
        return found == null ? " [?]" : " [" + found.getClassLoader() + "]";
    }

    private Class<?> loadClass(String name) {
        try {
            return Class.forName(name);
        } catch (ClassNotFoundException missing) {
            return null;
        } catch (LinkageError broken) {
            failures++;
            return null;
        }
    }
}
