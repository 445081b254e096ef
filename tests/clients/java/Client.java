import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.zip.CRC32;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Kafka's own client. ../README.md says what the commands mean. */
public final class Client {
    private static final PrintStream OUT = new PrintStream(System.out, false, StandardCharsets.UTF_8);

    /** How a group is coordinated whose members assign. */
    private static final Map<String, Object> BY_MEMBERS = Map.of(
        "partition.assignment.strategy", CooperativeStickyAssignor.class.getName(),
        "session.timeout.ms", 6000,
        "heartbeat.interval.ms", 500);

    private Client() {}

    public static void main(String[] arguments) throws Exception {
        String bootstrap = arguments[1];
        List<String> rest = List.of(arguments).subList(2, arguments.length);
        switch (arguments[0]) {
            case "write" -> write(bootstrap, rest.get(0), rest.get(1));
            case "read" -> read(bootstrap, rest.get(0), rest.subList(1, rest.size()));
            case "group" -> group(bootstrap, rest.get(0), rest.get(1), BY_MEMBERS);
            case "assigned" -> group(bootstrap, rest.get(0), rest.get(1), Map.of("group.protocol", "consumer"));
            case "errors" -> {
                say("unknown " + refusal(bootstrap, rest.get(0)));
                say("large " + refusal(bootstrap, rest.get(1)));
            }
            default -> throw new IllegalArgumentException(arguments[0]);
        }
        OUT.flush();
    }

    private static KafkaProducer<byte[], byte[]> producer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        return new KafkaProducer<>(settings, new ByteArraySerializer(), new ByteArraySerializer());
    }

    private static KafkaConsumer<byte[], byte[]> consumer(String bootstrap, Map<String, Object> more) {
        Map<String, Object> settings = new HashMap<>(more);
        settings.put("bootstrap.servers", bootstrap);
        settings.put("enable.auto.commit", false);
        return new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void write(String bootstrap, String topic, String codec) throws Exception {
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        try (var producer = producer(bootstrap, Map.of("compression.type", codec));
                var input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line = input.readLine(); line != null; line = input.readLine()) {
                sent.add(producer.send(parse(topic, line)));
            }
        }
        for (var one : sent) {
            one.get();
        }
    }

    private static ProducerRecord<byte[], byte[]> parse(String topic, String line) {
        String[] fields = line.split(" ");
        List<Header> headers = new ArrayList<>();
        for (int field = 4; field < fields.length; field++) {
            String[] pair = fields[field].split("=");
            headers.add(new RecordHeader(pair[0], decode(pair[1])));
        }
        int partition = Integer.parseInt(fields[0]);
        long timestamp = Long.parseLong(fields[1]);
        return new ProducerRecord<>(topic, partition, timestamp, decode(fields[2]), decode(fields[3]), headers);
    }

    private static void read(String bootstrap, String time, List<String> topics) {
        try (var consumer = consumer(bootstrap, Map.of())) {
            List<TopicPartition> partitions = new ArrayList<>();
            for (String topic : topics) {
                consumer.partitionsFor(topic).forEach(it -> partitions.add(new TopicPartition(topic, it.partition())));
            }
            Map<TopicPartition, Long> ends = consumer.endOffsets(partitions);
            Map<TopicPartition, Long> starts = new HashMap<>(consumer.beginningOffsets(partitions));
            if (!time.equals("beginning")) {
                Map<TopicPartition, Long> asked = new HashMap<>();
                partitions.forEach(partition -> asked.put(partition, Long.parseLong(time)));
                consumer.offsetsForTimes(asked).forEach((partition, found) ->
                        starts.put(partition, found == null ? ends.get(partition) : found.offset()));
            }
            partitions.removeIf(partition -> starts.get(partition) >= ends.get(partition));
            consumer.assign(partitions);
            partitions.forEach(partition -> consumer.seek(partition, starts.get(partition)));
            while (!partitions.isEmpty()) {
                for (var record : consumer.poll(Duration.ofSeconds(1))) {
                    var partition = new TopicPartition(record.topic(), record.partition());
                    if (record.offset() < ends.get(partition)) {
                        show(record);
                    }
                    if (record.offset() + 1 >= ends.get(partition)) {
                        partitions.remove(partition);
                    }
                }
            }
        }
    }

    private static void group(String bootstrap, String topic, String name, Map<String, Object> protocol) {
        var settings = new HashMap<>(protocol);
        settings.put("group.id", name);
        settings.put("auto.offset.reset", "earliest");
        try (var consumer = consumer(bootstrap, settings)) {
            consumer.subscribe(List.of(topic), new Owned());
            Thread input = inputEnds();
            while (input.isAlive()) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofMillis(200));
                records.forEach(record -> say("at " + record.partition() + " " + record.offset()));
                commit(consumer);
            }
        }
    }

    /** A thread that ends with standard input. */
    private static Thread inputEnds() {
        Thread thread = new Thread(() -> {
            try {
                System.in.transferTo(OutputStream.nullOutputStream());
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        });
        thread.setDaemon(true);
        thread.start();
        return thread;
    }

    private static void commit(KafkaConsumer<byte[], byte[]> consumer) {
        try {
            consumer.commitSync();
        } catch (KafkaException error) {
            // A rebalance came first: whoever has the partition now reads them again.
            say("uncommitted " + error);
        }
    }

    /** The partitions of a member of a group: says what it has whenever that changes. */
    private static final class Owned implements ConsumerRebalanceListener {
        private final TreeSet<Integer> partitions = new TreeSet<>();

        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> added) {
            added.forEach(partition -> partitions.add(partition.partition()));
            tell();
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> removed) {
            removed.forEach(partition -> partitions.remove(partition.partition()));
            tell();
        }

        private void tell() {
            say("assigned " + String.join(" ", partitions.stream().map(String::valueOf).toList()));
        }
    }

    /** Sends 200 kB and says by which number that was refused. */
    private static int refusal(String bootstrap, String topic) throws InterruptedException {
        // The bound is to be the server's, not the client's.
        var settings = Map.<String, Object>of("max.request.size", 10_000_000, "max.block.ms", 3000);
        try (var producer = producer(bootstrap, settings)) {
            producer.send(new ProducerRecord<>(topic, new byte[200_000])).get();
            return 0;
        } catch (ExecutionException error) {
            // What says that time is up has for a cause what it was waiting for.
            Throwable cause = error.getCause().getCause() == null ? error.getCause() : error.getCause().getCause();
            return Errors.forException(cause).code();
        }
    }

    private static void say(String line) {
        OUT.println(line);
        OUT.flush();
    }

    private static void show(ConsumerRecord<byte[], byte[]> record) {
        var line = new StringBuilder(record.topic());
        line.append(' ').append(record.partition()).append(' ').append(record.offset());
        line.append(' ').append(record.timestamp());
        line.append(' ').append(digest(record.key())).append(' ').append(digest(record.value()));
        for (Header header : record.headers()) {
            line.append(' ').append(header.key()).append('=').append(digest(header.value()));
        }
        OUT.println(line);
    }

    private static byte[] decode(String field) {
        return field.equals("-") ? null : HexFormat.of().parseHex(field.substring(1));
    }

    private static String digest(byte[] data) {
        if (data == null) {
            return "-";
        }
        var sum = new CRC32();
        sum.update(data);
        return data.length + ":" + HexFormat.of().toHexDigits((int) sum.getValue());
    }
}
