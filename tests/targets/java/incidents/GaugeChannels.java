package incidents;

import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.IntSupplier;
import javax.management.MBeanServer;
import javax.management.ObjectName;

/**
 * Channels that gauges hold.
 *
 * <p>When its back end restarts, a gateway connects again, over two new channels. For each channel it
 * registers a gauge, a lambda, in a global registry and with JMX; and each session notes the channel
 * that it uses. Nobody removes these when a channel is closed. Few objects leak, but each has a
 * direct buffer, as network channels have.
 *
 * <p>The twin removes what holds a channel when it closes it.
 */
final class GaugeChannels implements Rounds.Work {
    private static final int BUFFER = 16411;

    private static final Map<String, Gauge> REGISTRY = new HashMap<>();
    private static final MBeanServer REPORTER = ManagementFactory.getPlatformMBeanServer();

    private final boolean healthy;
    private final Map<String, Channel> channelOfSession = new HashMap<>();
    private final List<Channel> connected = new ArrayList<>();
    private int made;

    private GaugeChannels(boolean healthy) {
        this.healthy = healthy;
    }

    public static void main(String[] arguments) throws Exception {
        Rounds.drive(new GaugeChannels(Rounds.isHealthy(arguments)), arguments);
    }

    /** The back end restarts. */
    @Override
    public void round() throws Exception {
        restart();
    }

    /** Two channels are in use, and so no leak. */
    @Override
    public String truth() {
        return Rounds.truth(REGISTRY.size() - connected.size(), BUFFER);
    }

    private void restart() throws Exception {
        for (Channel channel : connected) {
            close(channel);
        }
        connected.clear();
        connect();
    }

    private void connect() throws Exception {
        for (String direction : new String[] {"requests", "answers"}) {
            Channel channel = newChannel(direction + "-" + made++);
            connected.add(channel);
            channelOfSession.put("session of " + channel.name, channel);
            register(channel.name, channel.buffer::remaining);
        }
    }

    private Channel newChannel(String name) {
        return new Channel(name);
    }

    private static void register(String name, IntSupplier value) throws Exception {
        Gauge gauge = new Gauge(value);
        REGISTRY.put(name, gauge);
        REPORTER.registerMBean(gauge, nameOf(name));
    }

    private void close(Channel channel) throws Exception {
        channel.isOpen = false;
        if (healthy) {
            channelOfSession.remove("session of " + channel.name);
            REGISTRY.remove(channel.name);
            REPORTER.unregisterMBean(nameOf(channel.name));
        }
    }

    private static ObjectName nameOf(String gauge) throws Exception {
        return new ObjectName("gateway:type=gauge,name=" + gauge);
    }

    /** A connection to the back end. */
    private static final class Channel {
        final String name;
        final ByteBuffer buffer = ByteBuffer.allocateDirect(BUFFER);
        boolean isOpen = true;

        Channel(String name) {
            this.name = name;
        }
    }

    /** What JMX shows of a gauge. */
    public interface GaugeMXBean {
        int getValue();
    }

    private static final class Gauge implements GaugeMXBean {
        private final IntSupplier value;

        Gauge(IntSupplier value) {
            this.value = value;
        }

        @Override
        public int getValue() {
            return value.getAsInt();
        }
    }
}
