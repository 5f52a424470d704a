package incidents;

import common.Bytes;
import incidents.agent.Interceptor;
import incidents.agent.StackTraceFormatter;
import java.io.IOException;
import java.io.InputStream;

/**
 * A class that the boot loader finds and cannot link, in a process with a transforming agent.
 *
 * <p>The agent's jar is on the boot class path. It has {@link Interceptor} in it, but not the
 * interface that this implements. A logging framework, in the same jar, looks for the class of each
 * frame of a logged exception, and so asks the boot loader for {@link Interceptor} each time. The
 * loader reads the class file; as an agent might transform the class again later, the virtual machine
 * keeps a copy of the file; then the class cannot be linked, and the copy is forgotten.
 *
 * <p>The twin runs with an agent whose jar has the interface too: {@code boot-agent-healthy.jar}
 * instead of {@code boot-agent.jar}.
 */
final class BootLoaderAgent implements Rounds.Work {
    private final StackTraceFormatter formatter = new StackTraceFormatter();
    private final int classBytes;

    private BootLoaderAgent() throws IOException {
        try (InputStream file = ClassLoader.getSystemResourceAsStream("incidents/agent/Interceptor.class")) {
            classBytes = Bytes.all(file).length;
        }
    }

    public static void main(String[] arguments) throws Exception {
        if (StackTraceFormatter.class.getClassLoader() != null) {
            throw new IllegalStateException("run with -javaagent:boot-agent.jar");
        }
        Rounds.drive(new BootLoaderAgent(), arguments);
    }

    /** One exception is logged. */
    @Override
    public void round() {
        logError(fromRemote());
    }

    @Override
    public String truth() {
        return Rounds.truth(formatter.failures(), classBytes);
    }

    private void logError(Exception exception) {
        formatter.format(exception);
    }

    /** An exception of another process, whose stack came with it. */
    private static Exception fromRemote() {
        Exception exception = new Exception("the service is down");
        exception.setStackTrace(
                new StackTraceElement[] {
                    new StackTraceElement("incidents.agent.Interceptor", "intercept", "Interceptor.java", 1),
                });
        return exception;
    }
}
