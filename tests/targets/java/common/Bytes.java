package common;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;

/** All of a stream, as {@code InputStream.readAllBytes} reads it from Java 9 on. */
public final class Bytes {
    private Bytes() {}

    public static byte[] all(InputStream input) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        byte[] buffer = new byte[8192];
        for (int length; (length = input.read(buffer)) >= 0; ) {
            bytes.write(buffer, 0, length);
        }
        return bytes.toByteArray();
    }
}
