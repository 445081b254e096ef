//! Batches that may not be stored: each gets its typed answer, nothing of the request is appended, the connection goes on.

use crate::harness::*;
use corelog_batch::{BatchBuilder, Codec};
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

/// A compressed batch with a change, and the checksum that goes with it.
fn packed(codec: Codec, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut builder = BatchBuilder::new(16 << 20, codec);
    for value in [[b'x'; 200], [b'y'; 200]] {
        builder.append(None, Some(&value), &[], 1_700_000_000_000).unwrap();
    }
    let mut bytes = builder.build().unwrap();
    assert_eq!(bytes[ATTRIBUTES + 1], codec.code());
    change(&mut bytes);
    let crc = corelog_batch::crc32c(&bytes[ATTRIBUTES..]);
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    bytes
}

fn put_count(bytes: &mut [u8], count: i32) {
    put(bytes, RECORD_COUNT, count);
    put(bytes, LAST_OFFSET_DELTA, count - 1);
}

/// Whoever reads it would not get behind it.
#[test]
fn compressed_ones_are_looked_into() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 2).await;
        for codec in Codec::ALL.into_iter().skip(1) {
            let bomb = |mebibytes: usize| {
                let mut builder = BatchBuilder::new(200 << 20, codec);
                builder.append(None, Some(&vec![0; mebibytes << 20]), &[], 1_700_000_000_000).unwrap();
                builder.build().unwrap()
            };
            let cases = [
                ("a record too many", packed(codec, |b| put_count(b, 3)), Status::InvalidBatch, "record 2 lies"),
                ("one too few", packed(codec, |b| put_count(b, 1)), Status::InvalidBatch, "left behind"),
                ("a payload cut short", packed(codec, |b| cut(b, 20)), Status::InvalidBatch, codec.name()),
                ("no payload", packed(codec, |b| cut(b, 61)), Status::InvalidBatch, ""),
                ("a wrong checksum", flipped(packed(codec, |_| ())), Status::CorruptBatch, "checksum"),
                ("more than may be unpacked", bomb(130), Status::InvalidBatch, "134217728 bytes once decompressed"),
                ("more together", bomb(70).repeat(2), Status::InvalidBatch, "bytes once decompressed"),
            ];
            // Here, and at another shard.
            for handle in &handles {
                for (what, bytes, status, word) in &cases {
                    let refused = wire.produce(*handle, bytes).await;
                    assert_eq!(refused.status(), *status, "{codec}: {what}: {:?}", refused.failure());
                    let message = refused.failure().message.to_string();
                    assert!(message.contains(word) || *what == "a payload cut short", "{codec}: {what}: {message}");
                }
                let two = packed(codec, |_| ()).repeat(2);
                assert!(matches!(wire.produce(*handle, &two).await.response(), Response::Produce(_)), "{codec}");
            }
        }
        let next = wire.put(handles[0], &["next"]).await;
        assert_eq!(next, 4 * 4, "nothing of the refused was appended");
    });
}

fn cut(bytes: &mut Vec<u8>, count: usize) {
    bytes.truncate((bytes.len() - count).max(FIRST_RECORD));
    let length = (bytes.len() - 12) as i32;
    put(bytes, LENGTH, length);
}

fn flipped(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes[CRC] ^= 1;
    bytes
}

/// Those that come while one is unpacked get their turn, also when there are more behind them on their connection.
#[test]
fn large_ones_are_unpacked_in_turns() {
    run_default(|client| async move {
        client.with_topic("t", 1).await;
        let large = {
            let mut builder = BatchBuilder::new(64 << 20, Codec::Zstd);
            builder.append(None, Some(&vec![0; 50 << 20]), &[], 1_700_000_000_000).unwrap();
            builder.build().unwrap()
        };
        let mut packers = Vec::new();
        for _ in 0..3 {
            let mut wire = client.connect().await;
            let handle = wire.open("t", 0).await;
            for _ in 0..3 {
                wire.ask_produce(handle, 0, &large).await;
            }
            packers.push(wire);
        }
        let mut bases = Vec::new();
        for wire in &mut packers {
            for _ in 0..3 {
                let Response::Produce(produced) = wire.next().await.unwrap().response() else { panic!("refused") };
                bases.push(produced.base);
            }
        }
        bases.sort();
        assert_eq!(bases, (0..9).collect::<Vec<_>>());
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
