package incidents;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.DataFormatException;
import java.util.zip.Deflater;
import java.util.zip.Inflater;

/**
 * Inflaters that are never ended.
 *
 * <p>Each answer of a peer is decompressed by an inflater of its own. The answers are kept, with
 * their inflaters, whose native state (libz's) is freed when they are ended, or become garbage.
 *
 * <p>The twin ends an inflater when the answer is read.
 */
final class InflaterNeverEnded implements Rounds.Work {
    private final boolean healthy;
    private final byte[] compressed = new byte[128];
    private final List<Answer> answers = new ArrayList<>();
    private long open;

    private InflaterNeverEnded(boolean healthy) {
        this.healthy = healthy;
        Deflater deflater = new Deflater();
        deflater.setInput("an answer, an answer, an answer".getBytes(StandardCharsets.UTF_8));
        deflater.finish();
        deflater.deflate(compressed);
        deflater.end();
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new InflaterNeverEnded(Rounds.isHealthy(arguments)), arguments);
    }

    /** One answer. */
    @Override
    public void round() throws Exception {
        answers.add(decompress());
    }

    @Override
    public String truth() {
        return Rounds.truth(open);
    }

    private Answer decompress() throws DataFormatException {
        Answer answer = new Answer(new Inflater());
        open++;
        answer.inflater.setInput(compressed);
        answer.length = answer.inflater.inflate(new byte[128]);
        if (healthy) {
            answer.inflater.end();
            open--;
        }
        return answer;
    }

    /** What was read. */
    private static final class Answer {
        final Inflater inflater;
        int length;

        Answer(Inflater inflater) {
            this.inflater = inflater;
        }
    }
}
