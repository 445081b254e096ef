//! Fetch with wait, subscriptions with credit, offsets by time, deletion of records.

use crate::harness::*;
use corelog_engine::log::paths;
use corelog_engine::model::Offset;
use corelog_engine::reactor::{Open, WriteSync};
use corelog_engine::shard::ShardConfig;
use corelog_wire::*;
use std::path::Path;
use std::time::Duration;

fn fetch(offset: i64, bytes_min: u32, wait_ms: u32) -> Fetch {
    Fetch { offset, bytes_max: 1 << 20, bytes_min, wait_ms }
}

#[test]
fn a_fetch_waits_for_records_and_gives_up_in_time() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let empty = reader.fetch(handle, 0, 0).await;
        assert_eq!(empty.batches(), Batches { records: Records { high_watermark: 0, first: 0, next: 0 }, bytes: &[] });

        let began = client.reactor.now();
        let waiting = reader.ask(Operation::Fetch, handle, &fetch(0, 1, 10_000)).await;
        client.sleep(Duration::from_secs(1)).await;
        writer.put(handles[0], &["late"]).await;
        assert_eq!(records(reader.answer(waiting).await.batches().bytes), [(0, b"late".to_vec())]);
        assert!(client.reactor.now().since(began) < Duration::from_secs(2));

        let began = client.reactor.now();
        assert!(reader.fetch(handle, 1, 3000).await.batches().bytes.is_empty());
        let waited = client.reactor.now().since(began);
        assert!((3000..3200).contains(&waited.as_millis()), "{waited:?}");
    });
}

#[test]
fn a_fetch_waits_for_as_many_bytes_as_it_wants() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let size = batch(&["1"]).len() as u32;
        let patient = reader.ask(Operation::Fetch, handle, &fetch(0, 3 * size, 10_000)).await;
        let hasty = reader.ask(Operation::Fetch, handle, &fetch(0, 9 * size, 1000)).await;
        for value in ["1", "2", "3"] {
            writer.put(handles[0], &[value]).await;
        }
        assert_eq!(records(reader.answer(patient).await.batches().bytes).len(), 3);
        assert_eq!(records(reader.answer(hasty).await.batches().bytes).len(), 3, "what there is when time is over");
    });
}

#[test]
fn many_fetches_wait_on_one_connection_and_pings_overtake_them() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 8).await;
        let (mut reader, mut waiting) = (client.connect().await, Vec::new());
        for partition in 0..8 {
            let handle = reader.open("t", partition).await;
            waiting.push(reader.ask(Operation::Fetch, handle, &fetch(0, 1, 30_000)).await);
        }
        assert_eq!(reader.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
        for partition in (0..8).rev() {
            writer.put(handles[partition], &["x"]).await;
            let answer = reader.answer(waiting[partition]).await;
            assert_eq!(answer.batches().records.next, 1);
        }
    });
}

#[test]
fn offsets_out_of_range_carry_the_range() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        wire.put(handles[0], &["0", "1", "2", "3"]).await;
        let deleted = wire.call(Operation::DeleteRecords, handles[0], &DeleteRecords { before: 2 }).await;
        assert_eq!(deleted.response(), Response::DeleteRecords(DeletedRecords { first: 2 }));
        for offset in [-1, 0, 1, 5, i64::MAX, i64::MIN] {
            for refused in [
                wire.fetch(handles[0], offset, 0).await,
                wire.call(Operation::Subscribe, handles[0], &Subscribe { offset, credit: 1, bytes_max: 1 }).await,
            ] {
                assert_eq!(refused.status(), Status::OffsetOutOfRange, "{offset}");
                assert_eq!(refused.failure().detail, Detail::Range { first: 2, next: 4 });
            }
        }
        let fetched = wire.fetch(handles[0], 2, 0).await;
        assert_eq!(fetched.batches().records, Records { high_watermark: 4, first: 2, next: 4 });
        let refused = wire.call(Operation::DeleteRecords, handles[0], &DeleteRecords { before: 9 }).await;
        assert_eq!(refused.status(), Status::OffsetOutOfRange);
        let all = wire.call(Operation::DeleteRecords, handles[0], &DeleteRecords { before: -1 }).await;
        assert_eq!(all.response(), Response::DeleteRecords(DeletedRecords { first: 4 }));
    });
}

/// A node that keeps so little in memory that most of a topic is on disk.
fn small_tails() -> Setup {
    let mut setup = Setup::default();
    setup.config.tail_bytes_max = 512 << 10;
    setup.config.checkpoint_interval = Duration::from_millis(20);
    setup
}

async fn fill(wire: &mut crate::harness::Wire, handle: u32, batches: i64) {
    let value = "x".repeat(16 << 10);
    let mut number = 0;
    while number < batches {
        let answer = wire.produce(handle, &batch(&[&value])).await;
        match answer.status_or_ok() {
            None => number += 1,
            Some(Status::Busy) => wire.reactor.sleep(Duration::from_millis(20)).await,
            Some(other) => panic!("{other:?}"),
        }
    }
}

#[test]
fn what_is_on_disk_is_fetched_and_pushed_in_order() {
    run(small_tails(), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        fill(&mut wire, handles[0], 200).await;
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let (mut next, mut responses) = (0, 0);
        while next < 200 {
            let fetched = reader.fetch(handle, next, 1000).await;
            let found = records(fetched.batches().bytes);
            assert_eq!(found.first().unwrap().0, next);
            assert!(found.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
            next = fetched.batches().records.next;
            responses += 1;
        }
        assert!(responses < 200, "batches come together");

        let subscribe = Subscribe { offset: 0, credit: 64 << 20, bytes_max: 256 << 10 };
        let subscribed = reader.call(Operation::Subscribe, handle, &subscribe).await;
        assert_eq!(subscribed.response(), Response::Subscribe(Subscribed { first: 0, high_watermark: 200 }));
        let mut next = 0;
        while next < 200 {
            let push = reader.next().await.unwrap();
            assert_eq!(push.header.handle, subscribed.header.handle);
            assert_eq!(push.header.correlation, subscribed.header.correlation);
            for (offset, _) in records(push.batches().bytes) {
                assert_eq!(offset, next);
                next += 1;
            }
        }
    });
}

#[test]
fn many_disk_reads_of_one_connection_take_turns() {
    run(small_tails(), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        fill(&mut wire, handles[0], 100).await;
        let asked: Vec<u32> = {
            let mut asked = Vec::new();
            for offset in 0..40 {
                asked.push(wire.ask(Operation::Fetch, handles[0], &fetch(offset, 1, 0)).await);
            }
            asked
        };
        let mut answered = Vec::new();
        for _ in &asked {
            let answer = wire.next().await.unwrap();
            let offset = i64::from(answer.header.correlation - asked[0]);
            assert_eq!(records(answer.batches().bytes)[0].0, offset);
            answered.push(answer.header.correlation);
        }
        answered.sort_unstable();
        assert_eq!(answered, asked);
    });
}

#[test]
fn a_subscription_pushes_within_its_credit_and_goes_on_with_more() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        let size = batch(&["0"]).len();
        for _ in 0..10 {
            writer.put(handles[0], &["0"]).await;
        }
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let subscribe = Subscribe { offset: 0, credit: 3 * size as u32, bytes_max: size as u32 };
        let subscription = reader.call(Operation::Subscribe, handle, &subscribe).await.header.handle;
        for offset in 0..3 {
            assert_eq!(records(reader.next().await.unwrap().batches().bytes)[0].0, offset);
        }
        // Nothing more until there is credit: the answer to a ping comes first.
        client.sleep(Duration::from_secs(1)).await;
        assert_eq!(reader.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
        // One byte of credit is enough for one whole batch, and leaves a debt.
        reader.ask(Operation::Credit, subscription, &Credit { bytes: 1 }).await;
        assert_eq!(records(reader.next().await.unwrap().batches().bytes)[0].0, 3);
        reader.ask(Operation::Credit, subscription, &Credit { bytes: size as u32 - 1 }).await;
        assert_eq!(reader.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
        reader.ask(Operation::Credit, subscription, &Credit { bytes: 1 << 30 }).await;
        for offset in 4..10 {
            assert_eq!(records(reader.next().await.unwrap().batches().bytes)[0].0, offset);
        }
        // At the end of the log what comes is pushed unasked.
        writer.put(handles[0], &["new"]).await;
        assert_eq!(records(reader.next().await.unwrap().batches().bytes), [(10, b"new".to_vec())]);
    });
}

#[test]
fn nothing_is_pushed_after_an_unsubscribe() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let subscribe = Subscribe { offset: 0, credit: 1 << 20, bytes_max: 1 << 20 };
        let subscription = reader.call(Operation::Subscribe, handle, &subscribe).await.header.handle;
        writer.put(handles[0], &["seen"]).await;
        assert_eq!(reader.next().await.unwrap().header.operation, Operation::Push as u8);
        assert_eq!(reader.call(Operation::Unsubscribe, subscription, &()).await.response(), Response::Unsubscribe);
        writer.put(handles[0], &["unseen"]).await;
        client.sleep(Duration::from_secs(1)).await;
        for operation in [Operation::Unsubscribe, Operation::Credit] {
            let refused = match operation {
                Operation::Credit => reader.call(operation, subscription, &Credit { bytes: 1 }).await,
                _ => reader.call(operation, subscription, &()).await,
            };
            assert_eq!(refused.status(), Status::UnknownSubscription);
        }
    });
}

#[test]
fn a_subscription_ends_with_a_word_when_its_partition_goes_or_it_is_overtaken() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 2).await;
        let size = batch(&["0"]).len() as u32;
        let mut reader = client.connect().await;
        let (first, second) = (reader.open("t", 0).await, reader.open("t", 1).await);
        wire.put(handles[0], &["0"]).await;
        wire.put(handles[0], &["1"]).await;
        wire.put(handles[0], &["2"]).await;
        let subscribe = Subscribe { offset: 0, credit: size, bytes_max: size };
        let slow = reader.call(Operation::Subscribe, first, &subscribe).await.header.handle;
        assert_eq!(reader.next().await.unwrap().batches().records.next, 1);
        let idle = reader.call(Operation::Subscribe, second, &subscribe).await.header.handle;

        wire.call(Operation::DeleteRecords, handles[0], &DeleteRecords { before: 2 }).await;
        reader.ask(Operation::Credit, slow, &Credit { bytes: size }).await;
        let overtaken = reader.next().await.unwrap();
        assert_eq!((overtaken.header.handle, overtaken.status()), (slow, Status::OffsetOutOfRange));
        assert_eq!(overtaken.failure().detail, Detail::Range { first: 2, next: 3 });

        let delete = DeleteTopic { topic: Topic::Name(text("t")) };
        wire.call(Operation::DeleteTopic, 0, &delete).await;
        let gone = reader.next().await.unwrap();
        assert_eq!((gone.header.handle, gone.status()), (idle, Status::UnknownPartition));
        assert_eq!(reader.fetch(first, 2, 0).await.status(), Status::UnknownHandle);
    });
}

#[test]
fn offsets_are_listed_by_end_and_by_time() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let none = ListedOffset { offset: -1, timestamp: -1 };
        let ask = async |wire: &mut crate::harness::Wire, query: ListOffsets| {
            let answer = wire.call(Operation::ListOffsets, handles[0], &query).await;
            let Response::ListOffsets(listed) = answer.response() else { panic!("{answer:?}") };
            listed
        };
        assert_eq!(ask(&mut wire, ListOffsets::Earliest).await, ListedOffset { offset: 0, timestamp: -1 });
        assert_eq!(ask(&mut wire, ListOffsets::Latest).await, ListedOffset { offset: 0, timestamp: -1 });
        assert_eq!(ask(&mut wire, ListOffsets::MaxTimestamp).await, none);
        wire.put(handles[0], &["0", "1"]).await;
        assert_eq!(ask(&mut wire, ListOffsets::Latest).await.offset, 2);
        assert_eq!(ask(&mut wire, ListOffsets::At(0)).await.offset, 0);
        assert_eq!(ask(&mut wire, ListOffsets::At(i64::MAX)).await, none);
    });
}

/// The watch of a fenced partition ends at once: a fetch that went on waiting would be looked at again for ever.
#[test]
fn a_fetch_of_a_damaged_partition_does_not_wait_for_more() {
    let setup = Setup { config: ShardConfig { tail_bytes_max: 2 << 20, ..config() }, ..Setup::default() };
    run(setup, |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let mut last = 0;
        for _ in 0..32 {
            last = wire.put(handles[0], &[&"x".repeat(100_000)]).await;
            client.sleep(Duration::from_millis(300)).await;
        }
        let shard = client.node.shards.borrow()[0].clone().unwrap();
        let id = shard.catalog().topics().flat_map(|topic| topic.partition_ids()).next().unwrap();
        let path = paths::segment(Path::new("data"), id, Offset(0));
        let segment = shard.reactor().open(&path, Open::ReadWrite).await.unwrap();
        let mut zeros = shard.reactor().pool().buffer(4096).unwrap();
        zeros.fill(0);
        segment.write_at(0, zeros.freeze(), WriteSync::Data).await.unwrap();
        assert_eq!(wire.fetch(handles[0], 0, 0).await.status(), Status::Fenced);
        let began = client.reactor.now();
        let waiting = wire.ask(Operation::Fetch, handles[0], &fetch(last, 1 << 20, 10_000)).await;
        assert_eq!(records(wire.answer(waiting).await.batches().bytes).len(), 1, "what is readable");
        assert!(client.reactor.now().since(began) < Duration::from_secs(1));
    });
}
