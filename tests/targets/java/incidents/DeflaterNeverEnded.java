package incidents;

import java.util.ArrayList;
import java.util.List;
import java.util.zip.Deflater;

/**
 * Deflaters that are never ended.
 *
 * <p>As with {@link InflaterNeverEnded}, but a deflater's native state is large: a quarter of a
 * megabyte, in several blocks.
 *
 * <p>The twin ends a deflater when the message is written.
 */
final class DeflaterNeverEnded implements Rounds.Work {
    private final boolean healthy;
    private final byte[] message = new byte[1009];
    private final List<Deflater> used = new ArrayList<>();
    private long open;

    private DeflaterNeverEnded(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new DeflaterNeverEnded(Rounds.isHealthy(arguments)), arguments);
    }

    /** One message. */
    @Override
    public void round() {
        compress();
    }

    @Override
    public String truth() {
        return Rounds.truth(open);
    }

    private int compress() {
        Deflater deflater = new Deflater();
        used.add(deflater);
        open++;
        deflater.setInput(message);
        deflater.finish();
        int length = deflater.deflate(new byte[256]);
        if (healthy) {
            deflater.end();
            open--;
        }
        return length;
    }
}
