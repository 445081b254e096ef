//! Fetch: from memory, from disk, across shards; waits and their bounds; both dialects see the same records.

use crate::harness::*;
use crate::wire::*;
use corelog_wire::{Operation, Response};
use kafka_protocol::messages::FetchRequest;
use std::time::Duration;

#[test]
fn every_version_reads_what_either_dialect_wrote() {
    run_default(|client| async move {
        let (mut native, handles) = client.with_topic("t", 2).await;
        native.put(handles[0], &["by", "native"]).await;
        let mut kafka = Kafka::connect(&client).await;
        kafka.produce("t", 0, &batch(&["by kafka"])).await;
        let expected = [(0, b"by".to_vec()), (1, b"native".to_vec()), (2, b"by kafka".to_vec())];
        let (_, topic) = kafka.metadata("t").await;
        let id = kafka.call(12, &kafka_protocol::messages::MetadataRequest::default().with_topics(None)).await.topics
            [0]
        .topic_id;
        assert_eq!((topic.partitions.len(), id.is_nil()), (2, false));
        for version in 4..=13 {
            let mut request = fetch(0, 1, &[("t", &[(0, 0), (1, 0), (9, 0)])]);
            if version >= 13 {
                request.topics[0].topic = name("");
                request.topics[0].topic_id = id;
            }
            let response = kafka.call(version, &request).await;
            let [full, empty, unknown] = response.responses[0].partitions.as_slice() else { panic!("{response:?}") };
            assert_eq!(records(full.records.as_ref().unwrap()), expected, "{version}");
            assert_eq!((full.error_code, full.high_watermark), (0, 3));
            assert_eq!((empty.error_code, empty.high_watermark, empty.records.as_ref().unwrap().len()), (0, 0, 0));
            assert_eq!((unknown.partition_index, unknown.error_code), (9, 3));
        }
        let fetched = native.fetch(handles[0], 2, 0).await;
        assert_eq!(records(fetched.batches().bytes), expected[2..]);
    });
}

#[test]
fn a_wait_ends_with_a_record_or_with_its_time() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 3, &[]).await;
        let begun = client.reactor.now();
        let nothing = kafka.fetch("t", 1, 0, 500).await;
        let waited = client.reactor.now().since(begun);
        assert_eq!((nothing.error_code, nothing.records.unwrap().len()), (0, 0));
        assert!(waited >= Duration::from_millis(500) && waited < Duration::from_millis(700), "{waited:?}");

        let correlation = kafka.ask(FETCH, &fetch(30_000, 1, &[("t", &[(0, 0), (1, 0), (2, 0)])])).await;
        client.sleep(Duration::from_millis(100)).await;
        let mut other = Kafka::connect(&client).await;
        let begun = client.reactor.now();
        other.produce("t", 2, &batch(&["x"])).await;
        let response = kafka.answer::<FetchRequest>(FETCH, correlation).await;
        assert!(client.reactor.now().since(begun) < Duration::from_millis(100));
        let lengths: Vec<_> =
            response.responses[0].partitions.iter().map(|p| records(p.records.as_ref().unwrap()).len()).collect();
        assert_eq!(lengths, [0, 0, 1]);
    });
}

#[test]
fn bytes_min_is_waited_for_over_all_partitions() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        let one = batch(&["x".repeat(500)]);
        kafka.produce("t", 0, &one).await;
        let wanted = 2 * one.len() as i32;
        let correlation = kafka.ask(FETCH, &fetch(30_000, wanted, &[("t", &[(0, 0), (1, 0)])])).await;
        let mut other = Kafka::connect(&client).await;
        client.sleep(Duration::from_millis(50)).await;
        other.produce("t", 1, &one).await;
        let response = kafka.answer::<FetchRequest>(FETCH, correlation).await;
        let lengths: Vec<_> =
            response.responses[0].partitions.iter().map(|p| p.records.as_ref().unwrap().len()).collect();
        assert_eq!(lengths, [one.len(), one.len()]);
    });
}

#[test]
fn what_is_on_disk_is_read_in_order_and_within_bounds() {
    let mut setup = Setup::default();
    setup.config.checkpoint_interval = Duration::from_millis(50);
    setup.config.tail_bytes_max = 4 << 20;
    run(setup, |client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[("segment.bytes", "1048576")]).await;
        for number in 0..300 {
            let batch = batch(&[format!("{number}{}", "x".repeat(50_000))]);
            assert_eq!(kafka.produce("t", 0, &batch).await.error_code, 0);
        }
        // While commits come, reads from disk are short.
        client.sleep(Duration::from_secs(2)).await;
        let (mut next, mut fetches) = (0, 0);
        while next < 300 {
            let found = kafka.fetch("t", 0, next, 0).await;
            assert_eq!(found.error_code, 0);
            let found = found.records.unwrap();
            assert!(found.len() <= 1 << 20, "{}", found.len());
            for (offset, value) in records(&found) {
                assert_eq!(offset, next);
                assert!(value.starts_with(format!("{next}x").as_bytes()));
                next += 1;
            }
            fetches += 1;
        }
        assert!(fetches < 80, "{fetches} fetches for 15 MB");
    });
}

#[test]
fn offsets_that_are_not_there_are_told_with_the_extent() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        kafka.produce("t", 0, &batch(&["a", "b"])).await;
        for offset in [-1, 3, i64::MAX] {
            let found = kafka.fetch("t", 0, offset, 10_000).await;
            assert_eq!((found.error_code, found.high_watermark, found.log_start_offset), (1, 2, 0), "{offset}");
        }
        let request = fetch(0, 1, &[]).with_session_id(5).with_session_epoch(1);
        assert_eq!(kafka.call(FETCH, &request).await.error_code, 70);
    });
}

#[test]
fn a_partition_of_another_shard_is_served_by_a_crossing() {
    run(Setup { shards: 3, ..Setup::default() }, |client| async move {
        let mut any = Kafka::connect(&client).await;
        any.create("t", 3, &[]).await;
        let (response, topic) = any.metadata("t").await;
        assert_eq!(response.brokers.len(), 3);
        let leaders: Vec<_> = topic.partitions.iter().map(|partition| partition.leader_id).collect();
        assert_eq!(leaders.iter().collect::<std::collections::HashSet<_>>().len(), 3);
        for broker in &response.brokers {
            let mut kafka = Kafka::connect_to(&client, broker.port as u16).await;
            let batch = batch(&["x", "y"]);
            let request = produce(-1, &[("t", &[(0, &batch), (1, &batch), (2, &batch)])]);
            let response = kafka.call(PRODUCE, &request).await;
            assert!(response.responses[0].partition_responses.iter().all(|p| p.error_code == 0), "{response:?}");
            let response = kafka.call(FETCH, &fetch(1000, 1, &[("t", &[(0, 0), (1, 0), (2, 0)])])).await;
            let found: Vec<_> =
                response.responses[0].partitions.iter().map(|p| records(p.records.as_ref().unwrap()).len()).collect();
            assert_eq!(found[0], found[2]);
            assert!(found[0] >= 2);
            assert_eq!(kafka.list_offset("t", 2, -2).await, (0, 0));
        }
        // At the end of another shard's log there is a watch, which a record ends.
        let away = topic.partitions.iter().find(|partition| partition.leader_id != leaders[0]).unwrap();
        let at = response.brokers.iter().find(|broker| broker.node_id == leaders[0]).unwrap();
        let mut kafka = Kafka::connect_to(&client, at.port as u16).await;
        let index = away.partition_index;
        let correlation = kafka.ask(FETCH, &fetch(30_000, 1, &[("t", &[(index, 6)])])).await;
        client.sleep(Duration::from_millis(50)).await;
        let begun = client.reactor.now();
        any.produce("t", index, &batch(&["late"])).await;
        let response = kafka.answer::<FetchRequest>(FETCH, correlation).await;
        assert_eq!(records(response.responses[0].partitions[0].records.as_ref().unwrap()).len(), 1);
        assert!(client.reactor.now().since(begun) < Duration::from_secs(1));
    });
}

#[test]
fn a_server_that_stops_answers_who_waits() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let correlation = kafka.ask(FETCH, &fetch(30_000, 1, &[("t", &[(0, 0)])])).await;
        client.sleep(Duration::from_millis(50)).await;
        let server = client.node.kafka_servers.borrow_mut().remove(0);
        let begun = client.reactor.now();
        server.stop().await;
        assert!(client.reactor.now().since(begun) < Duration::from_secs(2));
        let response = kafka.answer::<FetchRequest>(FETCH, correlation).await;
        assert_eq!(response.responses[0].partitions[0].error_code, 0);
        assert_eq!(kafka.next().await, None);
        // The other dialect goes on.
        let mut native = client.connect().await;
        assert!(matches!(native.call(Operation::Ping, 0, &()).await.response(), Response::Ping));
    });
}

#[test]
fn a_reader_of_a_topic_that_is_made_again_reads_the_new_one() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let (mut reader, mut other) = (Kafka::connect(&client).await, Kafka::connect(&client).await);
        other.create("t", 2, &[]).await;
        for partition in 0..2 {
            other.produce("t", partition, &batch(&["old"])).await;
            assert_eq!(reader.fetch("t", partition, 0, 0).await.error_code, 0);
        }
        let request = kafka_protocol::messages::DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
        assert_eq!(other.call(4, &request).await.responses[0].error_code, 0);
        assert_eq!(reader.fetch("t", 0, 0, 0).await.error_code, 3);
        assert_eq!(other.create("t", 2, &[]).await, 0);
        let mut producer = Kafka::connect(&client).await;
        for partition in 0..2 {
            assert_eq!(producer.produce("t", partition, &batch(&["new"])).await.error_code, 0);
            let found = reader.fetch("t", partition, 0, 1000).await;
            assert_eq!((found.error_code, records(&found.records.unwrap())), (0, vec![(0, b"new".to_vec())]));
        }
    });
}
