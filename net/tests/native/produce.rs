//! Produce: pipelining, order, silence.

use crate::harness::*;
use corelog_wire::*;
use std::collections::HashMap;

#[test]
fn acks_of_a_partition_come_in_order_whatever_is_pipelined() {
    for seed in 0..10 {
        run(Setup { seed, ..Setup::default() }, |client| async move {
            let (mut wire, handles) = client.with_topic("t", 4).await;
            let mut sent: HashMap<u32, Vec<(u32, i64)>> = HashMap::new();
            for number in 0..300 {
                let handle = handles[client.reactor.random() as usize % handles.len()];
                let values: Vec<String> = (0..=number % 3).map(|part| format!("{number}.{part}")).collect();
                let correlation = wire.ask_produce(handle, 0, &batch(&values)).await;
                sent.entry(handle).or_default().push((correlation, values.len() as i64));
            }
            let mut next: HashMap<u32, i64> = HashMap::new();
            for _ in 0..300 {
                let answer = wire.next().await.unwrap();
                let Response::Produce(produced) = answer.response() else { panic!("{answer:?}") };
                let handle = answer.header.handle;
                let (correlation, records) = sent.get_mut(&handle).unwrap().remove(0);
                assert_eq!(answer.header.correlation, correlation, "in the order of the requests");
                let base = next.entry(handle).or_default();
                assert_eq!((produced.base, produced.last), (*base, *base + records - 1), "offsets without gaps");
                *base += records;
            }
        });
    }
}

#[test]
fn what_is_produced_is_what_is_fetched() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let odd: [&[u8]; 4] = [b"", b"\n\r\0\xff", &[7; 100_000], b"end"];
        wire.produce(handles[0], &batch(&odd)).await;
        let fetched = wire.fetch(handles[0], 0, 0).await;
        let values: Vec<_> = records(fetched.batches().bytes).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, odd);
        assert_eq!(fetched.batches().records, Records { high_watermark: 4, first: 0, next: 4 });
    });
}

#[test]
fn a_topic_may_ask_for_another_compression() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        for partition in 0..2 {
            let created = wire.create(&format!("t{partition}"), 2, &[("compression.type", "lz4")]).await;
            assert_eq!(created.status_or_ok(), None);
            let handle = wire.open(&format!("t{partition}"), partition).await;
            assert_eq!(wire.put(handle, &["first", "second"]).await, 0);
            let bad = wire.produce(handle, b"no batch").await;
            assert_eq!(bad.status(), Status::InvalidBatch);
            let fetched = wire.fetch(handle, 0, 0).await;
            let bytes = fetched.batches().bytes;
            assert_eq!(corelog_batch::BatchView::first(bytes).unwrap().codec(), Ok(corelog_batch::Codec::Lz4));
            assert_eq!(records(bytes), [(0, b"first".to_vec()), (1, b"second".to_vec())]);
        }
    });
}

#[test]
fn a_silent_produce_is_answered_only_if_it_fails() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        for _ in 0..10 {
            wire.ask_produce(handles[0], FLAG_SILENT, &batch(&["quiet"])).await;
        }
        let bad = wire.ask_produce(handles[0], FLAG_SILENT, b"no batch").await;
        assert_eq!(wire.answer(bad).await.status(), Status::InvalidBatch);
        assert_eq!(wire.put(handles[0], &["loud"]).await, 10);
    });
}

#[test]
fn requests_may_follow_the_hello_at_once() {
    run_default(|client| async move {
        client.with_topic("t", 1).await;
        let mut wire = client.dial().await;
        let hello = wire.ask(Operation::Hello, 0, &hello(1, 1)).await;
        let open = wire.ask(Operation::Open, 0, &Open { topic: Topic::Name(text("t")), partition: 0 }).await;
        assert!(matches!(wire.answer(hello).await.response(), Response::Hello(_)));
        assert!(matches!(wire.answer(open).await.response(), Response::Open(_)));
    });
}
