//! What is bounded: requests in flight, responses that nobody takes, memory of frames in part, connections.

use crate::harness::*;
use corelog_net::limits::Limits;
use corelog_wire::*;
use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

fn with(limits: Limits) -> Setup {
    Setup { limits, ..Setup::default() }
}

#[test]
fn past_the_bound_of_requests_the_server_stops_reading_and_goes_on_later() {
    let limits = Limits { requests_max: 4, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let fetch = Fetch { offset: 0, bytes_max: 1, bytes_min: 1, wait_ms: 2000 };
        for _ in 0..4 {
            wire.ask(Operation::Fetch, handles[0], &fetch).await;
        }
        let began = client.reactor.now();
        let ping = wire.ask(Operation::Ping, 0, &()).await;
        // The first fetch whose wait ends makes room.
        assert_eq!(wire.next().await.unwrap().header.operation, Operation::Fetch as u8);
        let waited = client.reactor.now().since(began);
        assert!(waited > Duration::from_millis(1900), "{waited:?}");
        let mut answers = Vec::new();
        for _ in 0..4 {
            answers.push(wire.next().await.unwrap().header);
        }
        assert!(answers.iter().any(|answer| answer.correlation == ping));
    });
}

#[test]
fn past_the_bound_of_produce_bytes_requests_wait_and_all_are_done() {
    let limits = Limits { request_bytes_max: 10_000, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let large = batch(&["x".repeat(6000)]);
        let asked: Vec<u32> = {
            let mut asked = Vec::new();
            for _ in 0..20 {
                asked.push(wire.ask_produce(handles[0], 0, &large).await);
            }
            asked
        };
        for correlation in asked {
            assert!(matches!(wire.answer(correlation).await.response(), Response::Produce(_)));
        }
        // One that is over the bound alone is done alone.
        let huge = batch(&["x".repeat(20_000)]);
        assert!(matches!(wire.produce(handles[0], &huge).await.response(), Response::Produce(_)));
    });
}

#[test]
fn a_producer_ahead_of_its_rate_waits_and_others_do_not() {
    let limits = Limits { produce_rate_max: 100_000, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut greedy, handles) = client.with_topic("t", 1).await;
        let mut modest = client.connect().await;
        let handle = modest.open("t", 0).await;
        let began = client.reactor.now();
        let mut asked = Vec::new();
        for _ in 0..20 {
            asked.push(greedy.ask_produce(handles[0], 0, &batch(&["x".repeat(20_000)])).await);
        }
        for _ in 0..10 {
            let before = client.reactor.now();
            modest.put(handle, &["little"]).await;
            let took = client.reactor.now().since(before);
            assert!(took < Duration::from_millis(100), "{took:?}");
        }
        for correlation in asked {
            assert!(matches!(greedy.answer(correlation).await.response(), Response::Produce(_)));
        }
        // The burst and the last one come before their time.
        let took = client.reactor.now().since(began);
        assert!(took > Duration::from_millis(3600) && took < Duration::from_millis(4200), "{took:?}");
        assert!(client.node.shards.borrow()[0].as_ref().unwrap().counters().throttles.get() > 10);
    });
}

#[test]
fn refused_produces_count_as_well() {
    let limits = Limits { produce_rate_max: 100_000, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        // Compressed, it says, and is not: refused before anything is appended.
        let mut broken = batch(&["x".repeat(50_000)]);
        broken[22] = 4;
        let crc = corelog_batch::crc32c(&broken[21..]);
        broken[17..21].copy_from_slice(&crc.to_be_bytes());
        let began = client.reactor.now();
        let mut asked = Vec::new();
        for _ in 0..10 {
            asked.push(wire.ask_produce(handles[0], 0, &broken).await);
        }
        for correlation in asked {
            assert_eq!(wire.answer(correlation).await.header.status, Status::InvalidBatch as u16);
        }
        let took = client.reactor.now().since(began);
        assert!(took > Duration::from_secs(4), "{took:?}");
    });
}

#[test]
fn a_pause_is_counted_once_whatever_is_answered_meanwhile() {
    let limits = Limits { produce_rate_max: 100_000, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 2).await;
        for wait in 1..=40 {
            let fetch = Fetch { offset: 0, bytes_max: 1, bytes_min: 1, wait_ms: 50 * wait };
            wire.ask(Operation::Fetch, handles[1], &fetch).await;
        }
        wire.ask_produce(handles[0], 0, &batch(&["x".repeat(400_000)])).await;
        for _ in 0..41 {
            wire.next().await.unwrap();
        }
        let throttles = client.node.shards.borrow()[0].as_ref().unwrap().counters().throttles.get();
        assert_eq!(throttles, 1);
    });
}

#[test]
fn a_frame_whose_rest_is_not_read_yet_is_not_late() {
    let limits = Limits { produce_rate_max: 100_000, frame_time: Duration::from_secs(1), ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let large = batch(&["x".repeat(400_000)]);
        let frames = [1000, 1001].map(|correlation| frame(Operation::Produce, correlation, handles[0], 0, &large));
        wire.send(&frames.concat()).await;
        for correlation in [1000, 1001] {
            assert!(matches!(wire.answer(correlation).await.response(), Response::Produce(_)));
        }
    });
}

#[test]
fn a_slow_reader_is_bounded_then_cut_and_harms_nobody() {
    let limits = Limits { outgoing_bytes_max: 256 << 10, send_time: Duration::from_secs(20), ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        for _ in 0..30 {
            writer.produce(handles[0], &batch(&["x".repeat(100_000)])).await;
        }
        let mut slow = client.connect().await;
        let handle = slow.open("t", 0).await;
        let began = client.reactor.now();
        // Asks for 3 MB and reads nothing: the network takes some, the server keeps a bounded rest.
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 0 };
        for _ in 0..100 {
            slow.ask(Operation::Fetch, handle, &fetch).await;
        }
        let mut others_served = 0;
        while client.connections() > 1 {
            writer.put(handles[0], &["others go on"]).await;
            others_served += 1;
            client.sleep(Duration::from_millis(100)).await;
        }
        let cut_after = client.reactor.now().since(began);
        assert!((20..22).contains(&cut_after.as_secs()), "{cut_after:?}");
        assert!(others_served > 100);
        // What the network had taken is not even one response.
        slow.assert_ends().await;
    });
}

#[test]
fn a_reader_that_pauses_gets_everything_when_it_reads_on() {
    let limits = Limits { outgoing_bytes_max: 64 << 10, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        let mut reader = client.connect().await;
        let handle = reader.open("t", 0).await;
        let subscribe = Subscribe { offset: 0, credit: u32::MAX, bytes_max: 64 << 10 };
        reader.call(Operation::Subscribe, handle, &subscribe).await;
        for _ in 0..100 {
            writer.produce(handles[0], &batch(&["x".repeat(30_000)])).await;
        }
        client.sleep(Duration::from_secs(10)).await;
        let mut next = 0;
        while next < 100 {
            for (offset, _) in records(reader.next().await.unwrap().batches().bytes) {
                assert_eq!(offset, next);
                next += 1;
            }
        }
    });
}

#[test]
fn responses_of_all_connections_together_are_bounded() {
    let limits = Limits { shard_outgoing_bytes_max: 400 << 10, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        for _ in 0..10 {
            writer.produce(handles[0], &batch(&["x".repeat(100_000)])).await;
        }
        let mut hoarder = client.connect().await;
        let handle = hoarder.open("t", 0).await;
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 0 };
        hoarder.ask(Operation::Fetch, handle, &fetch).await;
        client.sleep(Duration::from_secs(1)).await;
        // Who has taken all that he asked for gets on, a batch at a time.
        let little = writer.fetch(handles[0], 0, 0).await.batches().bytes.len();
        assert!((100_000..150_000).contains(&little), "{little}");
        hoarder.next().await.unwrap();
        client.sleep(Duration::from_secs(1)).await;
        let all = writer.fetch(handles[0], 0, 0).await.batches().bytes.len();
        assert!(all > little, "{all}");
    });
}

#[test]
fn a_frame_without_memory_is_refused_as_busy_and_the_connection_goes_on() {
    let limits = Limits { frame_bytes_max: 64 << 10, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let large = wire.ask_produce(handles[0], 0, &batch(&["x".repeat(300_000)])).await;
        let small = wire.ask_produce(handles[0], 0, &batch(&["small"])).await;
        let refused = wire.answer(large).await;
        assert_eq!((refused.status(), refused.status().retry()), (Status::Busy, Retry::Yes));
        // What came later must not overtake what will be sent again: the handle is spent, a new one is good.
        assert_eq!(wire.answer(small).await.status(), Status::Busy);
        assert_eq!(wire.produce(handles[0], &batch(&["later"])).await.status(), Status::Busy);
        let again = wire.open("t", 0).await;
        assert_eq!(wire.put(again, &["small"]).await, 0);
    });
}

#[test]
fn waits_of_all_connections_together_are_bounded_and_those_of_a_closed_one_are_free_again() {
    let limits = Limits { shard_waits_max: 4, shard_reader_waits_max: 4, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut first, handles) = client.with_topic("t", 1).await;
        let mut second = client.connect().await;
        let handle = second.open("t", 0).await;
        let wait = Fetch { offset: 0, bytes_max: 1, bytes_min: 1, wait_ms: 60_000 };
        for _ in 0..3 {
            first.ask(Operation::Fetch, handles[0], &wait).await;
        }
        let subscribe = Subscribe { offset: 0, credit: 1000, bytes_max: 1000 };
        second.call(Operation::Subscribe, handle, &subscribe).await.response();
        client.sleep(Duration::from_millis(100)).await;
        let refused = second.produce(handle, &batch(&["a"])).await;
        assert_eq!((refused.status(), refused.status().retry()), (Status::Busy, Retry::Yes));
        assert_eq!(second.fetch(handle, 0, 1000).await.status(), Status::Busy);
        drop(first);
        client.sleep(Duration::from_secs(1)).await;
        let again = second.open("t", 0).await;
        assert_eq!(second.put(again, &["a"]).await, 0);
    });
}

#[test]
fn readers_that_wait_leave_room_for_producers() {
    let limits = Limits { shard_waits_max: 6, shard_reader_waits_max: 4, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut reader, handles) = client.with_topic("t", 1).await;
        let subscribe = Subscribe { offset: 0, credit: 1000, bytes_max: 1000 };
        for _ in 0..4 {
            reader.call(Operation::Subscribe, handles[0], &subscribe).await.response();
        }
        assert_eq!(reader.call(Operation::Subscribe, handles[0], &subscribe).await.status(), Status::Busy);
        assert_eq!(reader.fetch(handles[0], 0, 1000).await.status(), Status::Busy);
        let mut writer = client.connect().await;
        let handle = writer.open("t", 0).await;
        assert_eq!(writer.put(handle, &["a"]).await, 0);
    });
}

/// Takes what is left of shard 0's buffers down to `left` bytes.
fn hoard(client: &Client, left: usize) -> Vec<corelog_engine::reactor::Buffer> {
    let pool = client.node.shards.borrow()[0].as_ref().unwrap().reactor().pool().clone();
    let buffer = |size: usize| (pool.free_bytes() >= left + size).then(|| pool.buffer(size)).flatten();
    let sizes = (12..26).rev().map(|shift| 1 << shift);
    sizes.flat_map(|size| std::iter::from_fn(move || buffer(size))).collect()
}

#[test]
fn while_memory_is_short_who_takes_nothing_is_cut_soon_and_others_are_served() {
    run_default(|client| async move {
        let (mut writer, handles) = client.with_topic("t", 1).await;
        for _ in 0..30 {
            writer.produce(handles[0], &batch(&["x".repeat(100_000)])).await;
        }
        let mut slow = client.connect().await;
        let handle = slow.open("t", 0).await;
        let fetch = Fetch { offset: 0, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 0 };
        for _ in 0..20 {
            slow.ask(Operation::Fetch, handle, &fetch).await;
        }
        client.sleep(Duration::from_secs(5)).await;
        assert_eq!(client.connections(), 2, "with memory at hand it may take its time");
        let hoard = hoard(&client, 1 << 20);
        let began = client.reactor.now();
        assert_eq!(writer.call(Operation::Ping, 0, &()).await.response(), Response::Ping);
        assert_eq!(writer.fetch(handles[0], 0, 0).await.status(), Status::Busy);
        while client.connections() > 1 {
            client.sleep(Duration::from_millis(50)).await;
        }
        let cut_after = client.reactor.now().since(began);
        assert!(cut_after < Duration::from_secs(3), "{cut_after:?}");
        drop(hoard);
        assert!(!writer.fetch(handles[0], 0, 0).await.batches().bytes.is_empty());
    });
}

#[test]
fn while_memory_is_short_who_takes_nothing_is_not_listened_to() {
    run_default(|client| async move {
        let mut quiet = client.connect().await;
        let hoard = hoard(&client, 2 << 20);
        let shard = client.node.shards.borrow()[0].as_ref().unwrap().clone();
        let before = shard.reactor().pool().free_bytes();
        let asking = client.reactor.spawn(async move {
            for _ in 0..50_000 {
                quiet.ask(Operation::Ping, 0, &()).await;
            }
        });
        client.sleep(Duration::from_secs(1)).await;
        let taken = before - shard.reactor().pool().free_bytes();
        assert!(taken <= 64 << 10, "{taken} bytes of responses for who takes none");
        drop((hoard, asking));
    });
}

#[test]
fn connections_are_bounded() {
    let limits = Limits { connections_max: 3, ..Limits::default() };
    run(with(limits), |client| async move {
        let mut open = vec![client.connect().await, client.connect().await, client.connect().await];
        let mut refused = client.dial().await;
        refused.assert_ends().await;
        open.pop();
        client.sleep(Duration::from_secs(1)).await;
        client.assert_server_is_well().await;
        assert_eq!(open.len(), 2);
    });
}

#[test]
fn who_never_says_hello_keeps_nobody_out() {
    let limits = Limits { connections_max: 8, ..Limits::default() };
    run(with(limits), |client| async move {
        let pause = Duration::from_millis(10);
        let (mut silent, mut greeted) = (Vec::new(), Vec::new());
        for _ in 0..6 {
            for _ in 0..8 {
                silent.push(client.dial().await);
                client.sleep(pause).await;
            }
            assert!(client.connections() <= 8);
            greeted.push(client.connect().await);
            client.sleep(pause).await;
        }
        for wire in &mut greeted {
            let pong = wire.call(Operation::Ping, 0, &()).await;
            assert_eq!(pong.response(), Response::Ping);
        }
    });
}

#[test]
fn who_is_slow_to_say_hello_keeps_his_place_while_there_are_others() {
    let limits = Limits { connections_max: 16, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut greeted, mut slow) = (Vec::new(), Vec::new());
        for _ in 0..14 {
            greeted.push(client.connect().await);
        }
        for _ in 0..2 {
            slow.push(client.dial().await);
            client.sleep(Duration::from_millis(100)).await;
        }
        for mut wire in slow {
            wire.greet().await;
        }
    });
}

#[test]
fn subscriptions_are_bounded() {
    let limits = Limits { subscriptions_max: 2, ..Limits::default() };
    run(with(limits), |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let subscribe = Subscribe { offset: 0, credit: 1, bytes_max: 1 };
        for _ in 0..2 {
            assert!(matches!(
                wire.call(Operation::Subscribe, handles[0], &subscribe).await.response(),
                Response::Subscribe(_)
            ));
        }
        let refused = wire.call(Operation::Subscribe, handles[0], &subscribe).await;
        assert_eq!(refused.status(), Status::TooManySubscriptions);
    });
}

#[test]
fn two_hundred_clients_are_served_at_once() {
    run_default(|client| async move {
        client.with_topic("t", 8).await;
        let done = Rc::new(Cell::new(0));
        for number in 0..200u32 {
            let (one, told) = (client.clone(), done.clone());
            let task = async move {
                let mut wire = one.connect().await;
                let handle = wire.open("t", number % 8).await;
                for _ in 0..5 {
                    wire.put(handle, &["x"]).await;
                }
                told.set(told.get() + 1);
            };
            client.reactor.spawn(task).detach();
        }
        while done.get() < 200 {
            client.sleep(Duration::from_millis(10)).await;
        }
        let mut wire = client.connect().await;
        let mut records = 0;
        for partition in 0..8 {
            let handle = wire.open("t", partition).await;
            records += wire.fetch(handle, 0, 0).await.batches().records.high_watermark;
        }
        assert_eq!(records, 1000);
    });
}

#[test]
fn without_memory_for_responses_acknowledgements_wait_until_there_is_some() {
    const PRODUCES: u32 = 600;
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        wire.put(handles[0], &["first"]).await;
        let shard = client.node.shards.borrow()[0].as_ref().unwrap().clone();
        let id = shard.catalog().topics().next().unwrap().partition_ids().next().unwrap();
        let partition = shard.open(id).unwrap();
        let mut asked = Vec::new();
        for number in 0..PRODUCES {
            asked.extend(frame(Operation::Produce, 1000 + number, handles[0], 0, &batch(&["x"])));
        }
        wire.send(&asked).await;
        while shard.describe(partition).unwrap().next.0 < i64::from(PRODUCES) / 2 {
            client.sleep(Duration::from_micros(1)).await;
        }
        let hoard = hoard(&client, 0);
        let reactor = client.reactor.clone();
        let freed = client.reactor.spawn(async move {
            reactor.sleep(Duration::from_secs(1)).await;
            drop(hoard);
        });
        let (mut acknowledged, mut refused) = (0, 0);
        while acknowledged + refused < PRODUCES {
            match wire.next().await.unwrap().status() {
                Status::Ok => acknowledged += 1,
                _ => refused += 1,
            }
        }
        assert!(acknowledged >= PRODUCES / 2, "{acknowledged}");
        freed.await;
    });
}

#[test]
fn without_memory_for_responses_requests_wait_until_there_is_some() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        let pool = client.node.shards.borrow()[0].as_ref().unwrap().reactor().pool().clone();
        let mut hoard = Vec::new();
        for shift in (12..26).rev() {
            while let Some(buffer) = pool.buffer(1 << shift) {
                hoard.push(buffer);
            }
        }
        assert_eq!(pool.free_bytes(), 0);
        let first = wire.ask(Operation::Ping, 0, &()).await;
        for _ in 1..2000 {
            wire.ask(Operation::Ping, 0, &()).await;
        }
        client.sleep(Duration::from_secs(1)).await;
        let mut answered = 0;
        let freed = client.reactor.spawn({
            let reactor = client.reactor.clone();
            async move {
                reactor.sleep(Duration::from_secs(1)).await;
                drop(hoard);
            }
        });
        let began = client.reactor.now();
        while answered < 2000 {
            assert_eq!(wire.next().await.unwrap().header.correlation, first + answered);
            answered += 1;
        }
        assert!(client.reactor.now().since(began) > Duration::from_millis(900), "some had to wait for memory");
        freed.await;
    });
}
