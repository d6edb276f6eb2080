import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.stream.Stream;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TestOutputTopic;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers;
import org.apache.kafka.streams.test.TestRecord;

/**
 * Runs recorded records through a topology of Kafka Streams, without a broker: `java -cp CLASSES:JARS Peer SCENARIO INPUT`.
 *
 * INPUT has a record a line, as `millstream produce` reads them, each with `topic`, `key`, `value`, `timestamp`. They go in one by one in
 * this order, whatever their topics. What comes out is printed in the same form, in the order in which it came.
 */
final class Peer {
    private Peer() {}

    public static void main(String[] arguments) throws IOException {
        if (arguments.length != 2) {
            throw new IllegalArgumentException("usage: Peer SCENARIO INPUT, with a scenario of " + Topologies.names());
        }
        Path folder = Files.createTempDirectory("millstream-peer-");
        try {
            run(arguments[0], Path.of(arguments[1]), folder);
        } finally {
            remove(folder);
        }
    }

    private static void run(String scenario, Path input, Path folder) throws IOException {
        Properties properties = Topologies.properties(scenario);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, folder.toString());
        // The driver commits after each record, and RocksDB then writes a file each time: half a minute for a thousand records.
        properties.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers.class);
        Topology topology = Topologies.of(scenario, properties);
        if (topology == null) {
            throw new IllegalArgumentException("no scenario `" + scenario + "`, only " + Topologies.names());
        }
        List<String> lines = Files.readAllLines(input);
        PrintStream out = new PrintStream(new BufferedOutputStream(System.out), false, StandardCharsets.UTF_8);
        try (TopologyTestDriver driver = new TopologyTestDriver(topology, properties, Instant.EPOCH)) {
            Map<String, TestInputTopic<String, JsonNode>> topics = new HashMap<>();
            TestOutputTopic<String, JsonNode> output =
                driver.createOutputTopic("out", Topologies.TEXT.deserializer(), Topologies.VALUE.deserializer());
            for (String line : lines) {
                JsonNode record = Topologies.read(line.getBytes(StandardCharsets.UTF_8));
                topics
                    .computeIfAbsent(record.get("topic").textValue(), topic ->
                        driver.createInputTopic(topic, Topologies.TEXT.serializer(), Topologies.VALUE.serializer()))
                    .pipeInput(record.path("key").textValue(), value(record), record.get("timestamp").longValue());
                for (TestRecord<String, JsonNode> result : output.readRecordsToList()) {
                    ObjectNode printed = Topologies.object().put("topic", "out").put("key", result.key());
                    printed.set("value", result.value());
                    printed.put("timestamp", result.timestamp());
                    out.println(new String(Topologies.write(printed), StandardCharsets.UTF_8));
                }
            }
        }
        out.flush();
    }

    /** Null for a tombstone. */
    private static JsonNode value(JsonNode record) {
        JsonNode value = record.get("value");
        return value == null || value.isNull() ? null : value;
    }

    static void remove(Path folder) throws IOException {
        try (Stream<Path> paths = Files.walk(folder)) {
            for (Path path : paths.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        }
    }
}
