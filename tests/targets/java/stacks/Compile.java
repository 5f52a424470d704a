package stacks;

import java.net.URI;
import java.util.Arrays;
import java.util.List;
import java.util.zip.Deflater;
import javax.tools.JavaCompiler;
import javax.tools.JavaFileObject;
import javax.tools.SimpleJavaFileObject;
import javax.tools.ToolProvider;

/** {@code compile FOLDER N}: has javac compile N times, and tells how often it read a source. */
public class Compile {
    private static final int METHODS = 12;

    private static int read;

    public static void main(String[] arguments) throws Exception {
        Commands.serve(words -> compile(words[1], Integer.parseInt(words[2])));
    }

    private static int compile(String folder, int times) {
        int before = read;
        JavaCompiler compiler = ToolProvider.getSystemJavaCompiler();
        for (int i = 0; i < times; i++) {
            List<String> options = Arrays.asList("-d", folder);
            if (!compiler.getTask(null, null, null, options, null, Arrays.asList(new Source())).call()) {
                throw new IllegalStateException("javac failed");
            }
        }
        return read - before;
    }

    private static final class Source extends SimpleJavaFileObject {
        Source() {
            super(URI.create("string:///Made.java"), JavaFileObject.Kind.SOURCE);
        }

        @Override
        public CharSequence getCharContent(boolean ignoreEncodingErrors) {
            new Deflater().end();
            read++;
            StringBuilder text = new StringBuilder("import java.util.*; class Made {");
            for (int i = 0; i < METHODS; i++) {
                text.append("interface F").append(i).append("<T extends Comparable<T>> { T f(T t); }");
                text.append("<T extends Comparable<T>> Object m").append(i);
                text.append("(List<T> l, F").append(i).append("<T> f) {");
                text.append("return l.stream().map(x -> f.f(x)).sorted().toArray(); }");
            }
            return text.append("}").toString();
        }
    }
}
