//! What the check of a produced batch costs: of plain records, of compressed ones, which are unpacked for it, and of plain ones
//! that are compressed because their topic asks for it. Lines of a web server's log, 16 KiB and 1 MiB of them. Run with `cargo bench -p corelog-bench --bench batch`.

use corelog_batch::{BatchBuilder, BatchView, Codec, Limits, Repack, Unpacker, validate};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use std::future::ready;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const LIMITS: Limits = Limits { batch_bytes_max: 16 << 20 };
const UNPACKED_MAX: usize = 128 << 20;

/// A batch of so many bytes before compression.
fn lines(bytes: usize, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(bytes, codec);
    for number in 0_u64.. {
        let noise = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let line = format!(
            "10.{}.{}.{} - - [21/Nov/2026:12:{:02}:{:02} +0000] \"GET /items/{} HTTP/1.1\" 200 {}",
            noise >> 56,
            (noise >> 48) & 255,
            (noise >> 40) & 255,
            number / 60 % 60,
            number % 60,
            noise >> 44,
            noise & 0xffff
        );
        if builder.append(None, Some(line.as_bytes()), &[], 1_700_000_000_000).is_err() {
            break;
        }
    }
    builder.build().unwrap_or_default()
}

fn check(unpacker: &mut Unpacker, batch: &BatchView<'_>) -> bool {
    let checked = pin!(unpacker.check(batch, UNPACKED_MAX, || ready(())));
    matches!(checked.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

fn repack(unpacker: &mut Unpacker, batch: &BatchView<'_>, codec: Codec, out: &mut Vec<u8>) -> bool {
    out.clear();
    let how = Repack { codec, bytes_max: 4 << 20, unpacked_max: UNPACKED_MAX };
    let repacked = pin!(unpacker.repack(batch, &how, out, || ready(())));
    matches!(repacked.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

fn batches(criterion: &mut Criterion) {
    for size in [16 << 10, 1 << 20] {
        let mut group = criterion.benchmark_group(format!("check/{}KiB", size >> 10));
        group.throughput(Throughput::Bytes(size as u64));
        for codec in Codec::ALL {
            let bytes = lines(size, codec);
            let Ok(batch) = BatchView::first(&bytes) else { continue };
            let mut unpacker = Unpacker::default();
            assert!(validate(&bytes, LIMITS).is_ok() && check(&mut unpacker, &batch));
            group.bench_with_input(BenchmarkId::new("header and plain records", codec), &bytes, |bencher, bytes| {
                bencher.iter(|| validate(black_box(bytes), LIMITS).is_ok());
            });
            if codec != Codec::None {
                group.bench_with_input(BenchmarkId::new("compressed records", codec), &batch, |bencher, batch| {
                    bencher.iter(|| check(&mut unpacker, black_box(batch)));
                });
                let (plain, mut out) = (lines(size, Codec::None), Vec::new());
                let Ok(plain) = BatchView::first(&plain) else { continue };
                assert!(repack(&mut unpacker, &plain, codec, &mut out));
                group.bench_with_input(BenchmarkId::new("compressed anew", codec), &plain, |bencher, plain| {
                    bencher.iter(|| repack(&mut unpacker, black_box(plain), codec, &mut out));
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, batches);
criterion_main!(benches);
