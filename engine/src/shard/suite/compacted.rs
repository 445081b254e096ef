//! Compaction: what stays, who reads meanwhile, and what a kill leaves.

use super::*;
use crate::model::PartitionId;
use std::collections::BTreeMap;

const COMPACT: &[(&str, &str)] =
    &[("cleanup.policy", "compact"), ("segment.bytes", "65536"), ("min.cleanable.dirty.ratio", "0.01")];
const KEYS: u64 = 20;
const BYTES: usize = 1000;
/// A record without a value, of a key that has none behind it.
const GONE: u64 = 77;

fn keyed(n: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, if n.is_multiple_of(3) { Codec::Lz4 } else { Codec::None });
    let value = numbered(n, BYTES);
    let value = (n != GONE).then_some(&value[..]);
    builder.append(Some(&key_of(n).to_be_bytes()), value, &[], 1000 + n as i64).expect("it fits");
    builder.build().expect("it is not empty")
}

fn key_of(n: u64) -> u64 {
    if n == GONE { GONE } else { n % KEYS }
}

async fn append_keyed(shard: &Shard, to: PartitionHandle, range: std::ops::Range<u64>) {
    let session = Session::new(64);
    for n in range.clone() {
        if n >= range.start + 50 {
            outcome(&session).await.expect("it is durable");
        }
        shard.append(to, &keyed(n), &session, n).expect("it is taken");
    }
    for _ in 0..50.min(range.end - range.start) {
        outcome(&session).await.expect("it is durable");
    }
}

/// Offsets of the records that there are, each checked; and that readers get on from one to the next.
async fn offsets(shard: &Shard, of: PartitionHandle, mut from: Offset, bytes_max: usize) -> Vec<u64> {
    let (mut cursor, mut offsets) = (Cursor::default(), Vec::new());
    loop {
        let mut out = Outgoing::new();
        match shard.read_disk(of, from, bytes_max, &mut cursor, &mut out).await.expect("it is readable") {
            Read::Data { next, .. } => {
                take_keyed(&out.to_vec(), from, &mut offsets);
                from = next;
            }
            Read::End { .. } => return offsets,
            Read::OnDisk => panic!("it never says so"),
        }
    }
}

fn take_keyed(data: &[u8], from: Offset, offsets: &mut Vec<u64>) {
    for batch in batches(data) {
        let batch = batch.expect("whole batches");
        assert_eq!(batch.crc(), batch.computed_crc());
        for record in batch.records(&mut Vec::new(), 1 << 20).expect("records") {
            let record = record.expect("a record");
            let n = record.offset as u64;
            assert_eq!(record.key, Some(&key_of(n).to_be_bytes()[..]));
            assert_eq!(record.value, (n != GONE).then_some(&numbered(n, BYTES)[..]));
            assert_eq!(record.timestamp, 1000 + record.offset);
            if record.offset >= from.0 {
                offsets.push(n);
            }
        }
    }
}

/// The newest offset of each key is there, whatever else is.
fn check_newest(found: &[u64], end: u64) {
    assert!(found.is_sorted());
    let mut newest = BTreeMap::new();
    (0..end).for_each(|n| {
        newest.insert(key_of(n), n);
    });
    for (key, n) in newest {
        assert!(found.binary_search(&n).is_ok(), "the newest record of key {key}, at offset {n}, is there");
    }
}

/// Everything that is sealed was compacted: not more than the active segment and one of each key is there.
async fn until_compacted(shard: &Shard, of: PartitionHandle, end: u64) -> Vec<u64> {
    shard.checkpoint().await.expect("a checkpoint");
    loop {
        let active = {
            let partitions = shard.0.partitions.borrow();
            let partition = partitions.get(of).expect("it is there");
            partition.active.as_ref().map_or(partition.next, |active| active.base)
        };
        let found = offsets(shard, of, Offset(0), 40_000).await;
        check_newest(&found, end);
        if found.len() as u64 <= end - active.0 as u64 + KEYS + 1 {
            return found;
        }
        shard.reactor().sleep(Duration::from_millis(20)).await;
    }
}

pub(super) async fn append_and_compact(shard: Shard) {
    create(&shard, "t", 1, COMPACT).await;
    let to = partition(&shard, "t", 0);
    append_keyed(&shard, to, 0..600).await;
    until_compacted(&shard, to, 600).await;
    assert!(shard.counters().compacted_records.get() > 400);
    check_lookups(&shard, to).await;
}

/// Also behind another pass, over what the one before left.
pub(super) async fn compact_more(shard: Shard) {
    let to = partition(&shard, "t", 0);
    check_newest(&offsets(&shard, to, Offset(0), 40_000).await, 600);
    append_keyed(&shard, to, 600..900).await;
    let found = until_compacted(&shard, to, 900).await;
    assert!(found.contains(&GONE), "the news of it stays for a day");
    check_lookups(&shard, to).await;
}

pub(super) async fn read_compacted(shard: Shard) {
    let to = partition(&shard, "t", 0);
    check_newest(&offsets(&shard, to, Offset(0), 10_000).await, 900);
    check_lookups(&shard, to).await;
    until_compacted(&shard, to, 900).await;
    while segment_files(&shard, to).await > shard.0.partitions.borrow().get(to).expect("it is there").sealed.len() + 1 {
        shard.reactor().sleep(Duration::from_millis(5)).await;
    }
    shard.stop().await;
}

/// From every offset and by every time one gets to the first record that is at or behind it.
async fn check_lookups(shard: &Shard, to: PartitionHandle) {
    let found = offsets(shard, to, Offset(0), 1 << 20).await;
    for from in [0, 1, 19, 20, GONE, 300, 550, 599] {
        let at = |offsets: &[u64]| offsets.iter().copied().find(|n| *n >= from);
        assert_eq!(at(&offsets(shard, to, Offset(from as i64), 2000).await), at(&found), "from offset {from}");
        let by_time =
            shard.list_offset(to, OffsetQuery::At(Timestamp(1000 + from as i64))).await.expect("it is looked up");
        let first = at(&found).expect("there is one behind it");
        assert_eq!(
            by_time,
            Some((Offset(first as i64), Timestamp(1000 + first as i64))),
            "by the time of offset {from}"
        );
    }
}

async fn segment_files(shard: &Shard, of: PartitionHandle) -> usize {
    let id: PartitionId = shard.id_of(of).expect("it is there");
    let directory = paths::partition(&shard.0.config.data_dir, id);
    let entries = shard.reactor().list_dir(&directory).await.expect("it is listed");
    entries.iter().filter(|entry| paths::parse_segment_name(&entry.name).is_some()).count()
}

/// Readers of all kinds go on while segments are written anew under them.
pub(super) async fn read_while_compacting(shard: Shard) {
    create(&shard, "t", 1, COMPACT).await;
    let to = partition(&shard, "t", 0);
    append_keyed(&shard, to, 0..400).await;
    let done = Rc::new(std::cell::Cell::new(false));
    let readers: Vec<_> = [700, 3000, 20_000, 100_000]
        .into_iter()
        .map(|bytes_max| {
            let (shard, done) = (shard.clone(), done.clone());
            let reactor = shard.reactor().clone();
            reactor.spawn(async move {
                let mut rounds = 0;
                while !done.get() || rounds == 0 {
                    let (mut cursor, mut from, mut found) = (Cursor::default(), Offset(0), Vec::new());
                    let end = loop {
                        let mut out = Outgoing::new();
                        match shard.read_disk(to, from, bytes_max, &mut cursor, &mut out).await.expect("it is readable")
                        {
                            Read::Data { next, .. } => {
                                take_keyed(&out.to_vec(), from, &mut found);
                                assert!(next > from, "it gets on");
                                from = next;
                            }
                            Read::End { high_watermark } => break high_watermark,
                            Read::OnDisk => panic!("read_disk never says so"),
                        }
                        shard.reactor().sleep(Duration::from_millis(1)).await;
                    };
                    check_newest(&found, end.0 as u64);
                    rounds += 1;
                }
            })
        })
        .collect();
    for from in [400, 800, 1200] {
        append_keyed(&shard, to, from..from + 400).await;
        until_compacted(&shard, to, from + 400).await;
    }
    done.set(true);
    for reader in readers {
        reader.await;
    }
    let partitions = shard.0.partitions.borrow();
    let partition = partitions.get(to).expect("it is there");
    assert!(partition.rewrites >= 3 && partition.fenced.is_none());
}

/// Records are deleted, and so are segments, while they are compacted; what has no key is refused.
pub(super) async fn delete_while_compacting(shard: Shard) {
    create(&shard, "t", 1, COMPACT).await;
    let to = partition(&shard, "t", 0);
    let refused = shard.append(to, &batch(&[b"no key"], 1), &Session::new(1), 1);
    assert!(matches!(refused, Err(AppendError::Invalid(corelog_batch::BatchError::NoKey { index: 0 }))), "{refused:?}");
    for round in 0..8u64 {
        append_keyed(&shard, to, round * 150..round * 150 + 150).await;
        shard.checkpoint().await.expect("a checkpoint");
        let first = Offset(round as i64 * 130 + 40);
        shard.delete_records(to, first).await.expect("they go");
        shard.reactor().sleep(Duration::from_millis(30)).await;
        let found = offsets(&shard, to, first, 30_000).await;
        assert!(found.iter().all(|n| *n >= first.0 as u64));
        check_newest(&[&(0..first.0 as u64).collect::<Vec<_>>()[..], &found].concat(), round * 150 + 150);
    }
}

/// All of the first segment, when a checkpoint is about to say that another takes its place.
pub(super) async fn delete_what_is_swapped(shard: Shard) {
    create(&shard, "t", 1, COMPACT).await;
    let to = partition(&shard, "t", 0);
    append_keyed(&shard, to, 0..600).await;
    shard.checkpoint().await.expect("a checkpoint");
    let swapped = loop {
        let first = {
            let partitions = shard.0.partitions.borrow();
            let partition = partitions.get(to).expect("it is there");
            partition.swapping.then(|| partition.sealed.front().expect("there are some").next)
        };
        match first {
            Some(next) => break next,
            None => shard.reactor().sleep(Duration::from_micros(100)).await,
        }
    };
    shard.delete_records(to, swapped).await.expect("they go");
    let found = until_gone(&shard, to, swapped).await;
    check_newest(&[&(0..swapped.0 as u64).collect::<Vec<_>>()[..], &found].concat(), 600);
    shard.stop().await;
}

/// What there is when nothing is left of what was deleted, on the disk either.
async fn until_gone(shard: &Shard, to: PartitionHandle, first: Offset) -> Vec<u64> {
    let front =
        || shard.0.partitions.borrow().get(to).and_then(|partition| partition.sealed.front().map(|front| front.next));
    while front().is_some_and(|next| next <= first) {
        shard.checkpoint().await.expect("a checkpoint");
        shard.0.retention.dropped(to);
        shard.reactor().sleep(Duration::from_millis(10)).await;
    }
    offsets(shard, to, first, 30_000).await
}
