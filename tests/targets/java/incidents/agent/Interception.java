package incidents.agent;

/** What an agent's jar should have in it, since {@link Interceptor} implements it. */
public interface Interception {
    void intercept();
}
