//! Readers behind the tail that are given pieces of files.

use super::*;
use crate::limits::{BACKGROUND_BYTES, PIPES_MAX};
use crate::reactor::Stream;
use std::net::Ipv4Addr;
use std::ops::Range;

const RECORDS: Range<u64> = 0..600;
pub(super) const BYTES: usize = 8000;

/// A connection to itself.
struct Loop {
    near: Stream,
    far: Stream,
}

impl Loop {
    async fn new(shard: &Shard) -> Loop {
        let listener = shard.reactor().listen((Ipv4Addr::LOCALHOST, 0).into()).await.expect("a listener");
        let near = shard.reactor().connect(listener.local_addr()).await.expect("a connection");
        let (far, _) = listener.accept().await.expect("a connection");
        Loop { near, far }
    }

    /// What arrives of what is sent.
    async fn pass(&self, shard: &Shard, out: Outgoing) -> Vec<u8> {
        let (length, near) = (out.len(), self.near.clone());
        let sending = shard.reactor().spawn(async move { near.send(out).await.0 });
        let mut data = Vec::new();
        while data.len() < length {
            data.extend_from_slice(&self.far.receive().await.expect("it goes on").expect("it goes on"));
        }
        sending.await.expect("it was sent");
        assert_eq!(data.len(), length);
        data
    }

    /// Reads from an offset to the end as a client does: the values, and how many bytes were spliced.
    async fn read(&self, shard: &Shard, of: PartitionHandle, mut from: Offset) -> (Vec<Vec<u8>>, u64) {
        let (mut cursor, mut values) = (Cursor::default(), Vec::new());
        let before = shard.counters().read_splice_bytes.get();
        loop {
            let mut out = Outgoing::new();
            match shard.read_to_send(of, from, 300_000, &mut cursor, &mut out).await.expect("it is readable") {
                Read::Data { next, bytes, .. } => {
                    assert!(out.len() == bytes && bytes <= 300_000);
                    take_values(&self.pass(shard, out).await, &mut from, &mut values);
                    assert_eq!(from, next);
                }
                Read::End { .. } => return (values, shard.counters().read_splice_bytes.get() - before),
                Read::OnDisk => panic!("read_to_send never says so"),
            }
        }
    }
}

/// A reader who has been sent the first records of the log, and now a piece of a file that goes on to an offset.
async fn one_piece(shard: &Shard, of: PartitionHandle, out: &mut Outgoing) -> (Cursor, Offset, Offset) {
    let mut cursor = Cursor::default();
    let read = shard.read_to_send(of, Offset(0), 200_000, &mut cursor, out).await;
    let Ok(Read::Data { mut next, .. }) = read else { panic!("{read:?}") };
    loop {
        out.clear();
        let (from, read) = (next, shard.read_to_send(of, next, 200_000, &mut cursor, out).await);
        let Ok(Read::Data { next: to, .. }) = read else { panic!("{read:?}") };
        if out.pieces().is_empty() {
            return (cursor, from, to);
        }
        next = to;
    }
}

pub(super) async fn append_segments(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "2097152")]).await;
    append_range(&shard, partition(&shard, "t", 0), RECORDS, BYTES).await;
    shard.stop().await;
}

pub(super) async fn read_spliced(shard: Shard) {
    let (of, wire) = (partition(&shard, "t", 0), Loop::new(&shard).await);
    let (values, spliced) = wire.read(&shard, of, Offset(0)).await;
    assert!(values.iter().zip(RECORDS).all(|(value, n)| *value == numbered(n, BYTES)));
    assert_eq!(values.len() as u64, RECORDS.end);
    let all = shard.counters().read_bytes.get();
    assert!(spliced > all / 10 * 9, "{spliced} of {all}: all but the first of it");
    let by_path = [&shard.counters().read_memory_bytes, &shard.counters().read_direct_bytes];
    assert_eq!(by_path.map(|bytes| bytes.get()).iter().sum::<u64>() + spliced, all);
    assert_eq!(shard.reactor().counters().pipes.get(), 0, "they end with their readers");
}

pub(super) async fn splice_beside_commits(shard: Shard) {
    let (of, mut out) = (partition(&shard, "t", 0), Outgoing::new());
    append_range(&shard, of, RECORDS.end..RECORDS.end + 1, BYTES).await;
    one_piece(&shard, of, &mut out).await;
    assert!(out.len() <= BACKGROUND_BYTES, "{} bytes: not more than a turn", out.len());
    shard.reactor().sleep(Duration::from_millis(1100)).await;
    one_piece(&shard, of, &mut out).await;
    assert!(out.len() > BACKGROUND_BYTES, "{} bytes: nobody waits", out.len());
}

pub(super) async fn splice_to_so_many(shard: Shard) {
    let (of, wire, mut pipes) = (partition(&shard, "t", 0), Loop::new(&shard).await, Vec::new());
    for _ in 0..PIPES_MAX {
        pipes.push(shard.reactor().pipe().await.expect("a pipe"));
    }
    let (values, spliced) = wire.read(&shard, of, Offset(0)).await;
    assert_eq!((values.len() as u64, spliced), (RECORDS.end, 0));
    pipes.pop();
    assert!(wire.read(&shard, of, Offset(0)).await.1 > 0);
}

/// Retired files are written again by other segments, and a piece of one may still wait for its client.
pub(super) async fn drop_what_is_on_its_way(shard: Shard) {
    let (of, wire, mut out) = (partition(&shard, "t", 0), Loop::new(&shard).await, Outgoing::new());
    let (cursor, mut from, to) = one_piece(&shard, of, &mut out).await;
    let path = paths::segment(&shard.0.config.data_dir, shard.id_of(of).expect("it is there"), Offset(0));
    assert_eq!(shard.delete_records(of, Offset(RECORDS.end as i64)).await, Ok(Offset(RECORDS.end as i64)));
    while shard.reactor().open(&path, Open::Read).await.is_ok() {
        shard.checkpoint().await.expect("a checkpoint");
        shard.0.retention.dropped(of);
        shard.reactor().sleep(Duration::from_millis(5)).await;
    }
    append_range(&shard, of, RECORDS.end..2 * RECORDS.end, BYTES).await;
    shard.checkpoint().await.expect("a checkpoint");
    let (first, mut values) = (from.0 as u64, Vec::new());
    take_values(&wire.pass(&shard, out).await, &mut from, &mut values);
    assert_eq!(from, to);
    assert!(values.iter().zip(first..).all(|(value, n)| *value == numbered(n, BYTES)));
    drop(cursor);
    assert_eq!(shard.reactor().counters().pipes.get(), 0);
}

/// Nobody looks at a piece on its way: its client does, and asks again.
pub(super) async fn ask_again_for_what_is_damaged(shard: Shard) {
    let (of, wire, mut out) = (partition(&shard, "t", 0), Loop::new(&shard).await, Outgoing::new());
    let path = paths::segment(&shard.0.config.data_dir, shard.id_of(of).expect("it is there"), Offset(0));
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    let at = 150_000 / BLOCK * BLOCK;
    let (read, mut block) = file.read_at(at, shard.reactor().pool().buffer(BLOCK as usize).expect("a buffer")).await;
    read.expect("a block");
    block[2000] ^= 1;
    file.write_at(at, block.freeze(), WriteSync::None).await.expect("written");
    let (mut cursor, from, _) = one_piece(&shard, of, &mut out).await;
    let data = wire.pass(&shard, out).await;
    let whole = batches(&data).flatten().take_while(|batch| batch.crc() == batch.computed_crc()).count();
    let damaged = from.plus(whole as u32);
    assert!(batches(&data).flatten().count() > whole, "the piece has the damage in it");
    assert_eq!(shard.describe(of).expect("it is there").fenced, None);
    let read = shard.read_to_send(of, damaged, 300_000, &mut cursor, &mut Outgoing::new()).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "{read:?}");
}
