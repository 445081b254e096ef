//! Which CRC-32C: every byte that is stored passes through it once. Sizes from a small record to a large batch.
//! Run with `cargo bench -p corelog-bench --bench checksum`.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

fn checksum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("crc32c");
    for size in [64, 512, 1 << 10, 16 << 10, 1 << 20] {
        let bytes = vec![0x5a_u8; size];
        group.throughput(Throughput::Bytes(size as u64));
        group.bench_with_input(BenchmarkId::new("crc-fast", size), &bytes, |bencher, bytes| {
            bencher.iter(|| corelog_batch::crc32c(black_box(bytes)));
        });
        group.bench_with_input(BenchmarkId::new("crc32c", size), &bytes, |bencher, bytes| {
            bencher.iter(|| crc32c::crc32c(black_box(bytes)));
        });
    }
    group.finish();
}

criterion_group!(benches, checksum);
criterion_main!(benches);
