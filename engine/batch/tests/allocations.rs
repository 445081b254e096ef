//! Validation is on the produce path, where nothing may allocate.

#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect should end there and then")]

use allocation_counter::measure;
use corelog_batch::{BatchBuilder, Codec, Header, Limits, batches, validate};

const LIMITS: Limits = Limits { batch_bytes_max: 1 << 20 };

fn batch(records: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, Codec::None);
    for record in 0..records {
        let header = Header { key: b"trace", value: Some(b"0123456789") };
        builder.append(Some(b"key"), Some(&vec![7; record]), &[header], 1000).unwrap();
    }
    builder.build().unwrap()
}

#[test]
fn validate_does_not_allocate() {
    let body = [batch(1), batch(100), batch(1000)].concat();
    // The checksum finds out once what the processor can do.
    corelog_batch::crc32c(&body);
    let mut records = 0;
    let counted = measure(|| {
        for batch in batches(&body) {
            records += validate(batch.unwrap().bytes(), LIMITS).unwrap().record_count;
        }
    });
    assert_eq!(records, 1101);
    assert_eq!(counted.count_total, 0);
    assert!(measure(|| drop(std::hint::black_box(batch(1)))).count_total > 0, "the counter counts");
}

#[test]
fn building_into_warm_memory_does_not_allocate() {
    let mut builder = BatchBuilder::new(1 << 20, Codec::None);
    let mut out = Vec::new();
    let mut build = || {
        for _ in 0..100 {
            builder.append(Some(b"key"), Some(b"value"), &[], 1000).unwrap();
        }
        out.clear();
        builder.build_into(&mut out).unwrap();
    };
    build();
    assert_eq!(measure(build).count_total, 0);
}
