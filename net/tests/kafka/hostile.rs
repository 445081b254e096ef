//! What is no request ends its connection, and nobody else's.

use crate::harness::*;
use crate::wire::*;
use kafka_protocol::messages::*;
use std::time::Duration;

async fn assert_ends_for(client: &Client, bytes: &[u8]) {
    let mut kafka = Kafka::connect(client).await;
    kafka.wire.send(bytes).await;
    assert_eq!(kafka.next().await, None, "{bytes:?}");
}

#[test]
fn what_is_no_request_ends_its_connection() {
    run_default(|client| async move {
        let mut well = Kafka::connect(&client).await;
        assert_eq!(well.create("t", 1, &[]).await, 0);
        let with = |key: i16, version: i16, body: &'static [u8]| {
            framed(key, version, 1, 1, |frame| frame.extend_from_slice(body))
        };
        for bytes in [
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3, 0],
            vec![0xff; 100],
            [&[0, 0, 0, 7][..], &[0; 20]].concat(),
            [&(100u32 << 20).to_be_bytes()[..], &[0; 20]].concat(),
            with(77, 0, &[]),
            with(ApiKey::Fetch as i16, 3, &[]),
            with(ApiKey::Fetch as i16, 14, &[]),
            with(ApiKey::Produce as i16, 12, &[]),
            with(ApiKey::Metadata as i16, 1, &[0x7f, 0xff, 0xff, 0xff]),
            with(ApiKey::Produce as i16, 3, &[0xff, 0xff, 0, 1, 0, 0, 0, 1, 0x7f, 0xff, 0xff, 0xff]),
        ] {
            assert_ends_for(&client, &bytes).await;
        }
        assert_eq!(well.produce("t", 0, &batch(&["x"])).await.error_code, 0);
        client.assert_server_is_well().await;
    });
}

#[test]
fn what_came_before_is_answered() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let asked = kafka.ask(PRODUCE, &produce(-1, &[("t", &[(0, &batch(&["x"]))])])).await;
        kafka.wire.send(&framed(77, 0, 1, 1, |_| {})).await;
        let response = kafka.answer::<ProduceRequest>(PRODUCE, asked).await;
        assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
        assert_eq!(kafka.next().await, None);
    });
}

#[test]
fn who_says_nothing_is_closed_in_time() {
    run_default(|client| async move {
        let mut silent = Kafka::connect(&client).await;
        let mut speaks = Kafka::connect(&client).await;
        speaks.create("t", 1, &[]).await;
        assert_eq!(silent.next().await, None);
        client.sleep(Duration::from_secs(30)).await;
        assert_eq!(speaks.metadata("t").await.1.error_code, 0);
    });
}

#[test]
fn one_byte_at_a_time_is_enough() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[]).await;
        let request = produce(-1, &[("t", &[(0, &batch(&["x"]))])]);
        use kafka_protocol::protocol::Encodable;
        let frame = framed(0, PRODUCE, 9, 2, |frame| request.encode(frame, PRODUCE).unwrap());
        for byte in frame {
            kafka.wire.send(&[byte]).await;
        }
        let response = kafka.answer::<ProduceRequest>(PRODUCE, 9).await;
        assert_eq!(response.responses[0].partition_responses[0].base_offset, 0);
    });
}
