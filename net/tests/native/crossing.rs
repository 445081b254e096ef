//! Requests at the wrong shard are answered all the same, by one crossing.

use crate::harness::*;
use corelog_net::limits::Limits;
use corelog_wire::*;
use std::time::Duration;

fn two_shards() -> Setup {
    Setup { shards: 2, ..Setup::default() }
}

/// A connection to a shard, and a handle of a partition that the other shard owns.
async fn at_the_wrong_shard(client: &Client, name: &str) -> (crate::harness::Wire, u32, u32) {
    let mut wire = client.connect_to(0).await;
    wire.create(name, 2, &[]).await;
    for partition in 0..2 {
        let opened = wire.try_open(name, partition).await;
        let Response::Open(facts) = opened.response() else { panic!("{opened:?}") };
        if facts.shard == 1 {
            return (wire, opened.header.handle, partition);
        }
    }
    panic!("one of two partitions is the other shard's");
}

async fn crossings(wire: &mut crate::harness::Wire, name: &str, partition: u32) -> u64 {
    let describe = DescribeTopic { topic: Topic::Name(text(name)), first_partition: partition, partitions_max: 1 };
    let answer = wire.call(Operation::DescribeTopic, 0, &describe).await;
    let Response::DescribeTopic(state) = answer.response() else { panic!("{answer:?}") };
    state.partitions.iter().next().unwrap().crossings
}

#[test]
fn produce_and_fetch_cross_in_order_and_are_counted() {
    run(two_shards(), |client| async move {
        let (mut wire, handle, partition) = at_the_wrong_shard(&client, "t").await;
        assert_eq!(crossings(&mut wire, "t", partition).await, 0);
        let asked = {
            let mut asked = Vec::new();
            for number in 0..50 {
                asked.push(wire.ask_produce(handle, 0, &batch(&[number.to_string()])).await);
            }
            asked
        };
        for (offset, correlation) in asked.into_iter().enumerate() {
            let answer = wire.answer(correlation).await;
            let Response::Produce(produced) = answer.response() else { panic!("{answer:?}") };
            assert_eq!(produced.base, offset as i64);
        }
        let fetched = wire.fetch(handle, 10, 0).await;
        assert_eq!(fetched.batches().records, Records { high_watermark: 50, first: 0, next: 50 });
        assert_eq!(records(fetched.batches().bytes)[0], (10, b"10".to_vec()));
        assert_eq!(crossings(&mut wire, "t", partition).await, 51);
        assert_eq!(wire.fetch(handle, 51, 0).await.failure().detail, Detail::Range { first: 0, next: 50 });
    });
}

#[test]
fn waits_and_subscriptions_cross_too() {
    run(two_shards(), |client| async move {
        let (mut wire, handle, partition) = at_the_wrong_shard(&client, "t").await;
        let mut owner = client.connect_to(1).await;
        let own = owner.open("t", partition).await;
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 30_000 };
        let waiting = wire.ask(Operation::Fetch, handle, &fetch).await;
        client.sleep(Duration::from_secs(1)).await;
        owner.put(own, &["first"]).await;
        assert_eq!(records(wire.answer(waiting).await.batches().bytes), [(0, b"first".to_vec())]);

        let subscribe = Subscribe { offset: 0, credit: 1 << 20, bytes_max: 1 << 20 };
        let subscribed = wire.call(Operation::Subscribe, handle, &subscribe).await;
        assert_eq!(subscribed.response(), Response::Subscribe(Subscribed { first: 0, high_watermark: 1 }));
        assert_eq!(records(wire.next().await.unwrap().batches().bytes).len(), 1);
        client.sleep(Duration::from_secs(12)).await;
        owner.put(own, &["second"]).await;
        assert_eq!(records(wire.next().await.unwrap().batches().bytes), [(1, b"second".to_vec())]);
    });
}

/// Frames of answers and pushes in any order: how many records were pushed.
async fn pushed_records(wire: &mut crate::harness::Wire, expected: usize) -> usize {
    let mut pushed = 0;
    while pushed < expected {
        let frame = wire.next().await.expect("the server closed the connection");
        if frame.header.operation == Operation::Push as u8 {
            pushed += records(frame.batches().bytes).len();
        }
    }
    pushed
}

/// More than may be on their way between shards at once: those at the end of their log must not keep others from reading.
#[test]
fn a_thousand_subscriptions_cross_and_none_starves() {
    const PARTITIONS: u32 = 2000;
    run(two_shards(), |client| async move {
        let mut wire = client.connect_to(0).await;
        wire.create("wide", PARTITIONS, &[]).await;
        let mut crossing = Vec::new();
        for partition in 0..PARTITIONS {
            let opened = wire.try_open("wide", partition).await;
            let Response::Open(facts) = opened.response() else { panic!("{opened:?}") };
            if facts.shard == 1 {
                crossing.push(opened.header.handle);
            }
        }
        assert!(crossing.len() > 900, "{}", crossing.len());
        for handle in &crossing {
            wire.put(*handle, &["first"]).await;
        }
        for handle in &crossing {
            let subscribe = Subscribe { offset: 0, credit: 1 << 20, bytes_max: 1 << 20 };
            wire.ask(Operation::Subscribe, *handle, &subscribe).await;
        }
        assert_eq!(pushed_records(&mut wire, crossing.len()).await, crossing.len());
        client.sleep(Duration::from_secs(1)).await;
        let mut owner = client.connect_to(1).await;
        for partition in 0..PARTITIONS {
            let opened = owner.try_open("wide", partition).await;
            let Response::Open(facts) = opened.response() else { panic!("{opened:?}") };
            if facts.shard == 1 {
                owner.put(opened.header.handle, &["later"]).await;
            }
        }
        assert_eq!(pushed_records(&mut wire, crossing.len()).await, crossing.len());
    });
}

#[test]
fn a_fetch_that_crosses_waits_for_as_much_as_it_asks_for() {
    run(two_shards(), |client| async move {
        let (mut wire, handle, partition) = at_the_wrong_shard(&client, "t").await;
        let mut owner = client.connect_to(1).await;
        let own = owner.open("t", partition).await;
        let began = client.reactor.now();
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 5000, wait_ms: 10_000 };
        let waiting = wire.ask(Operation::Fetch, handle, &fetch).await;
        for _ in 0..3 {
            owner.put(own, &["little"]).await;
            client.sleep(Duration::from_secs(1)).await;
        }
        owner.put(own, &["much".repeat(2000).as_str()]).await;
        assert_eq!(records(wire.answer(waiting).await.batches().bytes).len(), 4);
        assert!(client.reactor.now().since(began) < Duration::from_secs(9), "it was answered before its time was over");

        let began = client.reactor.now();
        let fetch = Fetch { offset: 3, bytes_max: 1 << 20, bytes_min: 1 << 19, wait_ms: 2000 };
        let answer = wire.call(Operation::Fetch, handle, &fetch).await;
        assert_eq!(records(answer.batches().bytes).len(), 1);
        assert!(client.reactor.now().since(began) >= Duration::from_secs(2), "it had its time");
    });
}

/// What the owner reads and what the asker keeps for the client are both bounded; who is refused can ask again.
#[test]
fn answers_that_cross_and_are_not_taken_are_bounded() {
    const LARGE: usize = 2 << 20;
    let limits = Limits { shard_outgoing_bytes_max: 8 << 20, outgoing_bytes_max: 1 << 30, ..Limits::default() };
    run(Setup { limits, ..two_shards() }, |client| async move {
        let (mut wire, handle, _) = at_the_wrong_shard(&client, "t").await;
        let topic = Topic::Name(text("t"));
        let set = [Setting { key: text("max.message.bytes"), value: text("4194304") }];
        let alter = AlterTopic { topic, partitions: 0, set: List::of(&set), reset: List::default() };
        assert_eq!(wire.call(Operation::AlterTopic, 0, &alter).await.status(), Status::Ok);
        let produced = wire.produce(handle, &batch(&["x".repeat(LARGE)])).await;
        assert!(matches!(produced.response(), Response::Produce(_)), "{produced:?}");
        let shard = client.node.shards.borrow()[0].as_ref().unwrap().clone();
        let before = shard.reactor().pool().free_bytes();
        let fetch = Fetch { offset: 0, bytes_max: u32::MAX, bytes_min: 1, wait_ms: 0 };
        for _ in 0..300 {
            wire.ask(Operation::Fetch, handle, &fetch).await;
        }
        client.sleep(Duration::from_secs(2)).await;
        let held = before - shard.reactor().pool().free_bytes();
        assert!(held < 24 << 20, "{held} bytes are held for a client that takes nothing");
        let (mut whole, mut refused) = (0, 0);
        for _ in 0..300 {
            let answer = wire.next().await.unwrap();
            match answer.status() {
                Status::Ok => whole += usize::from(answer.batches().bytes.len() > LARGE),
                Status::Busy => refused += 1,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(whole + refused, 300);
        assert!(whole >= 2 && refused > 0, "{whole} answered, {refused} refused");
        assert!(wire.fetch(handle, 0, 0).await.batches().bytes.len() > LARGE, "there is room again");
    });
}

/// A client that takes nothing does not keep what other shards answered: others cross meanwhile.
#[test]
fn an_answer_that_is_not_taken_leaves_room_for_others() {
    run(two_shards(), |client| async move {
        let (mut wire, handle, partition) = at_the_wrong_shard(&client, "t").await;
        let mut local = wire.open("t", 1 - partition).await;
        for (handle, size) in [(handle, 900_000), (local, 300_000)] {
            wire.produce(handle, &batch(&["x".repeat(size)])).await;
        }
        let mut quiet = client.connect_to(0).await;
        local = quiet.open("t", 1 - partition).await;
        let crossing = quiet.open("t", partition).await;
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 0 };
        for _ in 0..4 {
            quiet.ask(Operation::Fetch, local, &fetch).await;
        }
        for _ in 0..8 {
            quiet.ask(Operation::Fetch, crossing, &fetch).await;
        }
        client.sleep(Duration::from_secs(1)).await;
        for _ in 0..20 {
            assert!(!wire.fetch(handle, 0, 0).await.batches().bytes.is_empty());
        }
    });
}

#[test]
fn other_operations_cross() {
    run(two_shards(), |client| async move {
        let (mut wire, handle, _) = at_the_wrong_shard(&client, "t").await;
        wire.put(handle, &["0", "1", "2"]).await;
        let latest = wire.call(Operation::ListOffsets, handle, &ListOffsets::Latest).await;
        assert_eq!(latest.response(), Response::ListOffsets(ListedOffset { offset: 3, timestamp: -1 }));
        let deleted = wire.call(Operation::DeleteRecords, handle, &DeleteRecords { before: 1 }).await;
        assert_eq!(deleted.response(), Response::DeleteRecords(DeletedRecords { first: 1 }));
        let all = wire.call(Operation::DeleteRecords, handle, &DeleteRecords { before: -1 }).await;
        assert_eq!(all.response(), Response::DeleteRecords(DeletedRecords { first: 3 }));
        let refused = wire.produce(handle, b"no batch").await;
        assert_eq!(refused.status(), Status::InvalidBatch);
        let delete = DeleteTopic { topic: Topic::Name(text("t")) };
        wire.call(Operation::DeleteTopic, 0, &delete).await;
        assert_eq!(wire.produce(handle, &batch(&["x"])).await.status(), Status::UnknownHandle);
    });
}
