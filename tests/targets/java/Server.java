import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import common.Pid;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.zip.GZIPOutputStream;

/**
 * A web server whose every answer is made and compressed anew, which takes native memory. For
 * `cargo xtask bench`: prints its pid and its port, and ends with its standard input.
 */
class Server {
    private static final int THREADS = 2;
    private static final int LINES = 400;

    public static void main(String[] arguments) throws IOException {
        // Without it, an answer waits for the client's delayed acknowledgement.
        System.setProperty("sun.net.httpserver.nodelay", "true");
        InetSocketAddress address = new InetSocketAddress(InetAddress.getLoopbackAddress(), 0);
        HttpServer server = HttpServer.create(address, 0);
        ExecutorService pool = Executors.newFixedThreadPool(THREADS);
        server.setExecutor(pool);
        server.createContext("/", Server::answer);
        server.start();
        System.out.println("pid " + Pid.own());
        System.out.println("port " + server.getAddress().getPort());
        while (System.in.read() >= 0) {}
        server.stop(0);
        pool.shutdown();
    }

    private static void answer(HttpExchange exchange) throws IOException {
        byte[] body = compressed(page(exchange.getRequestURI().getPath()));
        exchange.getResponseHeaders().set("Content-Encoding", "gzip");
        exchange.sendResponseHeaders(200, body.length);
        try (OutputStream output = exchange.getResponseBody()) {
            output.write(body);
        }
    }

    private static String page(String path) {
        StringBuilder page = new StringBuilder();
        for (int line = 0; line < LINES; line++) {
            page.append(line).append(": ").append(path).append(" #").append(line * 7919).append('\n');
        }
        return page.toString();
    }

    private static byte[] compressed(String page) throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (OutputStream zip = new GZIPOutputStream(bytes)) {
            zip.write(page.getBytes(StandardCharsets.UTF_8));
        }
        return bytes.toByteArray();
    }
}
