import common.Pid;
import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.lang.invoke.MethodHandles;
import java.lang.reflect.Array;
import java.lang.reflect.Field;
import java.lang.reflect.Method;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import sun.misc.Unsafe;

/**
 * Loads the same class again and again, each time by a class loader of its own that goes when
 * nothing holds it: `listed N` keeps N objects of such classes in a list, `local N` in a variable
 * of a thread of a pool, `classes N` keeps N of the classes, and `dropped N` nothing. `hidden N`
 * keeps N objects of classes that no loader knows by name.
 */
class Loaders {
    /** Loads {@link Plugin} by itself, and all else as others do. */
    abstract static class Loader extends ClassLoader {
        private final byte[] bytes;

        Loader(byte[] bytes) {
            super(Loaders.class.getClassLoader());
            this.bytes = bytes;
        }

        Object plugin() throws ReflectiveOperationException {
            Class<?> plugin = defineClass("Loaders$Plugin", bytes, 0, bytes.length);
            return plugin.getDeclaredConstructor().newInstance();
        }
    }

    static final class Listed extends Loader {
        Listed(byte[] bytes) {
            super(bytes);
        }
    }

    static final class Local extends Loader {
        Local(byte[] bytes) {
            super(bytes);
        }
    }

    static final class OfClass extends Loader {
        OfClass(byte[] bytes) {
            super(bytes);
        }
    }

    static final class Dropped extends Loader {
        Dropped(byte[] bytes) {
            super(bytes);
        }
    }

    /** What is loaded: a class with an object of its own. */
    public static final class Plugin {
        static final Object self = new Plugin();

        public Plugin() {}
    }

    static final List<Object> listed = new ArrayList<>();
    static final List<Object> hidden = new ArrayList<>();
    static final List<Class<?>> classes = new ArrayList<>();
    static final ThreadLocal<List<Object>> local = ThreadLocal.withInitial(ArrayList::new);

    public static void main(String[] arguments) throws Exception {
        ExecutorService pool =
                Executors.newSingleThreadExecutor(task -> new Thread(task, "plugins-1"));
        byte[] bytes = bytes();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        for (String name : new String[] {"listed", "local", "classes", "dropped", "hidden"}) {
            run(name, 1, bytes, pool);
        }
        System.out.println(Pid.own() + " ready");
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ");
            run(words[0], Integer.parseInt(words[1]), bytes, pool);
            System.out.println("done {\"sites\":[],\"untraced_frees\":0,\"losses\":0,\"others\":true}");
        }
        System.exit(0);
    }

    private static void run(String name, int count, byte[] bytes, ExecutorService pool)
            throws Exception {
        for (int i = 0; i < count; i++) {
            switch (name) {
                case "listed":
                    listed.add(new Listed(bytes).plugin());
                    break;
                case "local":
                    Object plugin = new Local(bytes).plugin();
                    pool.submit(() -> local.get().add(plugin)).get();
                    break;
                case "classes":
                    classes.add(new OfClass(bytes).plugin().getClass());
                    break;
                case "hidden":
                    hidden.add(hidden(bytes).getDeclaredConstructor().newInstance());
                    break;
                case "dropped":
                    new Dropped(bytes).plugin();
                    break;
                default:
                    throw new IllegalArgumentException(name);
            }
        }
    }

    /** JDK 15 has another way for it. */
    private static Class<?> hidden(byte[] bytes) throws ReflectiveOperationException {
        Class<?> lookup = MethodHandles.Lookup.class;
        for (Method method : lookup.getMethods()) {
            if (method.getName().equals("defineHiddenClass")) {
                Class<?> options = method.getParameterTypes()[2].getComponentType();
                Object none = Array.newInstance(options, 0);
                Object made = method.invoke(MethodHandles.lookup(), bytes, false, none);
                return ((MethodHandles.Lookup) made).lookupClass();
            }
        }
        Field field = Unsafe.class.getDeclaredField("theUnsafe");
        field.setAccessible(true);
        Method define =
                Unsafe.class.getMethod(
                        "defineAnonymousClass", Class.class, byte[].class, Object[].class);
        return (Class<?>) define.invoke(field.get(null), Loaders.class, bytes, null);
    }

    private static byte[] bytes() throws IOException {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        try (InputStream file = Loaders.class.getResourceAsStream("Loaders$Plugin.class")) {
            for (int next; (next = file.read()) >= 0; ) {
                bytes.write(next);
            }
        }
        return bytes.toByteArray();
    }
}
