//! Producers that number their batches: a batch that comes again is in the log once, and none overtakes another.

use crate::harness::*;
use crate::wire::*;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{
    DescribeProducersRequest, InitProducerIdRequest, InitProducerIdResponse, ProduceRequest, TransactionalId,
};

const OUT_OF_ORDER: i16 = 45;
const OLD_EPOCH: i16 = 47;

fn numbered(producer: i64, epoch: i16, sequence: i32, values: &[&str]) -> Vec<u8> {
    let mut batch = batch(values);
    corelog_batch::number(&mut batch, producer, epoch, sequence).unwrap();
    batch
}

async fn init(kafka: &mut Kafka, version: i16) -> InitProducerIdResponse {
    kafka.call(version, &InitProducerIdRequest::default().with_transactional_id(None)).await
}

#[test]
fn every_version_draws_an_id_of_its_own() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let mut drawn = Vec::new();
        for version in 0..=4 {
            let response = init(&mut kafka, version).await;
            assert_eq!((response.error_code, response.producer_epoch), (0, 0));
            assert!(response.producer_id.0 >= 0);
            drawn.push(response.producer_id.0);
        }
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn.len(), 5);
        let transactional = Some(TransactionalId(string("orders")));
        let request = InitProducerIdRequest::default().with_transactional_id(transactional);
        let response = kafka.call(4, &request).await;
        assert_eq!((response.error_code, response.producer_id.0), (53, -1), "there are no transactions");
    });
}

#[test]
fn what_comes_again_has_the_offset_that_it_had() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        let id = init(&mut kafka, 4).await.producer_id.0;
        let sent = [numbered(id, 0, 0, &["a", "b"]), numbered(id, 0, 2, &["c"]), numbered(id, 0, 3, &["d", "e"])];
        for (batch, base) in sent.iter().zip([0, 2, 3]) {
            assert_eq!(kafka.produce("t", 1, batch).await.base_offset, base);
        }
        for (batch, base) in sent.iter().zip([0, 2, 3]) {
            let again = kafka.produce("t", 1, batch).await;
            assert_eq!((again.error_code, again.base_offset), (0, base));
        }
        let refused = kafka.produce("t", 1, &numbered(id, 0, 6, &["g"])).await;
        assert_eq!(refused.error_code, OUT_OF_ORDER, "f is missing");
        assert_eq!(
            refused.error_message.as_deref(),
            Some(&*format!("producer {id} sent sequence 6 where 5 comes next"))
        );
        assert_eq!(kafka.produce("t", 1, &numbered(id, 1, 0, &["f"])).await.base_offset, 5, "another epoch");
        assert_eq!(kafka.produce("t", 1, &sent[2]).await.error_code, OLD_EPOCH);
        let found = kafka.fetch("t", 1, 0, 0).await;
        let values: Vec<_> = records(&found.records.unwrap()).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["a", "b", "c", "d", "e", "f"].map(|value| value.as_bytes().to_vec()));
        assert_eq!(kafka.produce("t", 0, &numbered(id, 0, 0, &["x"])).await.base_offset, 0, "each partition by itself");
    });
}

/// Sent again before the first is answered, as after a lost connection; both are answered when the records are durable.
#[test]
fn what_comes_again_at_once_is_answered_with_the_first() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let batches = [numbered(7, 0, 0, &["a"]), numbered(7, 0, 1, &["b"]), numbered(7, 0, 0, &["a"])];
        let mut asked = Vec::new();
        for batch in &batches {
            asked.push(kafka.ask(PRODUCE, &produce(-1, &[("t", &[(0, batch)])])).await);
        }
        for (correlation, base) in asked.into_iter().zip([0, 1, 0]) {
            let response = kafka.answer::<ProduceRequest>(PRODUCE, correlation).await;
            let appended = &response.responses[0].partition_responses[0];
            assert_eq!((appended.error_code, appended.base_offset), (0, base));
        }
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 2));
    });
}

#[test]
fn numbered_batches_come_alone_and_with_numbers_that_can_be() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let two = [numbered(7, 0, 0, &["a"]), numbered(7, 0, 1, &["b"])].concat();
        assert_eq!(kafka.produce("t", 0, &two).await.error_code, 87);
        assert_eq!(kafka.produce("t", 0, &numbered(7, -1, 0, &["a"])).await.error_code, 87);
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 0));
    });
}

#[test]
fn who_numbers_batches_is_described() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        kafka.produce("t", 1, &numbered(7, 3, 0, &["a", "b"])).await;
        kafka.produce("t", 1, &numbered(9, 0, i32::MAX, &["c", "d"])).await;
        let topic = TopicRequest::default().with_name(name("t")).with_partition_indexes(vec![0, 1, 2]);
        let response = kafka.call(0, &DescribeProducersRequest::default().with_topics(vec![topic])).await;
        let partitions = &response.topics[0].partitions;
        assert_eq!(partitions.iter().map(|partition| partition.error_code).collect::<Vec<_>>(), [0, 0, 3]);
        assert!(partitions[0].active_producers.is_empty());
        let found: Vec<_> = partitions[1]
            .active_producers
            .iter()
            .map(|producer| (producer.producer_id.0, producer.producer_epoch, producer.last_sequence))
            .collect();
        assert_eq!(found, [(7, 3, 1), (9, 0, 0)]);
    });
}
