//! What a reactor promises, as one suite that every driver must pass.
//!
//! A case is an async function of a reactor and a directory of its own. Nothing here knows which driver it runs on.

use super::mesh::MeshHandle;
use super::{File, FileRange, Listener, Open, Outgoing, Reactor, Slice, Stream, Task, WriteSync};
use crate::model::ShardId;
use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

/// A case on one shard: its name and what runs.
pub(crate) type Case = (&'static str, fn(Reactor, PathBuf) -> Pin<Box<dyn Future<Output = ()>>>);
/// A case that runs on every shard of a node at once; the mesh's rings hold [`MESH_CAPACITY`] messages.
pub(crate) type ShardsCase = (&'static str, fn(Reactor, MeshHandle<u64>) -> Pin<Box<dyn Future<Output = ()>>>);

pub(crate) const MESH_CAPACITY: usize = 64;
/// Bytes of the pool that cases need.
pub(crate) const POOL: usize = 32 << 20;

macro_rules! cases {
    ($($case:ident),* $(,)?) => { &[$((stringify!($case), |a, b| Box::pin($case(a, b)))),*] };
}

pub(crate) const CASES: &[Case] = cases![
    what_is_written_is_read,
    a_read_past_the_end_is_short,
    large_files_come_back_whole,
    open_does_what_it_is_told,
    allocated_space_reads_as_zeros,
    truncate_sets_the_length,
    names_come_and_go,
    directories_are_listed_by_name,
    syncs_and_space,
    a_lock_has_one_holder,
    writes_side_by_side_all_land,
    dropped_disk_operations_leave_nothing_behind,
    an_echo_comes_back,
    a_large_transfer_arrives_whole,
    the_end_of_a_stream_is_seen_and_stays,
    what_was_sent_before_the_end_arrives,
    shutdown_ends_both_directions,
    nobody_listening_refuses,
    a_dropped_receive_loses_nothing,
    a_slow_receiver_gets_everything,
    a_dropped_send_shuts_the_stream_down,
    pieces_of_files_are_sent_between_slices,
    what_is_written_past_the_cache_is_sent,
    a_piece_beyond_the_file_spoils_its_pipe,
    a_slow_receiver_gets_whole_files,
    a_dropped_splice_shuts_the_stream_down,
    many_connections_at_once,
    a_dropped_accept_loses_no_connection,
    sleeps_end_in_order,
    time_goes_on,
    dropping_a_task_drops_its_future,
    a_detached_task_runs_on,
    yielding_lets_others_run,
    buffers_all_return,
];

pub(crate) const SHARDS_CASES: &[ShardsCase] =
    cases![messages_keep_their_order, a_full_ring_gives_the_message_back, a_sleeping_shard_is_woken];

// Files ---------------------------------------------------------------------------------------------------------------

/// `blocks` blocks, each filled with its number and `salt`.
fn pattern(reactor: &Reactor, first: u64, blocks: usize, salt: u8) -> Slice {
    let mut buffer = reactor.pool().buffer(blocks * 4096).unwrap();
    for (index, block) in buffer.chunks_mut(4096).enumerate() {
        block.fill(salt.wrapping_add((first + index as u64) as u8));
        block[..8].copy_from_slice(&(first + index as u64).to_le_bytes());
    }
    buffer.freeze()
}

async fn assert_pattern(reactor: &Reactor, file: &File, first: u64, blocks: usize, salt: u8) {
    let (read, buffer) = file.read_at(first * 4096, reactor.pool().buffer(blocks * 4096).unwrap()).await;
    assert_eq!(read.unwrap(), blocks * 4096);
    assert!(*buffer == *pattern(reactor, first, blocks, salt), "blocks {first}.. differ");
}

async fn what_is_written_is_read(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    for (first, sync) in [(0, WriteSync::None), (3, WriteSync::Data), (1, WriteSync::None)] {
        file.write_at(first * 4096, pattern(&reactor, first, 2, 7), sync).await.unwrap();
    }
    file.sync_data().await.unwrap();
    assert_pattern(&reactor, &file, 0, 5, 7).await;
    assert_eq!(file.length().await.unwrap(), 5 * 4096);
    let again = reactor.open(&dir.join("file"), Open::Read).await.unwrap();
    assert_pattern(&reactor, &again, 0, 5, 7).await;
    assert!(reactor.counters().flushes.get() >= 2);
    assert_eq!(reactor.counters().bytes_written.get(), 6 * 4096);
}

async fn a_read_past_the_end_is_short(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 3, 1), WriteSync::None).await.unwrap();
    for (position, expected) in [(0, 3 * 4096), (2 * 4096, 4096), (3 * 4096, 0), (100 * 4096, 0)] {
        let (read, buffer) = file.read_at(position, reactor.pool().buffer(4 * 4096).unwrap()).await;
        assert_eq!(read.unwrap(), expected);
        assert_eq!(buffer.len(), 4 * 4096);
    }
}

async fn large_files_come_back_whole(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 1024, 3), WriteSync::None).await.unwrap();
    assert_pattern(&reactor, &file, 0, 1024, 3).await;
    // From the middle of a shared block of memory.
    let data = pattern(&reactor, 1022, 4, 9);
    file.write_at(1024 * 4096, data.slice(2 * 4096..4 * 4096), WriteSync::Data).await.unwrap();
    assert_pattern(&reactor, &file, 1024, 2, 9).await;
}

async fn open_does_what_it_is_told(reactor: Reactor, dir: PathBuf) {
    let path = dir.join("file");
    for how in [Open::Read, Open::ReadWrite] {
        assert_eq!(reactor.open(&path, how).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }
    let file = reactor.open(&path, Open::Create).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 1, 5), WriteSync::None).await.unwrap();
    assert_eq!(reactor.open(&path, Open::CreateNew).await.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    for how in [Open::Read, Open::ReadWrite, Open::Create] {
        assert_pattern(&reactor, &reactor.open(&path, how).await.unwrap(), 0, 1, 5).await;
    }
    let read_only = reactor.open(&path, Open::Read).await.unwrap();
    assert!(read_only.write_at(0, pattern(&reactor, 0, 1, 6), WriteSync::None).await.is_err());
    let missing = reactor.open(&dir.join("missing").join("file"), Open::Create).await;
    assert_eq!(missing.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn allocated_space_reads_as_zeros(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 1, 5), WriteSync::None).await.unwrap();
    file.allocate(0, 256 << 10).await.unwrap();
    assert_eq!(file.length().await.unwrap(), 256 << 10);
    assert!(file.allocated().await.unwrap() >= 256 << 10);
    assert_pattern(&reactor, &file, 0, 1, 5).await;
    let (read, buffer) = file.read_at(4096, reactor.pool().buffer(252 << 10).unwrap()).await;
    assert_eq!(read.unwrap(), 252 << 10);
    assert!(buffer.iter().all(|byte| *byte == 0));
}

async fn truncate_sets_the_length(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 4, 5), WriteSync::None).await.unwrap();
    for length in [4096, 3 * 4096] {
        file.truncate(length).await.unwrap();
        assert_eq!(file.length().await.unwrap(), length);
    }
    assert_pattern(&reactor, &file, 0, 1, 5).await;
    let (read, buffer) = file.read_at(4096, reactor.pool().buffer(2 * 4096).unwrap()).await;
    assert_eq!(read.unwrap(), 2 * 4096);
    assert!(buffer.iter().all(|byte| *byte == 0), "what was cut off comes back");
}

async fn names_come_and_go(reactor: Reactor, dir: PathBuf) {
    let (from, to) = (dir.join("from"), dir.join("to"));
    for (path, salt) in [(&from, 1), (&to, 2)] {
        let file = reactor.open(path, Open::CreateNew).await.unwrap();
        file.write_at(0, pattern(&reactor, 0, 1, salt), WriteSync::Data).await.unwrap();
    }
    reactor.rename(&from, &to).await.unwrap();
    assert_eq!(reactor.open(&from, Open::Read).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    let file = reactor.open(&to, Open::Read).await.unwrap();
    assert_pattern(&reactor, &file, 0, 1, 1).await;
    assert_eq!(reactor.rename(&from, &to).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    reactor.remove_file(&to).await.unwrap();
    assert_eq!(reactor.remove_file(&to).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    // Open files outlive their names.
    assert_pattern(&reactor, &file, 0, 1, 1).await;
}

async fn directories_are_listed_by_name(reactor: Reactor, dir: PathBuf) {
    let sub = dir.join("sub");
    reactor.create_dir(&sub).await.unwrap();
    reactor.create_dir(&sub).await.unwrap();
    for name in ["b", "a", "c"] {
        reactor.open(&sub.join(name), Open::CreateNew).await.unwrap();
    }
    reactor.create_dir(&sub.join("aa")).await.unwrap();
    assert!(reactor.create_dir(&sub.join("a")).await.is_err(), "a file is in the way");
    let listed = reactor.list_dir(&sub).await.unwrap();
    let listed: Vec<_> = listed.iter().map(|entry| (entry.name.as_str(), entry.is_dir)).collect();
    assert_eq!(listed, [("a", false), ("aa", true), ("b", false), ("c", false)]);
    assert!(reactor.remove_dir(&sub).await.is_err(), "it is not empty");
    reactor.remove_dir(&sub.join("aa")).await.unwrap();
    assert_eq!(reactor.list_dir(&sub.join("aa")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(reactor.create_dir(&dir.join("x").join("y")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn syncs_and_space(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    file.write_at(0, pattern(&reactor, 0, 1, 5), WriteSync::None).await.unwrap();
    let before = reactor.counters().flushes.get();
    reactor.sync_fs(&dir).await.unwrap();
    reactor.sync_dir(&dir).await.unwrap();
    assert_eq!(reactor.counters().flushes.get(), before + 2);
    let space = reactor.free_space(&dir).await.unwrap();
    assert!(space.free > 0 && space.free <= space.total);
    assert_eq!(reactor.sync_dir(&dir.join("missing")).await.unwrap_err().kind(), io::ErrorKind::NotFound);
}

async fn a_lock_has_one_holder(reactor: Reactor, dir: PathBuf) {
    let path = dir.join("lock");
    for _ in 0..3 {
        let held = reactor.lock_file(&path).await.unwrap();
        assert_eq!(reactor.lock_file(&path).await.unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
    }
    // One that nobody waited for is given up when it comes.
    assert!(poll_once(reactor.lock_file(&path)).await.is_none());
    reactor.sleep(Duration::from_millis(50)).await;
    reactor.lock_file(&path).await.unwrap();
}

async fn writes_side_by_side_all_land(reactor: Reactor, dir: PathBuf) {
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    let writes: Vec<Task<()>> = (0..64)
        .map(|block| {
            let (file, data) = (file.clone(), pattern(&reactor, block, 1, 5));
            reactor.spawn(async move { file.write_at(block * 4096, data, WriteSync::None).await.unwrap() })
        })
        .collect();
    for write in writes {
        write.await;
    }
    assert_pattern(&reactor, &file, 0, 64, 5).await;
}

async fn dropped_disk_operations_leave_nothing_behind(reactor: Reactor, dir: PathBuf) {
    let free = reactor.pool().free_bytes();
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    let mut tasks: Vec<Task<()>> = Vec::new();
    for block in 0..32u64 {
        let (file, data) = (file.clone(), pattern(&reactor, block, 16, 5));
        tasks.push(reactor.spawn(async move { file.write_at(block * 65536, data, WriteSync::Data).await.unwrap() }));
    }
    let (other, path) = (reactor.clone(), dir.join("other"));
    tasks.push(reactor.spawn(async move { drop(other.open(&path, Open::Create).await.unwrap()) }));
    let (other, path) = (reactor.clone(), dir.clone());
    tasks.push(reactor.spawn(async move { other.sync_fs(&path).await.unwrap() }));
    // All are started, and dropped in the midst.
    reactor.yield_now().await;
    drop(tasks);
    // The memory comes back when the disk is done with it.
    for _ in 0..1000 {
        if reactor.pool().free_bytes() == free {
            break;
        }
        reactor.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(reactor.pool().free_bytes(), free);
    file.write_at(0, pattern(&reactor, 0, 1, 8), WriteSync::Data).await.unwrap();
    assert_pattern(&reactor, &file, 0, 1, 8).await;
}

// Sockets -------------------------------------------------------------------------------------------------------------

async fn listen(reactor: &Reactor) -> Listener {
    reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

/// Both ends of a connection.
async fn connected(reactor: &Reactor) -> (Stream, Stream) {
    let listener = listen(reactor).await;
    let near = reactor.connect(listener.local_addr()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    (near, far)
}

fn bytes(reactor: &Reactor, len: usize, salt: usize) -> Slice {
    let mut buffer = reactor.pool().buffer(len).unwrap();
    buffer.iter_mut().enumerate().for_each(|(index, byte)| *byte = stream_byte(index + salt));
    buffer.freeze()
}

fn stream_byte(index: usize) -> u8 {
    (index.wrapping_mul(31) ^ (index >> 8)) as u8
}

async fn send(stream: &Stream, piece: Slice) -> io::Result<()> {
    let mut out = Outgoing::new();
    out.push(piece);
    stream.send(out).await.0
}

/// Receives until `len` bytes are there, or the end.
async fn receive(stream: &Stream, len: usize) -> Vec<u8> {
    let mut received = Vec::new();
    while received.len() < len {
        let Some(chunk) = stream.receive().await.unwrap() else { break };
        received.extend_from_slice(&chunk);
    }
    received
}

async fn an_echo_comes_back(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let pool = reactor.pool().clone();
    let echo = reactor.spawn(async move {
        let mut out = Outgoing::new();
        while let Some(chunk) = far.receive().await.unwrap() {
            let mut buffer = pool.buffer(chunk.len()).unwrap();
            buffer.copy_from_slice(&chunk);
            out.push(buffer.freeze());
            let (sent, empty) = far.send(out).await;
            sent.unwrap();
            assert!(empty.is_empty());
            out = empty;
        }
    });
    for round in 1..50 {
        send(&near, bytes(&reactor, round * 7, round)).await.unwrap();
        assert_eq!(receive(&near, round * 7).await, *bytes(&reactor, round * 7, round));
    }
    drop(near);
    echo.await;
}

async fn a_large_transfer_arrives_whole(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let all = bytes(&reactor, 4 << 20, 0);
    let sent = all.clone();
    let sender = reactor.spawn(async move {
        // Many pieces of odd lengths in one send, twice with the same list.
        let mut out = Outgoing::new();
        for _ in 0..2 {
            let mut at = 0;
            while at < sent.len() {
                let end = (at + 1 + (at * 7) % 40_000).min(sent.len());
                out.push(sent.slice(at..end));
                at = end;
            }
            assert_eq!(out.len(), sent.len());
            let (result, empty) = near.send(out).await;
            result.unwrap();
            out = empty;
        }
    });
    let mut at = 0;
    while at < 2 * all.len() {
        for byte in far.receive().await.unwrap().unwrap().iter() {
            assert_eq!(*byte, stream_byte(at % all.len()));
            at += 1;
        }
    }
    sender.await;
    assert!(far.receive().await.unwrap().is_none());
}

async fn the_end_of_a_stream_is_seen_and_stays(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    drop(near);
    for _ in 0..3 {
        assert!(far.receive().await.unwrap().is_none());
    }
}

async fn what_was_sent_before_the_end_arrives(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let all = bytes(&reactor, 100_000, 0);
    send(&near, all.clone()).await.unwrap();
    near.shutdown();
    drop(near);
    reactor.sleep(Duration::from_millis(20)).await;
    assert!(receive(&far, usize::MAX).await == *all);
}

async fn shutdown_ends_both_directions(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let clone = near.clone();
    let waiting = reactor.spawn(async move { clone.receive().await.unwrap().is_none() });
    reactor.sleep(Duration::from_millis(5)).await;
    near.shutdown();
    near.shutdown();
    assert!(waiting.await, "a receive under way ends");
    assert!(near.receive().await.unwrap().is_none());
    assert_eq!(send(&near, Slice::from_static(b"x")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert!(far.receive().await.unwrap().is_none(), "the peer sees the end");
}

async fn nobody_listening_refuses(reactor: Reactor, _: PathBuf) {
    let address = listen(&reactor).await.local_addr();
    // The listener closes in the background.
    reactor.sleep(Duration::from_millis(20)).await;
    assert_eq!(reactor.connect(address).await.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

/// Polls a future once and drops it.
pub(crate) async fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    poll_fn(|cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        })
    })
    .await
}

async fn a_dropped_receive_loses_nothing(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let mut received = Vec::new();
    for round in 0..100usize {
        if round % 3 == 0 {
            send(&near, bytes(&reactor, 10, round / 3 * 10)).await.unwrap();
        }
        if let Some(chunk) = poll_once(far.receive()).await {
            received.extend_from_slice(&chunk.unwrap().unwrap());
        }
        reactor.yield_now().await;
    }
    received.extend(receive(&far, 340 - received.len()).await);
    assert_eq!(received, *bytes(&reactor, 340, 0));
}

async fn a_slow_receiver_gets_everything(reactor: Reactor, _: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let all = bytes(&reactor, 8 << 20, 0);
    let sent = all.clone();
    let sender = reactor.spawn(async move { send(&near, sent).await.unwrap() });
    let mut at = 0;
    while let Some(chunk) = far.receive().await.unwrap() {
        assert!(chunk.iter().enumerate().all(|(index, byte)| *byte == stream_byte(at + index)));
        at += chunk.len();
        if at.is_multiple_of(7) {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        if at == all.len() {
            break;
        }
    }
    sender.await;
}

async fn a_dropped_send_shuts_the_stream_down(reactor: Reactor, _: PathBuf) {
    let free = reactor.pool().free_bytes();
    let (near, far) = connected(&reactor).await;
    let data = bytes(&reactor, 16 << 20, 0);
    assert!(poll_once(send(&near, data)).await.is_none(), "nobody reads");
    assert_eq!(send(&near, Slice::from_static(b"x")).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    // The peer sees a part of it and an end of some kind.
    let mut at = 0;
    while let Ok(Some(chunk)) = far.receive().await {
        assert!(chunk.iter().enumerate().all(|(index, byte)| *byte == stream_byte(at + index)));
        at += chunk.len();
    }
    assert!(at < 16 << 20);
    drop((near, far));
    reactor.sleep(Duration::from_millis(50)).await;
    assert_eq!(reactor.pool().free_bytes(), free);
}

/// A file of so many blocks, and what it holds.
async fn spliced_file(reactor: &Reactor, path: &Path, blocks: usize) -> (File, Slice) {
    let file = reactor.open(path, Open::CreateNew).await.unwrap();
    let all = bytes(reactor, blocks * 4096, 5);
    file.write_at(0, all.clone(), WriteSync::None).await.unwrap();
    (reactor.open(path, Open::ReadCached).await.unwrap(), all)
}

async fn pieces_of_files_are_sent_between_slices(reactor: Reactor, dir: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let (file, all) = spliced_file(&reactor, &dir.join("file"), 800).await;
    let pipe = reactor.pipe().await.unwrap();
    let range = |from: usize, to: usize| {
        let (file, pipe) = (file.clone(), pipe.clone());
        FileRange { file, pipe, position: from as u64, length: to - from }
    };
    // Longer than a pipe, of odd lengths, one behind the other and at both ends.
    let (mut out, mut behind) = (Outgoing::new(), Outgoing::new());
    out.push_range(range(1, 5000));
    out.push(bytes(&reactor, 3000, 9));
    behind.push(bytes(&reactor, 77, 4));
    behind.push_range(range(4095, 3_000_001));
    behind.push_range(range(0, 1));
    out.append(&mut behind);
    assert!(behind.is_empty());
    let expected =
        [&all[1..5000], &bytes(&reactor, 3000, 9)[..], &bytes(&reactor, 77, 4)[..], &all[4095..3_000_001], &all[..1]];
    let expected = expected.concat();
    assert_eq!(out.len(), expected.len());
    let sender = reactor.spawn(async move { near.send(out).await.0 });
    assert!(receive(&far, expected.len()).await == expected);
    sender.await.unwrap();
    assert_eq!(reactor.counters().pipes.get(), 1);
    drop(pipe);
    assert_eq!(reactor.counters().pipes.get(), 0);
}

async fn splice(stream: &Stream, range: FileRange) -> io::Result<()> {
    let mut out = Outgoing::new();
    out.push_range(range);
    stream.send(out).await.0
}

async fn what_is_written_past_the_cache_is_sent(reactor: Reactor, dir: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let (file, _) = spliced_file(&reactor, &dir.join("file"), 8).await;
    let written = reactor.open(&dir.join("file"), Open::ReadWrite).await.unwrap();
    let pipe = reactor.pipe().await.unwrap();
    for round in 0..20 {
        // The first block is sent, and the others are in the cache with it.
        written.write_at(0, bytes(&reactor, 8 * 4096, round), WriteSync::None).await.unwrap();
        let all = bytes(&reactor, 8 * 4096, round);
        let (file, pipe) = (file.clone(), pipe.clone());
        let length = if round % 2 == 0 { 100 } else { all.len() };
        splice(&near, FileRange { file, pipe, position: 0, length }).await.unwrap();
        assert!(receive(&far, length).await == all[..length], "round {round}");
    }
}

async fn a_piece_beyond_the_file_spoils_its_pipe(reactor: Reactor, dir: PathBuf) {
    let (near, _far) = connected(&reactor).await;
    let (file, _) = spliced_file(&reactor, &dir.join("file"), 2).await;
    let pipe = reactor.pipe().await.unwrap();
    let mut range = FileRange { file, pipe, position: 8000, length: 500 };
    assert_eq!(splice(&near, range.clone()).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    range.length = 100;
    assert_eq!(splice(&near, range).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

async fn a_slow_receiver_gets_whole_files(reactor: Reactor, dir: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let (file, all) = spliced_file(&reactor, &dir.join("file"), 2048).await;
    let pipe = reactor.pipe().await.unwrap();
    let length = all.len();
    let sender = reactor.spawn(async move { splice(&near, FileRange { file, pipe, position: 0, length }).await });
    reactor.sleep(Duration::from_millis(100)).await;
    assert!(receive(&far, length).await == *all);
    sender.await.unwrap();
}

async fn a_dropped_splice_shuts_the_stream_down(reactor: Reactor, dir: PathBuf) {
    let (near, far) = connected(&reactor).await;
    let (file, all) = spliced_file(&reactor, &dir.join("file"), 4096).await;
    let pipe = reactor.pipe().await.unwrap();
    {
        let range = FileRange { file, pipe: pipe.clone(), position: 0, length: all.len() };
        let mut sending = Box::pin(splice(&near, range));
        let mut sleep = Box::pin(reactor.sleep(Duration::from_millis(50)));
        poll_fn(|cx| {
            assert!(sending.as_mut().poll(cx).is_pending(), "more than sockets hold");
            sleep.as_mut().poll(cx)
        })
        .await;
    }
    // What had been sent, and then the end.
    assert!(receive(&far, all.len()).await.len() < all.len());
    let (other, _far) = connected(&reactor).await;
    let file = reactor.open(&dir.join("file"), Open::ReadCached).await.unwrap();
    let again = splice(&other, FileRange { file, pipe, position: 0, length: 1 }).await;
    assert_eq!(again.unwrap_err().kind(), io::ErrorKind::BrokenPipe, "something may be left in the pipe");
}

async fn many_connections_at_once(reactor: Reactor, _: PathBuf) {
    const COUNT: usize = 200;
    let listener = listen(&reactor).await;
    let address = listener.local_addr();
    let clients: Vec<Task<()>> = (0..COUNT)
        .map(|number| {
            let reactor = reactor.clone();
            reactor.clone().spawn(async move {
                let stream = reactor.connect(address).await.unwrap();
                send(&stream, bytes(&reactor, 100, number)).await.unwrap();
                assert_eq!(receive(&stream, 100).await, *bytes(&reactor, 100, number));
            })
        })
        .collect();
    let mut servers: Vec<Task<()>> = Vec::new();
    for _ in 0..COUNT {
        let (stream, peer) = listener.accept().await.unwrap();
        assert!(peer.ip().is_loopback() || peer.ip() == address.ip());
        let reactor = reactor.clone();
        servers.push(reactor.clone().spawn(async move {
            let request = receive(&stream, 100).await;
            let mut buffer = reactor.pool().buffer(request.len()).unwrap();
            buffer.copy_from_slice(&request);
            send(&stream, buffer.freeze()).await.unwrap();
        }));
    }
    for task in clients.into_iter().chain(servers) {
        task.await;
    }
}

async fn a_dropped_accept_loses_no_connection(reactor: Reactor, _: PathBuf) {
    let listener = listen(&reactor).await;
    assert!(poll_once(listener.accept()).await.is_none());
    let near = reactor.connect(listener.local_addr()).await.unwrap();
    reactor.sleep(Duration::from_millis(5)).await;
    let (far, _) = listener.accept().await.unwrap();
    send(&near, Slice::from_static(b"hello")).await.unwrap();
    assert_eq!(receive(&far, 5).await, b"hello");
}

// Time and tasks ------------------------------------------------------------------------------------------------------

async fn sleeps_end_in_order(reactor: Reactor, _: PathBuf) {
    let ended = Rc::new(RefCell::new(Vec::new()));
    let tasks: Vec<Task<()>> = [30u64, 10, 20, 0, 10]
        .iter()
        .map(|ms| {
            let (sleep, ended, ms) = (reactor.sleep(Duration::from_millis(*ms)), ended.clone(), *ms);
            reactor.spawn(async move {
                sleep.await;
                ended.borrow_mut().push(ms);
            })
        })
        .collect();
    for task in tasks {
        task.await;
    }
    assert_eq!(*ended.borrow(), [0, 10, 10, 20, 30]);
}

async fn time_goes_on(reactor: Reactor, _: PathBuf) {
    let (began, wall) = (reactor.now(), reactor.wall_clock());
    reactor.sleep(Duration::from_millis(20)).await;
    assert!(reactor.now().since(began) >= Duration::from_millis(20));
    assert!(reactor.wall_clock().0 > wall.0);
    // One that is dropped does not fire, and does not keep others from it.
    assert!(poll_once(reactor.sleep(Duration::from_millis(1))).await.is_none());
    reactor.sleep_until(reactor.now().plus(Duration::from_millis(5))).await;
    assert!(poll_once(reactor.sleep(Duration::ZERO)).await.is_some());
    assert_ne!(reactor.random(), reactor.random());
}

/// Counts its drops.
struct Guard(Rc<Cell<u32>>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

async fn dropping_a_task_drops_its_future(reactor: Reactor, _: PathBuf) {
    let drops = Rc::new(Cell::new(0));
    let guard = Guard(drops.clone());
    let sleeping = reactor.clone();
    let task = reactor.spawn(async move {
        let _guard = guard;
        sleeping.sleep(Duration::from_secs(3600)).await;
    });
    reactor.yield_now().await;
    assert_eq!(drops.get(), 0);
    drop(task);
    reactor.yield_now().await;
    assert_eq!(drops.get(), 1);
}

async fn a_detached_task_runs_on(reactor: Reactor, _: PathBuf) {
    let drops = Rc::new(Cell::new(0));
    let (guard, inner) = (Guard(drops.clone()), reactor.clone());
    reactor
        .spawn(async move {
            let _guard = guard;
            inner.sleep(Duration::from_millis(5)).await;
        })
        .detach();
    let finished = reactor.spawn(async { 7 });
    reactor.sleep(Duration::from_millis(20)).await;
    assert_eq!(drops.get(), 1);
    assert!(finished.is_finished());
    assert_eq!(finished.await, 7);
}

async fn yielding_lets_others_run(reactor: Reactor, _: PathBuf) {
    let count = Rc::new(Cell::new(0));
    let tasks: Vec<Task<()>> = (0..1000)
        .map(|_| {
            let (reactor, count) = (reactor.clone(), count.clone());
            reactor.clone().spawn(async move {
                reactor.yield_now().await;
                count.set(count.get() + 1);
            })
        })
        .collect();
    reactor.yield_now().await;
    assert_eq!(count.get(), 0);
    reactor.yield_now().await;
    assert_eq!(count.get(), 1000);
    drop(tasks);
    // One that yields again and again does not keep what the disk and the network brought from being taken in.
    let turns = reactor.counters().turns.get();
    for _ in 0..3 {
        reactor.yield_now().await;
    }
    assert!(reactor.counters().turns.get() >= turns + 3);
}

async fn buffers_all_return(reactor: Reactor, dir: PathBuf) {
    let pool = reactor.pool().clone();
    let free = pool.free_bytes();
    let file = reactor.open(&dir.join("file"), Open::CreateNew).await.unwrap();
    let mut held = Vec::new();
    while let Some(buffer) = pool.buffer(100_000) {
        held.push(buffer.freeze());
    }
    assert!(pool.buffer(128 << 10).is_none());
    let last = held.pop().unwrap();
    drop(held);
    file.write_at(0, last.slice(0..8192), WriteSync::None).await.unwrap();
    drop(last);
    assert_eq!(pool.free_bytes(), free);
}

// Shards --------------------------------------------------------------------------------------------------------------

async fn send_all(reactor: &Reactor, mesh: &MeshHandle<u64>, to: ShardId, count: u64) {
    for number in 0..count {
        let mut message = number;
        while let Err(back) = mesh.try_send(to, message) {
            message = back;
            reactor.yield_now().await;
        }
    }
}

/// Every shard sends to every shard, itself included, more than the rings hold.
async fn messages_keep_their_order(reactor: Reactor, mesh: MeshHandle<u64>) {
    const COUNT: u64 = 2000;
    let shards = reactor.shards();
    let senders: Vec<Task<()>> = (0..shards)
        .map(|to| {
            let (reactor, mesh) = (reactor.clone(), mesh.clone());
            reactor.clone().spawn(async move { send_all(&reactor, &mesh, ShardId(to), COUNT).await })
        })
        .collect();
    let mut next = vec![0; usize::from(shards)];
    while next.iter().any(|next| *next < COUNT) {
        let (from, number) = mesh.receive().await;
        assert_eq!(number, next[usize::from(from.0)]);
        next[usize::from(from.0)] += 1;
    }
    for sender in senders {
        sender.await;
    }
}

async fn a_full_ring_gives_the_message_back(reactor: Reactor, mesh: MeshHandle<u64>) {
    let me = reactor.shard();
    for round in 0..3 {
        for number in 0..MESH_CAPACITY as u64 {
            mesh.try_send(me, round * 1000 + number).unwrap();
        }
        assert_eq!(mesh.try_send(me, 77), Err(77));
        for number in 0..MESH_CAPACITY as u64 {
            assert_eq!(mesh.receive().await, (me, round * 1000 + number));
        }
    }
    assert!(poll_once(mesh.receive()).await.is_none());
}

/// Shard 0 lets the others go to sleep between messages.
async fn a_sleeping_shard_is_woken(reactor: Reactor, mesh: MeshHandle<u64>) {
    for round in 0..20 {
        if reactor.shard() == ShardId(0) {
            reactor.sleep(Duration::from_millis(2)).await;
            for to in 1..reactor.shards() {
                mesh.try_send(ShardId(to), round).unwrap();
            }
            for _ in 1..reactor.shards() {
                assert_eq!(mesh.receive().await.1, round + 1);
            }
        } else {
            assert_eq!(mesh.receive().await, (ShardId(0), round));
            reactor.sleep(Duration::from_millis(1)).await;
            mesh.try_send(ShardId(0), round + 1).unwrap();
        }
    }
}

/// No case takes anything like it.
const CASE_LIMIT: Duration = Duration::from_secs(60);

/// What the future gives; it must not take longer than `limit`.
pub(crate) async fn within<T>(reactor: &Reactor, limit: Duration, future: impl Future<Output = T>) -> T {
    let (mut future, mut limit) = (pin!(future), pin!(reactor.sleep(limit)));
    poll_fn(|cx| {
        assert!(limit.as_mut().poll(cx).is_pending(), "took too long");
        future.as_mut().poll(cx)
    })
    .await
}

/// Runs a shards' case on one of them.
pub(crate) async fn run_shards_case(reactor: Reactor, mesh: MeshHandle<u64>, (_, case): ShardsCase) {
    within(&reactor, CASE_LIMIT, case(reactor.clone(), mesh)).await;
}

/// Runs a case in a directory of its own under `base`, and checks that it left no buffer behind.
pub(crate) async fn run_case(reactor: Reactor, base: &Path, (name, case): Case) {
    let dir = base.join(name);
    reactor.create_dir(&dir).await.unwrap();
    let free = reactor.pool().free_bytes();
    within(&reactor, CASE_LIMIT, case(reactor.clone(), dir)).await;
    assert_eq!(reactor.pool().free_bytes(), free, "{name} keeps buffers");
}
