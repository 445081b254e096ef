//! Produce: what is acknowledged is in the log, and responses come in the order of requests.

use crate::harness::*;
use crate::wire::*;
use corelog_batch::{BatchBuilder, Codec};
use kafka_protocol::messages::ProduceRequest;

#[test]
fn every_version_appends() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.create("t", 2, &[]).await, 0);
        for (number, version) in (0..).zip(3..=11) {
            let batch = batch(&["a", "b"]);
            let request = produce(-1, &[("t", &[(0, &batch), (1, &batch), (2, &batch)]), ("none", &[(0, &batch)])]);
            let response = kafka.call(version, &request).await;
            let found: Vec<_> = response
                .responses
                .iter()
                .flat_map(|topic| &topic.partition_responses)
                .map(|partition| (partition.index, partition.error_code, partition.base_offset))
                .collect();
            assert_eq!(found, [(0, 0, number * 2), (1, 0, number * 2), (2, 3, -1), (0, 3, -1)], "{version}");
        }
    });
}

#[test]
fn a_hundred_in_flight_are_answered_in_order() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 3, &[]).await;
        let mut asked = Vec::new();
        for number in 0..100 {
            let batch = batch(&[number.to_string()]);
            let partition = number % 4;
            asked.push((partition, kafka.ask(PRODUCE, &produce(1, &[("t", &[(partition, &batch)])])).await));
        }
        for (number, (partition, correlation)) in (0..).zip(asked) {
            let response = kafka.answer::<ProduceRequest>(PRODUCE, correlation).await;
            let appended = &response.responses[0].partition_responses[0];
            // The fourth partition is none; its refusal waits for those before it.
            let expected = if partition == 3 { (3, -1) } else { (0, number / 4) };
            assert_eq!((appended.error_code, appended.base_offset), expected);
        }
        let found = kafka.fetch("t", 1, 0, 0).await;
        let expected: Vec<_> = (0..25).map(|n| (n, (n * 4 + 1).to_string().into_bytes())).collect();
        assert_eq!(records(&found.records.unwrap()), expected);
    });
}

#[test]
fn without_acks_there_is_no_response_and_a_refusal_ends_the_connection() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let good = batch(&["x"]);
        kafka.ask(PRODUCE, &produce(0, &[("t", &[(0, &good)])])).await;
        assert_eq!(kafka.produce("t", 0, &good).await.base_offset, 1);
        kafka.ask(PRODUCE, &produce(0, &[("t", &[(7, &good)])])).await;
        assert_eq!(kafka.next().await, None);
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 2));
    });
}

#[test]
fn what_is_no_batch_is_refused_alone() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.create("t", 2, &[("max.message.bytes", "4096")]).await, 0);
        let good = batch(&["x"]);
        let mut flipped = good.clone();
        *flipped.last_mut().unwrap() ^= 1;
        let mut old = good.clone();
        old[16] = 1;
        let large = batch(&["y".repeat(5000)]);
        for (bytes, error) in [(&flipped, 2), (&good[..20].to_vec(), 2), (&old, 43), (&large, 10), (&Vec::new(), 87)] {
            let request = produce(-1, &[("t", &[(0, bytes), (1, &good)])]);
            let response = kafka.call(PRODUCE, &request).await;
            let [bad, fine] = response.responses[0].partition_responses.as_slice() else { panic!("{response:?}") };
            assert_eq!((bad.error_code, bad.base_offset, fine.error_code), (error, -1, 0));
            assert!(bad.error_message.is_some());
        }
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 0));
        assert_eq!(kafka.list_offset("t", 1, -1).await, (0, 5));
        let request = produce(2, &[("t", &[(0, &good)])]);
        let response = kafka.call(PRODUCE, &request).await;
        assert_eq!(response.responses[0].partition_responses[0].error_code, 21);
    });
}

#[test]
fn compressed_batches_are_looked_into() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 2, &[]).await;
        for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut builder = BatchBuilder::new(1 << 20, codec);
            for _ in 0..50 {
                builder.append(None, Some(&[7; 100]), &[], 1).unwrap();
            }
            let good = builder.build().unwrap();
            let mut bad = good.clone();
            let last = bad.len() - 8;
            bad[last..].fill(0x55);
            let crc = corelog_batch::crc32c(&bad[21..]);
            bad[17..21].copy_from_slice(&crc.to_be_bytes());
            let request = produce(-1, &[("t", &[(0, &bad), (1, &good)])]);
            let response = kafka.call(PRODUCE, &request).await;
            let [bad, fine] = response.responses[0].partition_responses.as_slice() else { panic!("{response:?}") };
            assert_eq!((bad.error_code, fine.error_code), (87, 0), "{codec:?}: {bad:?}");
        }
        assert_eq!(kafka.list_offset("t", 0, -1).await, (0, 0));
        assert_eq!(kafka.list_offset("t", 1, -1).await, (0, 200));
    });
}

const CODECS: [(Codec, &str); 5] = [
    (Codec::None, "uncompressed"),
    (Codec::Gzip, "gzip"),
    (Codec::Snappy, "snappy"),
    (Codec::Lz4, "lz4"),
    (Codec::Zstd, "zstd"),
];

fn zeros(count: usize, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(8 << 20, codec);
    builder.append(None, Some(&vec![0; count]), &[], 1).unwrap();
    builder.build().unwrap()
}

#[test]
fn a_topic_may_ask_for_another_compression() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.create("as.sent", 1, &[]).await, 0);
        for (codec, name) in CODECS {
            assert_eq!(kafka.create(name, 2, &[("compression.type", name)]).await, 0);
            for (sent, _) in CODECS {
                // One partition lives here, the other at another shard.
                let bytes = [zeros(3000, sent), zeros(10, sent)].concat();
                let request =
                    produce(-1, &[("as.sent", &[(0, &bytes)]), (name, &[(0, &bytes), (1, &bytes), (2, &bytes)])]);
                let response = kafka.call(PRODUCE, &request).await;
                let errors = response.responses.iter().flat_map(|topic| &topic.partition_responses);
                assert_eq!(errors.map(|one| one.error_code).collect::<Vec<_>>(), [0, 0, 0, 3], "{sent} to {name}");
            }
            for partition in 0..2 {
                let stored = kafka.fetch(name, partition, 0, 0).await.records.unwrap();
                let codecs: Vec<_> = corelog_batch::batches(&stored).map(|one| one.unwrap().codec().unwrap()).collect();
                assert_eq!(codecs, [codec; 10], "{name}");
                let lengths: Vec<_> = records(&stored).into_iter().map(|(_, value)| value.len()).collect();
                assert_eq!(lengths, [3000, 10].repeat(5));
            }
        }
        let stored = kafka.fetch("as.sent", 0, 0, 0).await.records.unwrap();
        let codecs: Vec<_> = corelog_batch::batches(&stored).map(|one| one.unwrap().codec().unwrap()).collect();
        let sent: Vec<_> = CODECS.iter().flat_map(|(codec, _)| [zeros(3000, *codec), zeros(10, *codec)]).collect();
        let sent: Vec<_> =
            sent.iter().map(|one| corelog_batch::BatchView::first(one).unwrap().codec().unwrap()).collect();
        assert_eq!(codecs, sent.repeat(5), "what another topic asks for does not matter");
    });
}

#[test]
fn what_grows_when_it_is_compressed_anew_is_bounded() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let settings = [("compression.type", "uncompressed"), ("max.message.bytes", "3145728")];
        assert_eq!(kafka.create("t", 4, &settings).await, 0);
        let (large, small) = (zeros(4 << 20, Codec::Zstd), zeros(5 << 19, Codec::Zstd));
        let refused = kafka.produce("t", 0, &large).await;
        assert_eq!(refused.error_code, 10, "{refused:?}");
        assert!(refused.error_message.unwrap().contains("3145728"));
        // The third one finds no memory left. Sent again without the others, it does.
        let request = produce(-1, &[("t", &[(0, &small), (1, b"junk"), (2, &large), (3, &small)])]);
        let response = kafka.call(PRODUCE, &request).await;
        let errors: Vec<_> = response.responses[0].partition_responses.iter().map(|one| one.error_code).collect();
        assert_eq!(errors, [0, 2, 19, 19]);
        assert_eq!(kafka.produce("t", 3, &small).await.error_code, 0);
        // Batches of one partition that can never go together are refused for good.
        assert_eq!(kafka.produce("t", 3, &small.repeat(2)).await.error_code, 10);
        assert_eq!((kafka.list_offset("t", 0, -1).await, kafka.list_offset("t", 2, -1).await), ((0, 1), (0, 0)));
        // Checked as any other.
        let mut wrong = small.clone();
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(kafka.produce("t", 0, &wrong).await.error_code, 2);
        wrong[17..21].copy_from_slice(&corelog_batch::crc32c(&small[21..]).to_be_bytes());
        let crc = corelog_batch::crc32c(&wrong[21..]);
        wrong[17..21].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(kafka.produce("t", 0, &wrong).await.error_code, 87);
    });
}

#[test]
fn a_topic_may_give_records_their_time() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        assert_eq!(kafka.create("t", 1, &[("message.timestamp.type", "LogAppendTime")]).await, 0);
        assert_eq!(kafka.create("own", 1, &[]).await, 0);
        let kept = kafka.produce("own", 0, &batch(&["a"])).await;
        assert_eq!((kept.error_code, kept.log_append_time_ms, kept.log_start_offset), (0, -1, 0));
        let given = kafka.produce("t", 0, &batch(&["a"])).await;
        assert_eq!((given.error_code, given.log_start_offset), (0, 0));
        let at = given.log_append_time_ms;
        assert!(at > 1, "{given:?}");
        assert_eq!(kafka.list_offset("t", 0, at).await, (0, 0));
        assert_eq!(kafka.list_offset("t", 0, at + 1).await, (0, -1));
    });
}

#[test]
fn times_too_far_from_the_servers_are_refused() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        let settings = [("message.timestamp.before.max.ms", "1000"), ("message.timestamp.after.max.ms", "1000")];
        assert_eq!(kafka.create("t", 1, &settings).await, 0);
        assert_eq!(kafka.create("clock", 1, &[("message.timestamp.type", "LogAppendTime")]).await, 0);
        for codec in [Codec::None, Codec::Zstd] {
            let now = kafka.produce("clock", 0, &batch(&["a"])).await.log_append_time_ms;
            let of = |times: &[i64]| {
                let mut builder = BatchBuilder::new(1 << 20, codec);
                times.iter().for_each(|time| builder.append(None, Some(&[0; 100]), &[], *time).unwrap());
                builder.build().unwrap()
            };
            for (times, error) in [
                (vec![now], 0),
                (vec![now, now - 2000], 32),
                (vec![now + 60_000], 32),
                (vec![now - 2000, now + 60_000], 32),
                (vec![-1], 0),
            ] {
                let answer = kafka.produce("t", 0, &of(&times)).await;
                assert_eq!(answer.error_code, error, "{codec:?} {times:?} at {now}: {answer:?}");
            }
        }
    });
}

#[test]
fn a_topic_that_is_deleted_and_made_again_is_another() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let good = batch(&["x"]);
        assert_eq!(kafka.produce("t", 0, &good).await.error_code, 0);
        let mut other = Kafka::connect(&client).await;
        let request = kafka_protocol::messages::DeleteTopicsRequest::default().with_topic_names(vec![name("t")]);
        assert_eq!(other.call(4, &request).await.responses[0].error_code, 0);
        assert_eq!(kafka.produce("t", 0, &good).await.error_code, 3);
        assert_eq!(other.create("t", 1, &[]).await, 0);
        assert_eq!(kafka.produce("t", 0, &good).await.base_offset, 0);
    });
}
