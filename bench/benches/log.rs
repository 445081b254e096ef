//! The formats of the record path: a journal entry built and read back, an index looked up, a frame parsed.
//! Run with `cargo bench -p corelog-bench --bench log`.

use corelog_engine::log::frame::{Checksum, Nonce, Sequence};
use corelog_engine::log::index::SparseIndex;
use corelog_engine::log::journal::{AppendSection, EntryHeader, EntryWriter, Expected, JournalPosition, parse};
use corelog_engine::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, Position, Timestamp, TopicId};
use corelog_wire::{Frame, Header, Operation, Request};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use uuid::Uuid;

const ENTRY_BYTES_MAX: usize = 4 << 20;
const HEADER: EntryHeader = EntryHeader {
    nonce: Nonce(7),
    sequence: Sequence(2),
    position: JournalPosition(0),
    previous: Checksum(1),
    durable: Sequence(1),
};

/// A section of so many bytes that are carried in the entry.
fn section(partition: u32, bytes: u64) -> AppendSection {
    let end = Position(bytes);
    AppendSection {
        partition: PartitionId { topic: TopicId(Uuid::from_u128(1)), index: PartitionIndex(partition) },
        segment_base: Offset(0),
        base_offset: Offset(0),
        last_offset: Offset(0),
        inline_from: Position(0),
        start: Position(0),
        direct_from: end,
        direct_to: end,
        end,
        leader_epoch: LeaderEpoch(0),
        max_timestamp: Timestamp(0),
        direct_crc: 0,
    }
}

fn build(out: &mut [u8], partitions: u32, record: &[u8]) -> usize {
    let mut writer = EntryWriter::new(out, HEADER);
    for partition in 0..partitions {
        if let Ok(inline) = writer.append(&section(partition, record.len() as u64)) {
            inline.copy_from_slice(record);
        }
    }
    writer.finish().length
}

fn journal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("journal entry");
    let (record, mut out) = (vec![0x5a; 580], vec![0; ENTRY_BYTES_MAX]);
    for partitions in [1, 64, 1024] {
        let length = build(&mut out, partitions, &record);
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(BenchmarkId::new("build, partitions", partitions), |bencher| {
            bencher.iter(|| build(black_box(&mut out), partitions, &record));
        });
        let EntryHeader { nonce, sequence, position, previous, .. } = HEADER;
        let expected = Expected { nonce, sequence, position, previous };
        group.bench_function(BenchmarkId::new("parse, partitions", partitions), |bencher| {
            bencher.iter(|| parse(black_box(&out[..length]), &expected).map(|entry| entry.sections().count()));
        });
    }
    group.finish();
}

fn index(criterion: &mut Criterion) {
    // A full segment of 1 GiB of batches of 4 KiB.
    let mut index = SparseIndex::new(Offset(0));
    for batch in 0..1 << 18 {
        index.note(Offset(batch), Position(batch as u64 * 4096), Timestamp(batch));
    }
    let mut at = 0_i64;
    criterion.bench_function("index lookup", |bencher| {
        bencher.iter(|| {
            at = (at + 77_777) % (1 << 18);
            index.lookup(black_box(Offset(at)))
        });
    });
}

fn frame(criterion: &mut Criterion) {
    let mut bytes = Vec::new();
    Header::request(Operation::Produce, 7, 1).put(&(), 1024, &mut bytes);
    bytes.resize(bytes.len() + 1024, 0x5a);
    criterion.bench_function("frame parse, produce of 1 KiB", |bencher| {
        bencher.iter(|| {
            let frame = Frame::first(black_box(&bytes), 16 << 20).ok().flatten();
            frame.is_some_and(|frame| Request::decode(&frame).is_ok())
        });
    });
}

criterion_group!(benches, journal, index, frame);
criterion_main!(benches);
