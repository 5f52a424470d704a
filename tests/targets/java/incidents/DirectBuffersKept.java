package incidents;

import java.nio.ByteBuffer;
import java.util.HashMap;
import java.util.Map;

/**
 * Direct buffers of sessions that are over.
 *
 * <p>Each session has a buffer, which it is found by in a map, and nobody removes it there.
 *
 * <p>The twin does. The buffer's memory is free when it has been found to be garbage.
 */
final class DirectBuffersKept implements Rounds.Work {
    private static final int SIZE = 10007;

    private final boolean healthy;
    private final Map<Long, ByteBuffer> buffers = new HashMap<>();
    private long sessions;

    private DirectBuffersKept(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new DirectBuffersKept(Rounds.isHealthy(arguments)), arguments);
    }

    /** One session, from its start to its end. */
    @Override
    public void round() {
        long session = sessions++;
        open(session);
        close(session);
    }

    @Override
    public String truth() {
        return Rounds.truth(buffers.size(), SIZE);
    }

    private void open(long session) {
        buffers.put(session, ByteBuffer.allocateDirect(SIZE));
    }

    private void close(long session) {
        if (healthy) {
            buffers.remove(session);
        }
    }
}
