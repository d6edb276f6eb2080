import com.fasterxml.jackson.databind.node.ObjectNode;
import com.sun.management.OperatingSystemMXBean;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.SplittableRandom;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;

/**
 * Kafka Streams on real brokers as the control of a benchmark: exactly-once v2, a commit every 100 ms, one thread, RocksDB.
 *
 * `Bench fill BROKERS PARTITIONS RECORDS` makes the topics `events`, `users`, `others` and `out` and fills `events`. It is a process of
 * its own, so that its work is not in what is measured.
 *
 * `Bench run BROKERS SCENARIO WARM_UP [CACHE_BYTES]` runs a topology from the beginning to the end of `events` and prints one line of
 * JSON: the CPU seconds of this process for each million records behind the first WARM_UP ones, and the rate. The cache is off unless its
 * size is given.
 */
final class Bench {
    private static final int KEYS = 20_000;
    private static final long START = 1_700_000_000_000L;
    private static final Duration LONGEST = Duration.ofMinutes(30);

    private Bench() {}

    public static void main(String[] arguments) throws Exception {
        if (arguments.length == 4 && arguments[0].equals("fill")) {
            fill(arguments[1], Integer.parseInt(arguments[2]), Long.parseLong(arguments[3]));
        } else if ((arguments.length == 4 || arguments.length == 5) && arguments[0].equals("run")) {
            long cache = arguments.length == 5 ? Long.parseLong(arguments[4]) : 0;
            System.out.println(run(arguments[1], arguments[2], Long.parseLong(arguments[3]), cache));
        } else {
            throw new IllegalArgumentException(
                "usage: Bench fill BROKERS PARTITIONS RECORDS | Bench run BROKERS SCENARIO WARM_UP [CACHE_BYTES]");
        }
    }

    // Input.

    private static void fill(String brokers, int partitions, long records) throws ExecutionException, InterruptedException {
        try (Admin admin = admin(brokers)) {
            List<NewTopic> topics = new ArrayList<>();
            for (String topic : List.of("events", "users", "others", "out")) {
                // The times are of long ago: by default a broker would soon delete the records.
                topics.add(new NewTopic(topic, partitions, (short) 1).configs(Map.of("retention.ms", "-1")));
            }
            admin.createTopics(topics).all().get();
        }
        Properties properties = new Properties();
        properties.put(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        properties.put(ProducerConfig.COMPRESSION_TYPE_CONFIG, "lz4");
        properties.put(ProducerConfig.LINGER_MS_CONFIG, 20);
        SplittableRandom random = new SplittableRandom(1);
        ByteArraySerializer bytes = new ByteArraySerializer();
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties, bytes, bytes)) {
            for (long id = 0; id < records; id++) {
                ObjectNode event = Topologies.object().put("id", id).put("amount", random.nextInt(1000)).put("channel", "web");
                event.put("user", "u" + random.nextInt(KEYS));
                event.put("note", "a text that nobody reads, so that the record is of ordinary size");
                byte[] key = ("k" + random.nextInt(KEYS)).getBytes(StandardCharsets.UTF_8);
                // A thousand records a second; some are late within the grace.
                long timestamp = START + id - (random.nextInt(50) == 0 ? random.nextInt(5000) : 0);
                producer.send(new ProducerRecord<>("events", null, timestamp, key, Topologies.write(event)));
            }
        }
    }

    // Run.

    private static ObjectNode run(String brokers, String scenario, long warmUp, long cache) throws Exception {
        Path folder = Files.createTempDirectory("millstream-bench-");
        Properties properties = Topologies.properties(scenario);
        String application = properties.get(StreamsConfig.APPLICATION_ID_CONFIG) + "-" + System.currentTimeMillis();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, application);
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, brokers);
        properties.put(StreamsConfig.STATE_DIR_CONFIG, folder.toString());
        properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        properties.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, 100);
        properties.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1);
        properties.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, cache);
        properties.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        properties.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        Topology topology = Topologies.of(scenario, properties);
        if (topology == null) {
            throw new IllegalArgumentException("no scenario `" + scenario + "`, only " + Topologies.names());
        }
        CountDownLatch stopped = new CountDownLatch(1);
        try (Admin admin = admin(brokers); KafkaStreams streams = new KafkaStreams(topology, properties)) {
            Map<TopicPartition, Long> ends = ends(admin);
            streams.setStateListener((now, before) -> {
                if (now == KafkaStreams.State.ERROR) {
                    stopped.countDown();
                }
            });
            streams.start();
            Reached warm = reach(admin, application, ends, Math.max(1, warmUp), stopped);
            Reached end = reach(admin, application, ends, ends.values().stream().mapToLong(Long::longValue).sum(), stopped);
            double millions = (end.records - warm.records) / 1e6;
            double seconds = (end.wall - warm.wall) / 1e9;
            return Topologies.object()
                .put("scenario", scenario)
                .put("cache_bytes", cache)
                .put("records", end.records - warm.records)
                .put("cpu_seconds_per_million", (end.cpu - warm.cpu) / 1e9 / millions)
                .put("records_per_second", millions * 1e6 / seconds)
                .put("resident_mib", resident());
        } finally {
            Peer.remove(folder);
        }
    }

    /** What the group had committed, and what it had cost. */
    private record Reached(long records, long cpu, long wall) {}

    /** Waits until so many records are committed. */
    private static Reached reach(Admin admin, String group, Map<TopicPartition, Long> ends, long records, CountDownLatch stopped)
        throws Exception {
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        long deadline = System.nanoTime() + LONGEST.toNanos();
        while (true) {
            Map<TopicPartition, OffsetAndMetadata> committed = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
            long done = 0;
            boolean all = true;
            for (Map.Entry<TopicPartition, Long> end : ends.entrySet()) {
                OffsetAndMetadata at = committed.get(end.getKey());
                long offset = at == null ? 0 : Math.min(at.offset(), end.getValue());
                done += offset;
                all &= offset == end.getValue();
            }
            if (done >= records || all) {
                return new Reached(done, system.getProcessCpuTime(), System.nanoTime());
            }
            if (stopped.await(20, TimeUnit.MILLISECONDS)) {
                throw new IllegalStateException("Kafka Streams stopped after " + done + " records: see its log");
            }
            if (System.nanoTime() > deadline) {
                throw new IllegalStateException("only " + done + " of " + records + " records within " + LONGEST);
            }
        }
    }

    private static Map<TopicPartition, Long> ends(Admin admin) throws ExecutionException, InterruptedException {
        int partitions = admin.describeTopics(List.of("events")).allTopicNames().get().get("events").partitions().size();
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        for (int partition = 0; partition < partitions; partition++) {
            asked.put(new TopicPartition("events", partition), OffsetSpec.latest());
        }
        Map<TopicPartition, Long> ends = new HashMap<>();
        for (Map.Entry<TopicPartition, ListOffsetsResultInfo> end : admin.listOffsets(asked).all().get().entrySet()) {
            ends.put(end.getKey(), end.getValue().offset());
        }
        return ends;
    }

    private static Admin admin(String brokers) {
        return Admin.create(Map.of("bootstrap.servers", brokers));
    }

    /** MiB of this process in memory, as Linux tells; -1 elsewhere. */
    private static long resident() throws IOException {
        Path status = Path.of("/proc/self/status");
        if (!Files.exists(status)) {
            return -1;
        }
        for (String line : Files.readAllLines(status)) {
            if (line.startsWith("VmRSS:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
            }
        }
        return -1;
    }
}
