package stacks;

import common.Bytes;
import java.io.InputStream;
import java.lang.reflect.InvocationHandler;
import java.lang.reflect.Method;
import java.lang.reflect.Proxy;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.zip.Deflater;

/**
 * Allocates native memory in classes that are made for it, as script engines and
 * containers make them. Those that are copies of a class keep one
 * deflater, at one line, and end another, at the next.
 *
 * <p>{@code class NAME FROM COUNT} makes copies of a class under names of four
 * letters with a number of six digits behind them; {@code proxy COUNT} makes proxy
 * classes, each of which keeps a deflater.
 */
public final class Generated {
    private static final String TEMPLATE = "Text000000";
    private static final List<Deflater> kept = new ArrayList<>();

    private Generated() {}

    /** A loader for one class. */
    private static final class One extends ClassLoader {
        private final byte[] code;

        One(byte[] code) {
            super(Generated.class.getClassLoader());
            this.code = code;
        }

        Class<?> define(String name) {
            return defineClass(name, code, 0, code.length);
        }
    }

    /** What all proxies do. */
    private static final class Handler implements InvocationHandler {
        @Override
        public Object invoke(Object proxy, Method method, Object[] arguments) {
            pack(true);
            return null;
        }
    }

    /** Called by classes of other loaders too, for which it has to be public. */
    public static void pack(boolean keep) {
        Deflater deflater = new Deflater(6);
        if (keep) {
            kept.add(deflater);
        } else {
            deflater.end();
        }
    }

    /** The template's code under another name. */
    private static byte[] copy(String name) throws Exception {
        try (InputStream file = Generated.class.getResourceAsStream(TEMPLATE + ".class")) {
            String code = new String(Bytes.all(file), StandardCharsets.ISO_8859_1);
            return code.replace(TEMPLATE, name).getBytes(StandardCharsets.ISO_8859_1);
        }
    }

    private static void script(String name) throws Exception {
        Class<?> script = new One(copy(name)).define("stacks." + name);
        ((Runnable) script.getDeclaredConstructor().newInstance()).run();
    }

    private static void proxy(InvocationHandler handler) {
        Class<?>[] interfaces = {Runnable.class};
        ((Runnable) Proxy.newProxyInstance(new One(null), interfaces, handler)).run();
    }

    public static void main(String[] arguments) throws Exception {
        Commands.serve(words -> {
            int count = Integer.parseInt(words[words.length - 1]);
            if (words[0].equals("proxy")) {
                for (int i = 0; i < count; i++) {
                    proxy(new Handler());
                }
            } else {
                int from = Integer.parseInt(words[2]);
                for (int number = from; number < from + count; number++) {
                    script(String.format("%s%06d", words[1], number));
                }
            }
            return kept.size();
        });
    }
}
