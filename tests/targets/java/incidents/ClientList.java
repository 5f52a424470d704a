package incidents;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Clients of references that could not be made.
 *
 * <p>When one of a hundred hosts restarts, the registry notifies its subscribers of all hundred
 * addresses. For each that has no invoker yet, one is built: first the client, which goes into a list
 * so that it can be closed at the end, then the proxy, which fails. So the address still has no
 * invoker the next time, and gets another client.
 *
 * <p>The twin closes the client, and takes it off the list, when its invoker cannot be built.
 */
final class ClientList implements Rounds.Work {
    private static final int HOSTS = 100;

    private final boolean healthy;
    private final List<String> addresses = new ArrayList<>();
    private final Map<String, Invoker> invokers = new HashMap<>();
    /** To be closed at the end. */
    private final List<RestClient> clients = new ArrayList<>();
    private long failures;

    private ClientList(boolean healthy) {
        this.healthy = healthy;
        for (int host = 0; host < HOSTS; host++) {
            addresses.add("rest://10.0.0." + host + ":8080/orders");
        }
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new ClientList(Rounds.isHealthy(arguments)), arguments);
    }

    /** One host restarts. */
    @Override
    public void round() {
        notifyChanged(addresses);
    }

    @Override
    public String truth() {
        return Rounds.truth(clients.size()) + " failures=" + failures;
    }

    private void notifyChanged(List<String> all) {
        toInvokers(all);
    }

    private void toInvokers(List<String> all) {
        for (String address : all) {
            if (invokers.containsKey(address)) {
                continue;
            }
            try {
                invokers.put(address, refer(address));
            } catch (IllegalStateException failure) {
                failures++; // logged as a warning, and tried again at the next notification
            }
        }
    }

    private Invoker refer(String address) {
        RestClient client = newClient(address);
        clients.add(client);
        if (!healthy) {
            return new Invoker(client);
        }
        try {
            return new Invoker(client);
        } catch (IllegalStateException failure) {
            clients.remove(client);
            throw failure;
        }
    }

    private RestClient newClient(String address) {
        return new RestClient(address);
    }

    /** Calls one host. Times are in milliseconds. */
    private static final class RestClient {
        final String address;
        long connectTimeout = 1_000;
        long readTimeout = 5_000;
        long idleTimeout = 60_000;
        long timeToLive = 600_000;
        long poolTimeout = 500;
        long firstRetry = 100;
        long lastRetry = 10_000;
        int connections = 20;
        int retries = 3;
        int redirects = 5;
        boolean followsRedirects = true;

        RestClient(String address) {
            this.address = address;
        }
    }

    /** The proxy that callers see. */
    private static final class Invoker {
        final RestClient client;

        Invoker(RestClient client) {
            this.client = client;
            throw new IllegalStateException("no REST annotation on the service of " + client.address);
        }
    }
}
