import common.Pid;
import java.io.IOException;

/** Does nothing until its standard input ends, for `cargo xtask bench`. */
class Idle {
    public static void main(String[] arguments) throws IOException {
        System.out.println("pid " + Pid.own());
        System.out.println("ready");
        while (System.in.read() >= 0) {}
    }
}
