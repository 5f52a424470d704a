package stacks;

import common.Pid;
import java.io.BufferedReader;
import java.io.InputStreamReader;

/** Does what standard input says, a line at a time. */
public final class Commands {
    public interface Command {
        /** Returns what is printed behind {@code done}. */
        Object run(String[] words) throws Exception;
    }

    private Commands() {}

    public static void serve(Command command) throws Exception {
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in));
        System.out.println(Pid.own() + " ready");
        for (String line; (line = input.readLine()) != null; ) {
            System.out.println("done " + command.run(line.split(" ")));
        }
    }
}
