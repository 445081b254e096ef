"""aiokafka."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor
from aiokafka.errors import KafkaError
from common import Ends, Owned, main, records, say, show, told_to_leave


async def write(bootstrap, topic, codec):
    codec = None if codec == "none" else codec
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, compression_type=codec, enable_idempotence=True, linger_ms=5
    ) as producer:
        sent, lines = [], records()
        # Standard input is read beside the loop, which has acknowledgements to take.
        while record := await asyncio.to_thread(next, lines, None):
            partition, timestamp, key, value, headers = record
            sent.append(await producer.send(topic, value, key, partition, timestamp, headers))
        await asyncio.gather(*sent)


async def read(bootstrap, time, topics):
    async with AIOKafkaConsumer(bootstrap_servers=bootstrap, fetch_max_wait_ms=50) as consumer:
        partitions = []
        for topic in topics:
            # Metadata is fetched for topics that were asked for once.
            consumer.assign([TopicPartition(topic, 0)])
            await consumer._client.force_metadata_update()
            partitions += [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
        starts, final = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        if time is not None:
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, time))
            starts = {tp: found[tp].offset if found[tp] else final[tp] for tp in partitions}
        ends = Ends({partition: (starts[partition], final[partition]) for partition in partitions})
        if not ends.ends:
            return
        consumer.assign(list(ends.ends))
        for partition in list(ends.ends):
            consumer.seek(partition, starts[partition])
        while ends.ends:
            for partition, batch in (await consumer.getmany(timeout_ms=1000)).items():
                for record in batch:
                    if ends.passed(partition, record.offset):
                        show(*partition, record.offset, record.timestamp, record.key, record.value, record.headers)


class Listener(ConsumerRebalanceListener):
    def __init__(self):
        self.owned = Owned()

    def on_partitions_assigned(self, assigned):
        self.owned.add(partition.partition for partition in assigned)

    def on_partitions_revoked(self, revoked):
        self.owned.remove(partition.partition for partition in revoked)


async def group(bootstrap, topic, name):
    leave = told_to_leave()
    consumer = AIOKafkaConsumer(
        bootstrap_servers=bootstrap,
        group_id=name,
        partition_assignment_strategy=[RoundRobinPartitionAssignor],
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    consumer.subscribe([topic], listener=Listener())
    async with consumer:
        while not leave.is_set():
            found = await consumer.getmany(timeout_ms=200)
            for partition, batch in found.items():
                for record in batch:
                    say("at", partition.partition, record.offset)
            if found:
                await commit(consumer)


async def commit(consumer):
    try:
        await consumer.commit()
    except KafkaError as error:
        # A rebalance came first: whoever has the partition now reads them again.
        say("uncommitted", type(error).__name__)


async def errors(bootstrap, unknown, small):
    seen = []
    # The bounds are to be the server's, not the client's.
    async with AIOKafkaProducer(
        bootstrap_servers=bootstrap, max_request_size=10_000_000, request_timeout_ms=3000
    ) as producer:
        for topic in unknown, small:
            try:
                await producer.send_and_wait(topic, bytes(200_000))
                seen.append(0)
            except KafkaError as error:
                seen.append(getattr(error, "errno", None) or type(error).__name__)
    return seen


def awaited(command):
    return lambda *arguments: asyncio.run(command(*arguments))


main(*map(awaited, (write, read, group, errors)))
