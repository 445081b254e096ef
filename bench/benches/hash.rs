//! Which hasher: partitions are found by topic id and number, topics by name. ahash against that of std.
//! Run with `cargo bench -p corelog-bench --bench hash`.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::hint::black_box;

const ENTRIES: u32 = 10_000;

fn lookups<K: Hash + Eq>(criterion: &mut Criterion, what: &str, key: impl Fn(u32) -> K) {
    let mut group = criterion.benchmark_group(format!("look-up by {what} among 10,000"));
    let keys: Vec<K> = (0..ENTRIES).map(&key).collect();
    one(&mut group, "ahash", ahash::RandomState::with_seeds(1, 2, 3, 4), &keys, &key);
    one(&mut group, "std", RandomState::new(), &keys, &key);
    group.finish();
}

fn one<K: Hash + Eq, S: BuildHasher>(
    group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>,
    name: &str,
    hasher: S,
    keys: &[K],
    key: impl Fn(u32) -> K,
) {
    let mut map = HashMap::with_hasher(hasher);
    map.extend((0..ENTRIES).map(|number| (key(number), number)));
    let mut at = 0;
    group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
        bencher.iter(|| {
            at = (at + 7919) % keys.len();
            map.get(black_box(&keys[at])).copied()
        });
    });
}

fn hash(criterion: &mut Criterion) {
    lookups(criterion, "topic id and partition", |number| (u128::from(number) * 0x9e37_79b9_7f4a_7c15, number));
    lookups(criterion, "topic name", |number| format!("service.events.topic-{number}"));
}

criterion_group!(benches, hash);
criterion_main!(benches);
