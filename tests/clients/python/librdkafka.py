"""confluent-kafka, over librdkafka."""

from common import Ends, Owned, main, records, say, show, told_to_leave
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

failed = []


def delivered(error, _message):
    if error is not None:
        failed.append(error)


def write(bootstrap, topic, codec):
    producer = Producer({
        "bootstrap.servers": bootstrap,
        "compression.type": codec,
        "enable.idempotence": True,
        "linger.ms": 5,
    })
    for partition, timestamp, key, value, headers in records():
        producer.produce(topic, value, key, partition, on_delivery=delivered, timestamp=timestamp, headers=headers)
        producer.poll(0)
    assert producer.flush() == 0
    if failed:
        raise KafkaException(failed[0])


def read(bootstrap, time, topics):
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "nobody", "enable.auto.commit": False})
    ranges = {}
    for topic in topics:
        for partition in consumer.list_topics(topic).topics[topic].partitions:
            start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition))
            if time is not None:
                found = consumer.offsets_for_times([TopicPartition(topic, partition, time)])[0].offset
                start = end if found < 0 else found
            ranges[topic, partition] = start, end
    ends = Ends(ranges)
    consumer.assign([TopicPartition(*partition, ranges[partition][0]) for partition in ends.ends])
    while ends.ends:
        for message in consumer.consume(1000, 1):
            if message.error():
                raise KafkaException(message.error())
            topic, partition, offset = message.topic(), message.partition(), message.offset()
            if ends.passed((topic, partition), offset):
                timestamp = message.timestamp()[1]
                show(topic, partition, offset, timestamp, message.key(), message.value(), message.headers())
    consumer.close()


def group(bootstrap, topic, name, is_assigned=False):
    leave, owned = told_to_leave(), Owned()
    by_members = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 6000,
        "heartbeat.interval.ms": 500,
    }
    consumer = Consumer({
        "bootstrap.servers": bootstrap,
        "group.id": name,
        **({"group.protocol": "consumer"} if is_assigned else by_members),
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    })
    numbers = lambda partitions: [partition.partition for partition in partitions]
    consumer.subscribe(
        [topic],
        on_assign=lambda _, partitions: owned.add(numbers(partitions)),
        on_revoke=lambda _, partitions: owned.remove(numbers(partitions)),
        on_lost=lambda _, partitions: owned.remove(numbers(partitions)),
    )
    while not leave.is_set():
        messages = [message for message in consumer.consume(1000, 0.2) if not message.error()]
        for message in messages:
            say("at", message.partition(), message.offset())
        if messages:
            commit(consumer)
    consumer.close()


def commit(consumer):
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        # A rebalance came first: whoever has the partition now reads them again.
        say("uncommitted", error.args[0].name())


def errors(bootstrap, unknown, small):
    producer = Producer({
        "bootstrap.servers": bootstrap,
        # The bound is to be the server's, not the client's.
        "message.max.bytes": 10_000_000,
        # For so long a topic that is not in metadata may be one that was just created.
        "topic.metadata.propagation.max.ms": 1000,
    })
    for topic in unknown, small:
        seen = []
        producer.produce(topic, bytes(200_000), on_delivery=lambda error, _: seen.append(error))
        producer.flush()
        # librdkafka has a number of its own for a topic that it did not find in metadata.
        yield {"_UNKNOWN_TOPIC": 3}.get(seen[0].name(), seen[0].code())


main(write, read, group, errors)
