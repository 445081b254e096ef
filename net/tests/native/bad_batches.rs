//! Batches that may not be stored: each gets its typed answer, nothing of the request is appended, the connection goes on.

use crate::harness::*;
use corelog_wire::*;

/// Where the header's fields are.
const LENGTH: usize = 8;
const MAGIC_BYTE: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const RECORD_COUNT: usize = 57;
const FIRST_RECORD: usize = 61;

/// A batch with a change, and the checksum that goes with it.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut bytes = batch(&["one", "two"]);
    change(&mut bytes);
    let crc = corelog_batch::crc32c(&bytes[ATTRIBUTES..]);
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn put(bytes: &mut [u8], at: usize, value: i32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

#[test]
fn each_is_refused_for_what_is_wrong_with_it() {
    let good = batch(&["one", "two"]);
    let with_crc = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 1;
        bytes
    };
    let cases: Vec<(&str, Vec<u8>, Status, &str)> = vec![
        ("another magic", changed(|b| b[MAGIC_BYTE] = 1), Status::InvalidBatch, "magic 2"),
        ("a flipped bit", with_crc(FIRST_RECORD + 3), Status::CorruptBatch, "checksum"),
        ("a flipped bit of the checksum", with_crc(CRC), Status::CorruptBatch, "checksum"),
        ("a record too many", changed(|b| put(b, RECORD_COUNT, 3)), Status::InvalidBatch, "record count"),
        ("a negative count", changed(|b| put(b, RECORD_COUNT, -1)), Status::InvalidBatch, "record count"),
        ("a last offset that lies", changed(|b| put(b, LAST_OFFSET_DELTA, 5)), Status::InvalidBatch, "offset delta"),
        ("an offset delta that lies", changed(|b| b[FIRST_RECORD + 3] = 2), Status::InvalidBatch, "offset delta"),
        ("an unknown codec", changed(|b| b[ATTRIBUTES + 1] = 7), Status::InvalidBatch, "codec"),
        ("a control batch", changed(|b| b[ATTRIBUTES + 1] = 0x20), Status::InvalidBatch, "control"),
        ("a transactional one", changed(|b| b[ATTRIBUTES + 1] = 0x10), Status::InvalidBatch, "transaction"),
        ("a length over what is there", changed(|b| put(b, LENGTH, 9999)), Status::InvalidBatch, "bytes"),
        ("a negative length", changed(|b| put(b, LENGTH, -1)), Status::InvalidBatch, "bytes"),
        ("no records", empty(), Status::InvalidBatch, "empty"),
        ("no batch", Vec::new(), Status::InvalidBatch, "empty"),
        ("half a header", good[..30].to_vec(), Status::InvalidBatch, "bytes"),
        ("half a batch", good[..good.len() - 1].to_vec(), Status::InvalidBatch, "bytes"),
        ("a good one before a bad one", [&good[..], &with_crc(CRC)].concat(), Status::CorruptBatch, "checksum"),
        ("bytes behind a good one", [&good[..], b"more"].concat(), Status::InvalidBatch, "bytes"),
    ];
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        for (what, bytes, status, word) in cases {
            let refused = wire.produce(handles[0], &bytes).await;
            assert_eq!(refused.status(), status, "{what}: {:?}", refused.failure());
            let message = refused.failure().message.to_string();
            assert!(message.contains(word), "{what}: {message}");
        }
        assert_eq!(wire.put(handles[0], &["first"]).await, 0, "nothing was appended");
    });
}

fn empty() -> Vec<u8> {
    changed(|bytes| {
        bytes.truncate(FIRST_RECORD);
        put(bytes, LENGTH, (FIRST_RECORD - 12) as i32);
        put(bytes, RECORD_COUNT, 0);
        put(bytes, LAST_OFFSET_DELTA, -1);
    })
}

#[test]
fn a_batch_over_the_topics_bound_is_told_the_bound() {
    run_default(|client| async move {
        let mut wire = client.connect().await;
        wire.create("small", 1, &[("max.message.bytes", "2048")]).await;
        let handle = wire.open("small", 0).await;
        let large = batch(&["x".repeat(4000)]);
        let refused = wire.produce(handle, &large).await;
        assert_eq!(refused.status(), Status::BatchTooLarge);
        assert_eq!(refused.failure().detail, Detail::Limit { actual: large.len() as u64, max: 2048 });
        // Several that are each small enough are no large one.
        let many = batch(&["x".repeat(1000)]).repeat(5);
        assert!(
            matches!(wire.produce(handle, &many).await.response(), Response::Produce(p) if (p.base, p.last) == (0, 4))
        );
    });
}
