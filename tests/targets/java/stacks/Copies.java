package stacks;

import common.Bytes;
import java.io.IOException;
import java.io.InputStream;

/** Loads classes of its own from the files of those whose names begin so. */
final class Copies extends ClassLoader {
    private final String prefix;

    Copies(String prefix) {
        super(Copies.class.getClassLoader());
        this.prefix = prefix;
    }

    @Override
    protected Class<?> loadClass(String name, boolean resolve) throws ClassNotFoundException {
        if (!name.startsWith(prefix)) {
            return super.loadClass(name, resolve);
        }
        synchronized (getClassLoadingLock(name)) {
            Class<?> loaded = findLoadedClass(name);
            return loaded != null ? loaded : copy(name);
        }
    }

    private Class<?> copy(String name) throws ClassNotFoundException {
        String file = name.replace('.', '/') + ".class";
        try (InputStream input = getParent().getResourceAsStream(file)) {
            byte[] bytes = Bytes.all(input);
            return defineClass(name, bytes, 0, bytes.length);
        } catch (IOException problem) {
            throw new ClassNotFoundException(name, problem);
        }
    }
}
