package incidents.agent;

/** A class whose file is large, which makes the leak plain. */
public final class Interceptor implements Interception {
    private static final String NAME = "instrumentation of an application's methods, by class and name; ";
    private static final String LINE = NAME + NAME + NAME + NAME + NAME + NAME + NAME;
    private static final String PAGE = LINE + LINE + LINE + LINE + LINE + LINE + LINE;
    /** A constant, which the compiler writes out. */
    static final String RULES = PAGE + PAGE + PAGE + PAGE + PAGE;

    @Override
    public void intercept() {
        RULES.length();
    }
}
