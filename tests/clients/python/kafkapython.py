"""kafka-python."""

import sys
import time

from common import Ends, Owned, main, records, say, show, told_to_leave
from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from kafka.errors import KafkaError


def write(bootstrap, topic, codec):
    producer = KafkaProducer(
        bootstrap_servers=bootstrap,
        compression_type=None if codec == "none" else codec,
        enable_idempotence=True,
        linger_ms=5,
    )
    sent = []
    for partition, timestamp, key, value, headers in records():
        sent.append(producer.send(topic, value, key, headers, partition, timestamp))
    producer.flush()
    for future in sent:
        future.get()
    producer.close()


def read(bootstrap, time, topics):
    consumer = KafkaConsumer(bootstrap_servers=bootstrap)
    partitions = [TopicPartition(topic, number) for topic in topics for number in consumer.partitions_for_topic(topic)]
    starts, final = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    if time is not None:
        found = consumer.offsets_for_times(dict.fromkeys(partitions, time))
        starts = {partition: found[partition].offset if found[partition] else final[partition] for partition in partitions}
    ends = Ends({partition: (starts[partition], final[partition]) for partition in partitions})
    consumer.assign(list(ends.ends))
    for partition in list(ends.ends):
        consumer.seek(partition, starts[partition])
    while ends.ends:
        for partition, batch in consumer.poll(1000).items():
            for record in batch:
                if ends.passed(partition, record.offset):
                    show(*partition, record.offset, record.timestamp, record.key, record.value, record.headers)
    consumer.close()


class Listener(ConsumerRebalanceListener):
    def __init__(self):
        self.owned = Owned()

    def on_partitions_assigned(self, assigned):
        self.owned.add(partition.partition for partition in assigned)

    def on_partitions_revoked(self, revoked):
        self.owned.remove(partition.partition for partition in revoked)


def group(bootstrap, topic, name):
    leave = told_to_leave()
    consumer = KafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=name,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe([topic], listener=Listener())
    while not leave.is_set():
        found = poll(consumer)
        for partition, batch in found.items():
            for record in batch:
                say("at", partition.partition, record.offset)
        if found:
            commit(consumer)
    consumer.close()


def poll(consumer):
    try:
        return consumer.poll(200)
    except KafkaError as error:
        # The caller tries again, here until the server is back.
        print(repr(error), file=sys.stderr)
        time.sleep(0.2)
        return {}


def commit(consumer):
    try:
        consumer.commit()
    except KafkaError as error:
        # A rebalance came first: whoever has the partition now reads them again.
        say("uncommitted", type(error).__name__)


def errors(bootstrap, unknown, small):
    # The bounds are to be the server's, not the client's.
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=10_000_000, max_block_ms=3000)
    for topic in unknown, small:
        try:
            producer.send(topic, bytes(200_000)).get(10)
            yield 0
        except KafkaError as error:
            yield getattr(error, "errno", None) or type(error).__name__
    producer.close()


main(write, read, group, errors)
