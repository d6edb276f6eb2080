import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import java.util.TreeMap;
import java.util.function.Consumer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.GlobalKTable;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.KTable;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.StateStore;

/**
 * The topologies, by the names of scenarios. Each reads `events` (and `users` or `others`) and writes `out`; keys are text, values JSON
 * objects. Where Kafka Streams leaves a choice to the program (what a condition says of a null, what a sum does with one) the choice is
 * Millstream's; where it leaves none, nothing is bent: host/docs/compared-with-kafka-streams.md tells the differences.
 */
final class Topologies {
    private static final Map<String, Consumer<StreamsBuilder>> ALL = new TreeMap<>();

    static {
        ALL.put("filter", Topologies::filter);
        ALL.put("count", Topologies::count);
        ALL.put("count-alone", Topologies::countAlone);
        ALL.put("windowed-count-alone", Topologies::windowedCountAlone);
        ALL.put("windowed-count", builder -> windowedCount(builder, tumbling()));
        ALL.put("windowed-count-with-tombstones", Topologies::windowedCountWithTombstones);
        ALL.put("hopping-count", builder -> windowedCount(builder, tumbling().advanceBy(Duration.ofSeconds(20))));
        ALL.put("session-count", Topologies::sessionCount);
        ALL.put("final-count", Topologies::finalCount);
        ALL.put("enrich-inner", builder -> enrich(builder, false));
        ALL.put("enrich-left", builder -> enrich(builder, true));
        ALL.put("stream-table-inner", builder -> streamTable(builder, false));
        ALL.put("stream-table-left", builder -> streamTable(builder, true));
        ALL.put("table-table-inner", builder -> tableTable(builder, false));
        ALL.put("table-table-left", builder -> tableTable(builder, true));
        ALL.put("stream-stream-inner", builder -> streamStream(builder, false));
        ALL.put("stream-stream-left", builder -> streamStream(builder, true));
    }

    private static final ObjectMapper JSON = new ObjectMapper();
    static final Serde<String> TEXT = Serdes.String();
    static final Serde<JsonNode> VALUE = Serdes.serdeFrom(
        (topic, value) -> value == null ? null : write(value),
        (topic, bytes) -> bytes == null ? null : read(bytes));

    private Topologies() {}

    static String names() {
        return String.join(", ", ALL.keySet());
    }

    /** Null if there is no such scenario. */
    static Topology of(String scenario, Properties properties) {
        Consumer<StreamsBuilder> build = ALL.get(scenario);
        if (build == null) {
            return null;
        }
        StreamsBuilder builder = new StreamsBuilder();
        build.accept(builder);
        return builder.build(properties);
    }

    /** What every run has in common: one output for each update, and a left join's lonely record as soon as it is certain to stay so. */
    static Properties properties(String scenario) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, "peer-" + scenario);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 0);
        // These two are looked at once a second of wall time otherwise, which no replay can repeat.
        properties.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_OUTER_JOIN_SPURIOUS_RESULTS_FIX, 0L);
        properties.put(StreamsConfig.InternalConfig.EMIT_INTERVAL_MS_KSTREAMS_WINDOWED_AGGREGATION, 0L);
        return properties;
    }

    static JsonNode read(byte[] bytes) {
        try {
            return JSON.readTree(bytes);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static byte[] write(JsonNode value) {
        try {
            return JSON.writeValueAsBytes(value);
        } catch (IOException error) {
            throw new UncheckedIOException(error);
        }
    }

    static ObjectNode object() {
        return JsonNodeFactory.instance.objectNode();
    }

    private static KStream<String, JsonNode> stream(StreamsBuilder builder, String topic) {
        return builder.stream(topic, Consumed.with(TEXT, VALUE));
    }

    /** The aggregation passes over tombstones by itself only where it has no windows. */
    private static KStream<String, JsonNode> withoutTombstones(StreamsBuilder builder) {
        return stream(builder, "events").filter((key, value) -> value != null);
    }

    private static void write(KStream<String, JsonNode> stream) {
        stream.to("out", Produced.with(TEXT, VALUE));
    }

    private static void filter(StreamsBuilder builder) {
        write(stream(builder, "events").filter((key, value) -> value == null || passes(value)));
    }

    private static boolean passes(JsonNode value) {
        return !"test".equals(value.path("channel").textValue()) && value.path("amount").isNumber() && value.path("amount").asLong() >= 50;
    }

    // Aggregates.

    private static JsonNode nothing() {
        return object().put("records", 0).putNull("amount");
    }

    private static JsonNode add(String key, JsonNode value, JsonNode sum) {
        ObjectNode next = sum.deepCopy();
        next.put("records", sum.get("records").asLong() + 1);
        if (value.path("amount").isNumber()) {
            next.put("amount", sum.get("amount").asLong() + value.get("amount").asLong());
        }
        return next;
    }

    private static JsonNode merge(String key, JsonNode one, JsonNode two) {
        ObjectNode both = object().put("records", one.get("records").asLong() + two.get("records").asLong());
        if (one.get("amount").isNull() && two.get("amount").isNull()) {
            return both.putNull("amount");
        }
        return both.put("amount", one.get("amount").asLong() + two.get("amount").asLong());
    }

    private static <S extends StateStore> Materialized<String, JsonNode, S> stored() {
        return Materialized.with(TEXT, VALUE);
    }

    private static void count(StreamsBuilder builder) {
        KTable<String, JsonNode> counts = stream(builder, "events").groupByKey().aggregate(Topologies::nothing, Topologies::add, stored());
        write(counts.toStream());
    }

    private static TimeWindows tumbling() {
        return TimeWindows.ofSizeAndGrace(Duration.ofMinutes(1), Duration.ofSeconds(10));
    }

    private static KTable<Windowed<String>, JsonNode> windowed(StreamsBuilder builder, TimeWindows windows) {
        return withoutTombstones(builder).groupByKey().windowedBy(windows).aggregate(Topologies::nothing, Topologies::add, stored());
    }

    private static void windowedCount(StreamsBuilder builder, TimeWindows windows) {
        writeWindowed(windowed(builder, windows));
    }

    /** As one would write it first: `count()` counts tombstones too, with windows. */
    private static void windowedCountWithTombstones(StreamsBuilder builder) {
        KTable<Windowed<String>, Long> counts = stream(builder, "events").groupByKey().windowedBy(tumbling()).count();
        writeWindowed(counts.mapValues(count -> (JsonNode) object().put("records", count)));
    }

    // Counts that look at no field, as lean as they can be written: values stay bytes, the state is a number. The fair control of a benchmark.

    private static KStream<String, byte[]> bytes(StreamsBuilder builder) {
        return builder.stream("events", Consumed.with(TEXT, Serdes.ByteArray()));
    }

    private static void countAlone(StreamsBuilder builder) {
        KTable<String, Long> counts = bytes(builder).groupByKey().count(Materialized.with(TEXT, Serdes.Long()));
        KStream<String, byte[]> results = counts.toStream().mapValues(count -> ascii("{\"records\":" + count + "}"));
        results.to("out", Produced.with(TEXT, Serdes.ByteArray()));
    }

    private static void windowedCountAlone(StreamsBuilder builder) {
        KStream<String, byte[]> events = bytes(builder).filter((key, value) -> value != null);
        KTable<Windowed<String>, Long> counts =
            events.groupByKey().windowedBy(tumbling()).count(Materialized.with(TEXT, Serdes.Long()));
        KStream<String, byte[]> results = counts.toStream().map((key, count) -> {
            String window = "{\"window_start\":" + key.window().start() + ",\"window_end\":" + key.window().end();
            return KeyValue.pair(key.key(), ascii(window + ",\"records\":" + count + "}"));
        });
        results.to("out", Produced.with(TEXT, Serdes.ByteArray()));
    }

    private static byte[] ascii(String text) {
        return text.getBytes(StandardCharsets.ISO_8859_1);
    }

    private static void sessionCount(StreamsBuilder builder) {
        SessionWindows windows = SessionWindows.ofInactivityGapAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(10));
        KStream<String, JsonNode> events = withoutTombstones(builder);
        writeWindowed(events.groupByKey().windowedBy(windows).aggregate(Topologies::nothing, Topologies::add, Topologies::merge, stored()));
    }

    private static void finalCount(StreamsBuilder builder) {
        writeWindowed(windowed(builder, tumbling()).suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded())));
    }

    /**
     * A window's result as Millstream writes it: the group's key, the window in the value. A null takes a session back that was merged
     * into a longer one; it says so, since the key alone does not name the session.
     */
    private static void writeWindowed(KTable<Windowed<String>, JsonNode> table) {
        write(table.toStream().map((key, value) -> {
            ObjectNode result = object().put("window_start", key.window().start()).put("window_end", key.window().end());
            if (value == null) {
                result.put("retracted", true);
            } else {
                result.setAll((ObjectNode) value);
            }
            return KeyValue.pair(key.key(), (JsonNode) result);
        }));
    }

    // Joins.

    /** The event with the user's level; null where there is no user. */
    private static JsonNode withLevel(JsonNode event, JsonNode user) {
        ObjectNode joined = event.deepCopy();
        joined.set("level", user == null ? JsonNodeFactory.instance.nullNode() : user.path("level").deepCopy());
        return joined.get("level").isMissingNode() ? joined.putNull("level") : joined;
    }

    private static JsonNode idAndLevel(JsonNode event, JsonNode user) {
        ObjectNode joined = object();
        joined.set("id", event.get("id"));
        JsonNode level = user == null ? null : user.get("level");
        joined.set("level", level == null ? JsonNodeFactory.instance.nullNode() : level);
        return joined;
    }

    private static JsonNode both(JsonNode one, JsonNode two) {
        ObjectNode joined = object();
        joined.set("id", one.get("id"));
        joined.set("other", two == null ? JsonNodeFactory.instance.nullNode() : two.get("id"));
        return joined;
    }

    private static void enrich(StreamsBuilder builder, boolean left) {
        GlobalKTable<String, JsonNode> users = builder.globalTable("users", Consumed.with(TEXT, VALUE));
        KStream<String, JsonNode> events = stream(builder, "events");
        write(left
            ? events.leftJoin(users, Topologies::user, Topologies::withLevel)
            : events.join(users, Topologies::user, Topologies::withLevel));
    }

    private static String user(String key, JsonNode event) {
        return event == null ? null : event.path("user").textValue();
    }

    private static void streamTable(StreamsBuilder builder, boolean left) {
        KTable<String, JsonNode> users = builder.table("users", Consumed.with(TEXT, VALUE), stored());
        KStream<String, JsonNode> events = stream(builder, "events");
        write(left ? events.leftJoin(users, Topologies::withLevel) : events.join(users, Topologies::withLevel));
    }

    private static void tableTable(StreamsBuilder builder, boolean left) {
        KTable<String, JsonNode> events = builder.table("events", Consumed.with(TEXT, VALUE), stored());
        KTable<String, JsonNode> users = builder.table("users", Consumed.with(TEXT, VALUE), stored());
        write((left ? events.leftJoin(users, Topologies::idAndLevel) : events.join(users, Topologies::idAndLevel)).toStream());
    }

    private static void streamStream(StreamsBuilder builder, boolean left) {
        JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(Duration.ofSeconds(5), Duration.ofSeconds(10));
        StreamJoined<String, JsonNode, JsonNode> stored = StreamJoined.with(TEXT, VALUE, VALUE);
        KStream<String, JsonNode> events = stream(builder, "events");
        KStream<String, JsonNode> others = stream(builder, "others");
        write(left ? events.leftJoin(others, Topologies::both, windows, stored) : events.join(others, Topologies::both, windows, stored));
    }
}
