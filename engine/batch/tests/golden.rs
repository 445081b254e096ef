//! One batch written out by hand from the published format, byte by byte, and every way it can be wrong.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect should end there and then")]

use corelog_batch::{BatchBuilder, BatchError, BatchView, Codec, Header, Limits, crc32c, validate};

const LIMITS: Limits = Limits { batch_bytes_max: 1 << 20 };

#[rustfmt::skip]
const GOLDEN: [u8; 80] = [
    0, 0, 0, 0, 0, 0, 0, 0,                         // base offset
    0, 0, 0, 68,                                    // 80 bytes less the 12 up to here
    0xff, 0xff, 0xff, 0xff,                         // leader epoch: not stamped
    2,                                              // magic
    0x64, 0x51, 0xdc, 0x55,                         // CRC-32C, by a bitwise one elsewhere
    0, 0,                                           // attributes
    0, 0, 0, 1,                                     // last offset delta
    0, 0, 0, 0, 0, 0, 0x03, 0xe8,                   // base timestamp 1000
    0, 0, 0, 0, 0, 0, 0x03, 0xea,                   // max timestamp 1002
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, // producer id
    0xff, 0xff,                                     // producer epoch
    0xff, 0xff, 0xff, 0xff,                         // base sequence
    0, 0, 0, 2,                                     // records
    // length 8, attributes, timestamp +0, offset +0, key of 1, value of 1, no header
    0x10, 0, 0, 0, 2, b'k', 2, b'v', 0,
    // length 9, attributes, timestamp +2, offset +1, key null, value empty, one header: key of 1, value null
    0x12, 0, 4, 2, 1, 0, 2, 2, b'h', 1,
];

/// The golden batch with `bytes` at `at` and a checksum that agrees.
fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = GOLDEN.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    summed(batch)
}

fn summed(mut batch: Vec<u8>) -> Vec<u8> {
    let length = batch.len() as u32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

#[track_caller]
fn refused(batch: &[u8], because: BatchError) {
    assert_eq!(validate(batch, LIMITS), Err(because));
}

#[test]
fn the_builder_writes_it() {
    let mut builder = BatchBuilder::new(80, Codec::None);
    builder.append(Some(b"k"), Some(b"v"), &[], 1000).unwrap();
    builder.append(None, Some(b""), &[Header { key: b"h", value: None }], 1002).unwrap();
    assert_eq!(builder.size(), 80);
    assert_eq!(builder.build().unwrap(), GOLDEN);
    assert!(builder.is_empty());
}

#[test]
fn the_view_reads_it() {
    let batch = BatchView::first(&GOLDEN).unwrap();
    assert_eq!((batch.base_offset(), batch.last_offset(), batch.next_offset()), (0, 1, 2));
    assert_eq!((batch.leader_epoch(), batch.crc(), batch.attributes()), (-1, 0x6451_dc55, 0));
    assert_eq!((batch.base_timestamp(), batch.max_timestamp()), (1000, 1002));
    assert_eq!((batch.producer_id(), batch.producer_epoch(), batch.base_sequence()), (-1, -1, -1));
    assert_eq!((batch.record_count(), batch.last_offset_delta()), (2, 1));
    let mut scratch = Vec::new();
    let records = batch.records(&mut scratch, 0).unwrap().map(Result::unwrap).collect::<Vec<_>>();
    assert_eq!((records[0].offset, records[0].timestamp), (0, 1000));
    assert_eq!((records[0].key, records[0].value, records[0].headers.len()), (Some(&b"k"[..]), Some(&b"v"[..]), 0));
    assert_eq!((records[1].offset, records[1].timestamp), (1, 1002));
    assert_eq!((records[1].key, records[1].value), (None, Some(&b""[..])));
    assert_eq!(records[1].headers.collect::<Vec<_>>(), [Header { key: b"h", value: None }]);
}

#[test]
fn it_is_valid_also_once_stamped() {
    let summary = validate(&GOLDEN, LIMITS).unwrap();
    assert_eq!((summary.record_count, summary.max_timestamp, summary.length), (2, 1002, 80));
    let stamped = BatchView::first(&GOLDEN).unwrap().stamped(7_000_000_000, 3);
    let stored = [&stamped, &GOLDEN[16..]].concat();
    assert!(validate(&stored, LIMITS).is_ok());
    let batch = BatchView::first(&stored).unwrap();
    assert_eq!((batch.base_offset(), batch.next_offset(), batch.leader_epoch()), (7_000_000_000, 7_000_000_002, 3));
}

#[test]
fn frames_that_lie() {
    refused(&GOLDEN[..60], BatchError::TooShort { have: 60 });
    refused(&GOLDEN[..79], BatchError::LengthLies { declared: 68, have: 67 });
    refused(&[&GOLDEN[..], &[0; 5]].concat(), BatchError::TrailingBytes { bytes: 5 });
    for declared in [48, 0, -1, i32::MIN, i32::MAX] {
        let mut batch = GOLDEN;
        batch[8..12].copy_from_slice(&declared.to_be_bytes());
        refused(&batch, BatchError::LengthLies { declared, have: 68 });
    }
    refused(&with(16, &[1]), BatchError::WrongMagic { found: 1 });
    let tight = Limits { batch_bytes_max: 79 };
    assert_eq!(validate(&GOLDEN, tight), Err(BatchError::TooLarge { size: 80, max: 79 }));
    assert!(matches!(
        validate(&[GOLDEN[..79].to_vec(), vec![9]].concat(), LIMITS),
        Err(BatchError::CrcMismatch { .. })
    ));
}

#[test]
fn attributes_a_producer_may_not_set() {
    refused(&with(22, &[5]), BatchError::UnknownCodec { code: 5 });
    refused(&with(22, &[0x10]), BatchError::Transactional);
    refused(&with(22, &[0x20]), BatchError::ControlBatch);
    refused(&with(22, &[0x30]), BatchError::ControlBatch);
    refused(&with(22, &[0x08]), BatchError::ForbiddenAttributes { bits: 0x08 });
    refused(&with(22, &[0x40]), BatchError::ForbiddenAttributes { bits: 0x40 });
    refused(&with(21, &[0x80]), BatchError::ForbiddenAttributes { bits: 0x8000 });
    refused(&with(43, &7_i64.to_be_bytes()), BatchError::ProducerId { producer_id: 7, epoch: -1, sequence: -1 });
    refused(&with(43, &(-2_i64).to_be_bytes()), BatchError::ProducerId { producer_id: -2, epoch: -1, sequence: -1 });
}

#[test]
fn counts_that_lie() {
    refused(&with(57, &(-2_i32).to_be_bytes()), BatchError::NegativeCount { count: -2 });
    refused(&with(57, &[0; 4]), BatchError::Empty);
    refused(&with(57, &3_i32.to_be_bytes()), BatchError::CountLies { count: 3, last_offset_delta: 1 });
    refused(&with(23, &2_i32.to_be_bytes()), BatchError::CountLies { count: 2, last_offset_delta: 2 });
    let one_more = [&1_i32.to_be_bytes()[..], &GOLDEN[27..57], &2_i32.to_be_bytes()].concat();
    assert_eq!(with(23, &one_more), GOLDEN);
    let three = [&2_i32.to_be_bytes()[..], &GOLDEN[27..57], &3_i32.to_be_bytes()].concat();
    refused(&with(23, &three), BatchError::RecordLies { index: 2 });
    let one = [&0_i32.to_be_bytes()[..], &GOLDEN[27..57], &1_i32.to_be_bytes()].concat();
    refused(&with(23, &one), BatchError::TrailingBytes { bytes: 10 });
}

#[test]
fn records_that_lie() {
    refused(&with(64, &[2]), BatchError::OffsetDelta { index: 0, delta: 1 });
    refused(&with(73, &[4]), BatchError::OffsetDelta { index: 1, delta: 2 });
    refused(&with(61, &[0x0e]), BatchError::RecordLies { index: 0 });
    refused(&with(61, &[0x01]), BatchError::RecordLies { index: 0 });
    refused(&with(65, &[0x03]), BatchError::RecordLies { index: 0 }); // key length -2
    refused(&with(65, &[0x20]), BatchError::RecordLies { index: 0 });
    refused(&with(69, &[0x02]), BatchError::RecordLies { index: 0 }); // a header that is not there
    refused(&with(77, &[0x01]), BatchError::RecordLies { index: 1 }); // a null header key
    refused(&summed([&GOLDEN[..], &[0]].concat()), BatchError::TrailingBytes { bytes: 1 });
    refused(&summed(GOLDEN[..79].to_vec()), BatchError::RecordLies { index: 1 });
}

#[test]
fn timestamps_that_lie() {
    refused(&with(27, &(-2_i64).to_be_bytes()), BatchError::NegativeTimestamp { timestamp: -2 });
    refused(&with(35, &i64::MIN.to_be_bytes()), BatchError::NegativeTimestamp { timestamp: i64::MIN });
    refused(&with(35, &1001_i64.to_be_bytes()), BatchError::MaxTimestampLies { declared: 1001, found: 1002 });
    refused(&with(27, &i64::MAX.to_be_bytes()), BatchError::MaxTimestampLies { declared: 1002, found: i64::MAX });
    let none = with(27, &[[0xff; 8], [0; 8]].concat());
    assert_eq!(validate(&none, LIMITS), Err(BatchError::MaxTimestampLies { declared: 0, found: 1 }));
}

#[test]
fn compressed_batches_are_checked_by_their_header() {
    let mut batch = with(22, &[Codec::Zstd.code()]);
    assert_eq!(validate(&batch, LIMITS).unwrap().codec, Codec::Zstd);
    batch.truncate(61);
    refused(&summed(batch), BatchError::RecordLies { index: 0 });
}
