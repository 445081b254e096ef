//! Data directories in the simulator: opened, refused, and crashed at every step.

use super::*;
use crate::model::ShardId;
use crate::reactor::sim::{CrashKind, DiskOp, Fault, NodeId, World, WorldOptions};
use crate::reactor::{Open, WriteSync};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

const ROOT: &str = "data";
const LIMIT: Duration = Duration::from_secs(60);
const POOL: usize = 1 << 20;
const A: NodeFile = NodeFile { cluster_id: Uuid::from_u128(10), node_id: 1, generation: 0, shards: 2 };
const B: NodeFile = NodeFile { cluster_id: Uuid::from_u128(11), node_id: 1, generation: 0, shards: 3 };

fn world(seed: u64) -> (World, NodeId) {
    let world = World::new(seed, WorldOptions::default());
    let node = world.add_node("node");
    (world, node)
}

/// Starts `work` on the node; its result appears in the cell.
fn start<T: 'static, F: Future<Output = T> + 'static>(
    world: &World,
    node: NodeId,
    work: impl FnOnce(Reactor) -> F,
) -> Rc<RefCell<Option<T>>> {
    let result = Rc::new(RefCell::new(None));
    let told = result.clone();
    world.start_shard(node, ShardId(0), 1, POOL, |reactor| {
        let work = work(reactor);
        async move { *told.borrow_mut() = Some(work.await) }
    });
    result
}

fn run<T: 'static, F: Future<Output = T> + 'static>(world: &World, node: NodeId, work: impl FnOnce(Reactor) -> F) -> T {
    let result = start(world, node, work);
    assert!(world.run_until(LIMIT, || !world.is_up(node)), "did not end");
    result.take().unwrap()
}

/// Runs `work` until `events` have happened and crashes the node. The result, if there was one by then.
fn run_and_crash<T: 'static, F: Future<Output = T> + 'static>(
    world: &World,
    node: NodeId,
    events: u64,
    kind: CrashKind,
    work: impl FnOnce(Reactor) -> F,
) -> Option<T> {
    let result = start(world, node, work);
    let end = world.events() + events;
    world.run_until(LIMIT, || world.events() >= end || !world.is_up(node));
    world.crash(node, kind);
    result.take()
}

async fn open_as(reactor: Reactor, new: NodeFile) -> Result<(NodeFile, bool), DataDirError> {
    let opened = open(&reactor, Path::new(ROOT), new).await?;
    Ok((opened.dir.node, opened.is_new))
}

async fn put(reactor: &Reactor, path: &str) {
    let file = reactor.open(Path::new(path), Open::Create).await.unwrap();
    file.write_at(0, reactor.pool().buffer(4096).unwrap().freeze(), WriteSync::Data).await.unwrap();
}

fn names(world: &World, node: NodeId, path: &str) -> Vec<String> {
    world.list_dir(node, Path::new(path)).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_new_directory_opens_again_as_what_it_was() {
    let (world, node) = world(1);
    assert_eq!(run(&world, node, |reactor| open_as(reactor, A)).unwrap(), (A, true));
    assert_eq!(run(&world, node, |reactor| open_as(reactor, B)).unwrap(), (A, false));
    assert_eq!(names(&world, node, ROOT), ["lock", "node"]);
    assert_eq!(world.read_file(node, Path::new("data/node")).unwrap(), A.to_text().into_bytes());
}

#[test]
fn a_crash_at_any_step_of_creation_leaves_a_directory_that_opens() {
    let mut seen = BTreeSet::new();
    for seed in 0..600 {
        let kind = if seed % 2 == 0 { CrashKind::PowerCut } else { CrashKind::Kill };
        let (world, node) = world(seed);
        let made = run_and_crash(&world, node, seed / 2 % 40, kind, |reactor| open_as(reactor, A));
        let (found, is_new) = run(&world, node, |reactor| open_as(reactor, B)).unwrap();
        assert!((found, is_new) == (A, false) || (found, is_new) == (B, true), "seed {seed}: {found:?}");
        if let Some(made) = made {
            assert_eq!((made.unwrap(), found), ((A, true), A), "seed {seed}: what open returned was durable");
        }
        world.crash(node, CrashKind::PowerCut);
        let again = run(&world, node, |reactor| open_as(reactor, A)).unwrap();
        assert_eq!(again, (found, false), "seed {seed}: what the second open found was durable");
        seen.insert(found == A);
    }
    assert_eq!(seen.len(), 2, "crashes came both before and after the directory was made");
}

#[test]
fn a_crash_at_any_step_of_a_replacement_leaves_the_old_or_the_new() {
    let mut seen = BTreeSet::new();
    for seed in 0..600 {
        let kind = if seed % 2 == 0 { CrashKind::PowerCut } else { CrashKind::Kill };
        let (world, node) = world(seed);
        run(&world, node, |reactor| open_as(reactor, A)).unwrap();
        let replaced = run_and_crash(&world, node, seed / 2 % 60, kind, async |reactor| {
            let mut opened = open(&reactor, Path::new(ROOT), B).await?;
            let next = opened.dir.next_generation(5);
            opened.dir.replace_node(&reactor, next).await
        });
        let (found, _) = run(&world, node, |reactor| open_as(reactor, B)).unwrap();
        let next = NodeFile { generation: 1, shards: 5, ..A };
        assert!(found == A || found == next, "seed {seed}: {found:?}");
        assert!(replaced.is_none() || found == next, "seed {seed}: a replacement that returned was durable");
        world.crash(node, CrashKind::PowerCut);
        assert_eq!(run(&world, node, |reactor| open_as(reactor, B)).unwrap(), (found, false), "seed {seed}");
        seen.insert(found.generation);
    }
    assert_eq!(seen.len(), 2, "crashes came both before and after the replacement");
}

#[test]
fn an_error_at_any_step_is_told_and_the_next_try_succeeds() {
    let mut failures = 0;
    for (kind, code) in [(DiskOp::Meta, libc::EIO), (DiskOp::Write, libc::ENOSPC), (DiskOp::Flush, libc::EIO)] {
        for skip in 0..8 {
            let (world, node) = world(skip);
            world.faults_mut(node).script(kind, skip, Fault::Error(code));
            let Err(error) = run(&world, node, |reactor| open_as(reactor, A)) else { continue };
            failures += 1;
            assert!(matches!(error, DataDirError::Io { .. }), "{error}");
            assert!(error.to_string().starts_with("cannot "), "{error}");
            let (found, _) = run(&world, node, |reactor| open_as(reactor, B)).unwrap();
            assert!(found == A || found == B);
        }
    }
    assert!(failures >= 8, "{failures} operations can fail");
}

#[test]
fn a_second_server_is_refused_and_told_of_the_lock() {
    let (world, node) = world(1);
    let error = run(&world, node, async |reactor| {
        let first = open(&reactor, Path::new(ROOT), A).await.unwrap();
        let error = open(&reactor, Path::new(ROOT), A).await.unwrap_err();
        drop(first);
        open(&reactor, Path::new(ROOT), A).await.unwrap();
        error
    });
    assert!(matches!(error, DataDirError::Locked { .. }));
    let expected = "data directory data is in use by another server, which holds the lock data/lock";
    assert_eq!(error.to_string(), expected);
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let (world, node) = world(1);
    let error = run(&world, node, async |reactor| {
        reactor.create_dir(Path::new(ROOT)).await.unwrap();
        put(&reactor, "data/thesis.txt").await;
        open_as(reactor, A).await.unwrap_err()
    });
    assert_eq!(
        error.to_string(),
        "data is no data directory of corelog: it has no node file but holds \"thesis.txt\"; give another or an empty one"
    );
    assert_eq!(names(&world, node, ROOT), ["thesis.txt"]);
}

#[test]
fn a_fresh_file_system_counts_as_empty() {
    let (world, node) = world(1);
    let opened = run(&world, node, async |reactor| {
        reactor.create_dir(Path::new(ROOT)).await.unwrap();
        reactor.create_dir(Path::new("data/lost+found")).await.unwrap();
        open_as(reactor, A).await
    });
    assert_eq!(opened.unwrap(), (A, true));
}

#[test]
fn an_older_program_refuses_a_newer_format_and_damage_is_named() {
    for (content, expected) in [
        ("format = 9\n", "it has format 9, this program knows formats up to 1: use a newer corelog"),
        ("format = 1\n", "its node file is damaged: it has no checksum"),
    ] {
        let (world, node) = world(1);
        let error = run(&world, node, async |reactor| {
            reactor.create_dir(Path::new(ROOT)).await.unwrap();
            replace(&reactor, Path::new("data/node"), content).await.unwrap();
            open_as(reactor, A).await.unwrap_err().to_string()
        });
        assert_eq!(error, format!("cannot use data directory data: {expected}"));
        assert_eq!(world.read_file(node, Path::new("data/node")).unwrap(), content.as_bytes(), "left as it was");
    }
}

#[test]
fn a_node_file_that_is_too_long_is_refused() {
    let (world, node) = world(1);
    let error = run(&world, node, async |reactor| {
        reactor.create_dir(Path::new(ROOT)).await.unwrap();
        replace(&reactor, Path::new("data/node"), &"#".repeat(NODE_FILE_BYTES_MAX + 1)).await.unwrap();
        open_as(reactor, A).await.unwrap_err().to_string()
    });
    assert_eq!(error, "cannot read data/node: it is longer than 4096 bytes");
}

/// Directories as a crash in the midst of everything leaves them; topic 7 is in the catalog.
async fn clutter(reactor: &Reactor) {
    for dir in ["shards-0", "shards-0/0", "shards-1", "shards-2", "shards-2/0", "topics"] {
        reactor.create_dir(&Path::new(ROOT).join(dir)).await.unwrap();
    }
    for topic in [TopicId::METADATA, topic(7), topic(8)] {
        for dir in [paths::topic(Path::new(ROOT), topic), paths::topic(Path::new(ROOT), topic).join("0")] {
            reactor.create_dir(&dir).await.unwrap();
        }
        put(reactor, &format!("data/topics/{topic}/0/00000000000000000000.log")).await;
    }
    for file in ["data/shards-0/0/journal", "data/shards-2/0/journal", "data/node.new", "data/notes"] {
        put(reactor, file).await;
    }
    reactor.sync_fs(Path::new(ROOT)).await.unwrap();
}

fn topic(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

async fn clean_up(reactor: Reactor) -> Result<[usize; 2], DataDirError> {
    let opened = open(&reactor, Path::new(ROOT), A).await?;
    let mut catalog = Catalog::default();
    let bounds = crate::metadata::Bounds::default();
    let none: [(&str, &str); 0] = [];
    let record = catalog.decide_create(&bounds, topic(7), "kept", 1, &none).unwrap();
    catalog.apply(&record).unwrap();
    let leftovers = opened.dir.remove_leftovers(&reactor).await?.len();
    Ok([leftovers, opened.dir.remove_orphans(&reactor, &catalog).await?.len()])
}

fn assert_clean(world: &World, node: NodeId, seed: u64) {
    assert_eq!(names(world, node, ROOT), ["lock", "node", "notes", "shards-0", "topics"], "seed {seed}");
    assert_eq!(names(world, node, "data/shards-0/0"), ["journal"], "what is in force stays");
    let topics = [TopicId::METADATA, topic(7)].map(|id| id.to_string());
    assert_eq!(names(world, node, "data/topics"), topics, "seed {seed}");
    for topic in topics {
        assert_eq!(names(world, node, &format!("data/topics/{topic}/0")), ["00000000000000000000.log"]);
    }
}

#[test]
fn what_crashes_left_behind_is_removed_and_nothing_else() {
    for seed in 0..100 {
        let (world, node) = world(seed);
        run(&world, node, |reactor| open_as(reactor, A)).unwrap();
        run(&world, node, async |reactor| clutter(&reactor).await);
        run_and_crash(&world, node, seed, CrashKind::PowerCut, clean_up);
        run(&world, node, clean_up).unwrap();
        assert_clean(&world, node, seed);
        world.crash(node, CrashKind::PowerCut);
        assert_clean(&world, node, seed);
        assert_eq!(run(&world, node, clean_up).unwrap(), [0, 0]);
    }
}
