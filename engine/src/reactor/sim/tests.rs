//! The world as its users see it: repeatable, and hostile in every way it claims to be.

use super::*;
use crate::model::ShardId;
use crate::reactor::{File, Open, Outgoing, Reactor, Stream, WriteSync, mesh, suite};
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

const POOL: usize = 1 << 20;
const SECOND: Duration = Duration::from_secs(1);
const PORT: u16 = 7092;

fn world(seed: u64) -> World {
    World::new(seed, WorldOptions::default())
}

/// Runs one root future on a node of a world, to its end.
fn run<F: Future<Output = ()> + 'static>(world: &World, node: NodeId, root: impl FnOnce(Reactor) -> F) {
    world.start_shard(node, ShardId(0), 1, POOL, root);
    assert!(world.run_until(60 * SECOND, || !world.is_up(node)), "did not end");
}

async fn write(reactor: &Reactor, file: &File, block: u64, byte: u8) -> io::Result<()> {
    let mut buffer = reactor.pool().buffer(4096).unwrap();
    buffer.fill(byte);
    file.write_at(block * 4096, buffer.freeze(), WriteSync::None).await
}

async fn read(reactor: &Reactor, file: &File, block: u64) -> io::Result<u8> {
    let (read, buffer) = file.read_at(block * 4096, reactor.pool().buffer(4096).unwrap()).await;
    read.map(|length| if length == 0 { 0 } else { buffer[0] })
}

async fn send(reactor: &Reactor, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut buffer = reactor.pool().buffer(bytes.len()).unwrap();
    buffer.copy_from_slice(bytes);
    let mut out = Outgoing::new();
    out.push(buffer.freeze());
    stream.send(out).await.0
}

/// Some of everything on two nodes: a server that stores what a client sends and answers.
fn busy_world(seed: u64) -> (u64, Vec<u8>) {
    let world = world(seed);
    world.net_mut().small_piece = 300_000;
    let (server, client) = (world.add_node("server"), world.add_client("client"));
    let address = SocketAddr::new(world.address(server), PORT);
    world.start_shard(server, ShardId(0), 1, POOL, async |reactor| {
        let file = reactor.open(Path::new("log"), Open::Create).await.unwrap();
        let listener = reactor.listen(SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT))).await.unwrap();
        for block in 0.. {
            let (stream, _) = listener.accept().await.unwrap();
            while let Some(chunk) = stream.receive().await.unwrap() {
                write(&reactor, &file, block, chunk[0]).await.unwrap();
                file.sync_data().await.unwrap();
                send(&reactor, &stream, &chunk).await.unwrap();
            }
        }
    });
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hears = heard.clone();
    world.start_shard(client, ShardId(0), 1, POOL, async move |reactor| {
        for turn in 0..5u8 {
            reactor.sleep(Duration::from_millis(1 + reactor.random() % 3)).await;
            let stream = reactor.connect(address).await.unwrap();
            let said = [turn + 1; 100];
            send(&reactor, &stream, &said).await.unwrap();
            let mut left = said.len();
            while left > 0 {
                let chunk = stream.receive().await.unwrap().unwrap();
                left -= chunk.len();
                hears.borrow_mut().extend_from_slice(&chunk);
            }
        }
    });
    assert!(world.run_until(10 * SECOND, || !world.is_up(client)));
    world.crash(server, CrashKind::PowerCut);
    (world.trace_hash(), heard.take())
}

#[test]
fn a_seed_gives_one_run_and_another_seed_another() {
    let runs: Vec<_> = (0..20).map(busy_world).collect();
    for (seed, run) in runs.iter().enumerate() {
        assert_eq!(*run, busy_world(seed as u64));
        let said: Vec<u8> = (1..=5).flat_map(|turn| [turn; 100]).collect();
        assert_eq!(run.1, said);
    }
    let mut hashes: Vec<u64> = runs.iter().map(|run| run.0).collect();
    hashes.sort_unstable();
    hashes.dedup();
    assert_eq!(hashes.len(), runs.len());
}

#[test]
fn what_was_flushed_survives_a_power_cut_in_the_midst_of_work() {
    let (mut lost, mut kept) = (0, 0);
    for seed in 0..50 {
        let world = world(seed);
        let node = world.add_node("node");
        let flushed = Rc::new(Cell::new(0));
        let told = flushed.clone();
        world.start_shard(node, ShardId(0), 1, POOL, async move |reactor| {
            let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
            reactor.sync_dir(Path::new("")).await.unwrap();
            for block in 0.. {
                write(&reactor, &file, block, 7).await.unwrap();
                file.sync_data().await.unwrap();
                told.set(block + 1);
            }
        });
        world.run_for(Duration::from_micros(world.random() % 20_000));
        world.crash(node, CrashKind::PowerCut);
        let left = world.read_file(node, Path::new("file")).map_or(0, |bytes| bytes.len() as u64 / 4096);
        assert!(left >= flushed.get(), "seed {seed}: {left} of {} blocks", flushed.get());
        lost += u64::from(left == flushed.get());
        kept += u64::from(left > flushed.get());
    }
    assert!(lost > 0 && kept > 0, "in flight: {lost} lost, {kept} kept");
}

#[test]
fn writes_in_flight_at_once_land_in_any_order() {
    let mut orders = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let world = world(seed);
        let node = world.add_node("node");
        run(&world, node, async |reactor| {
            let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
            let tasks: Vec<_> = [1, 2, 3]
                .map(|byte| {
                    let (reactor, file) = (reactor.clone(), file.clone());
                    reactor.clone().spawn(async move { write(&reactor, &file, 0, byte).await.unwrap() })
                })
                .into();
            for task in tasks {
                task.await;
            }
        });
        orders.insert(world.read_file(node, Path::new("file")).unwrap()[0]);
    }
    assert_eq!(orders.len(), 3);
}

#[test]
fn faults_of_the_disk_come_when_asked_for() {
    let world = world(1);
    let node = world.add_node("node");
    {
        let mut faults = world.faults_mut(node);
        faults.script(DiskOp::Write, 1, Fault::Error(libc::EIO));
        faults.script(DiskOp::Write, 3, Fault::Lost);
        faults.script(DiskOp::Write, 4, Fault::Misdirected);
        faults.script(DiskOp::Flush, 0, Fault::Error(libc::EIO));
        faults.script(DiskOp::Read, 1, Fault::Slow(5_000_000_000));
    }
    run(&world, node, async |reactor| {
        let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
        write(&reactor, &file, 0, 1).await.unwrap();
        assert_eq!(write(&reactor, &file, 1, 2).await.unwrap_err().raw_os_error(), Some(libc::EIO));
        write(&reactor, &file, 9, 3).await.unwrap();
        assert!(file.sync_data().await.is_err());
        file.sync_data().await.unwrap();
        write(&reactor, &file, 8, 9).await.unwrap();
        assert_eq!(read(&reactor, &file, 8).await.unwrap(), 0, "lost");
        write(&reactor, &file, 7, 8).await.unwrap();
        let began = reactor.now();
        read(&reactor, &file, 0).await.unwrap();
        assert!(reactor.now().since(began) >= Duration::from_secs(5) || read(&reactor, &file, 7).await.unwrap() == 0);
    });
    let counters = world.counters(node);
    assert_eq!((counters.errors, counters.strays, counters.slowed), (2, 2, 1));
}

#[test]
fn chances_of_faults_are_met() {
    let world = world(2);
    let node = world.add_node("node");
    world.faults_mut(node).write_error = 100_000;
    run(&world, node, async |reactor| {
        let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
        for _ in 0..500 {
            let _ = write(&reactor, &file, 0, 1).await;
        }
    });
    assert!((20..100).contains(&world.counters(node).errors));
}

#[test]
fn a_disk_that_hangs_holds_everything_until_it_is_released() {
    let world = world(3);
    let node = world.add_node("node");
    let done = Rc::new(Cell::new(0));
    let tell = done.clone();
    world.start_shard(node, ShardId(0), 1, POOL, async move |reactor| {
        let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
        loop {
            write(&reactor, &file, 0, 1).await.unwrap();
            file.sync_data().await.unwrap();
            tell.set(tell.get() + 1);
        }
    });
    world.run_for(Duration::from_millis(5));
    world.faults_mut(node).hung = true;
    world.run_for(Duration::from_millis(1));
    let before = done.get();
    world.run_for(10 * SECOND);
    assert_eq!(done.get(), before);
    world.release_disk(node);
    world.run_for(Duration::from_millis(5));
    assert!(done.get() > before);
}

#[test]
fn a_full_disk_refuses_and_forgives() {
    let world = world(4);
    let node = world.add_node("node");
    world.set_disk_bytes(node, 8 * 4096);
    run(&world, node, async |reactor| {
        let file = reactor.open(Path::new("file"), Open::CreateNew).await.unwrap();
        file.allocate(0, 8 * 4096).await.unwrap();
        let other = reactor.open(Path::new("other"), Open::CreateNew).await;
        assert_eq!(other.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(reactor.free_space(Path::new("")).await.unwrap().free, 0);
        file.truncate(0).await.unwrap();
        write(&reactor, &file, 0, 1).await.unwrap();
        assert_eq!(file.allocated().await.unwrap(), 4096);
    });
}

#[test]
fn a_cut_link_holds_bytes_back_and_a_healed_one_delivers_them() {
    let world = world(5);
    let (a, b) = (world.add_node("a"), world.add_node("b"));
    let address = SocketAddr::new(world.address(a), PORT);
    let got = Rc::new(Cell::new(0));
    let tell = got.clone();
    world.start_shard(a, ShardId(0), 1, POOL, async move |reactor| {
        let listener = reactor.listen(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        while let Some(chunk) = stream.receive().await.unwrap() {
            tell.set(tell.get() + chunk.len());
        }
    });
    world.start_shard(b, ShardId(0), 1, 16 * POOL, async move |reactor| {
        let stream = reactor.connect(address).await.unwrap();
        for _ in 0..100 {
            send(&reactor, &stream, &[1; 10_000]).await.unwrap();
        }
    });
    assert!(world.run_until(SECOND, || got.get() > 100_000));
    world.cut_link(a, b);
    let before = got.get();
    world.run_for(10 * SECOND);
    assert_eq!(got.get(), before);
    assert!(world.is_up(b), "the sender waits: buffers are bounded");
    world.heal_link(a, b);
    assert!(world.run_until(SECOND, || !world.is_up(a)));
    assert_eq!(got.get(), 1_000_000);
}

#[test]
fn who_talks_to_a_node_that_crashed_learns_of_it() {
    for kind in [CrashKind::Kill, CrashKind::PowerCut] {
        let world = world(6);
        let (a, b) = (world.add_node("a"), world.add_client("b"));
        let address = SocketAddr::new(world.address(a), PORT);
        let serve = async move |reactor: Reactor| {
            let listener = reactor.listen(address).await.unwrap();
            let mut streams = Vec::new();
            loop {
                streams.push(listener.accept().await.unwrap());
            }
        };
        let (ended, refused) = (Rc::new(RefCell::new(None)), Rc::new(Cell::new(None)));
        let (tell, tell_refused) = (ended.clone(), refused.clone());
        world.start_shard(a, ShardId(0), 1, POOL, serve);
        world.run_for(SECOND);
        world.start_shard(b, ShardId(0), 1, POOL, async move |reactor| {
            let stream = reactor.connect(address).await.unwrap();
            let reader = stream.clone();
            let told = tell.clone();
            reactor.spawn(async move { *told.borrow_mut() = Some(reader.receive().await.map(|_| ())) }).detach();
            reactor.sleep(SECOND).await;
            let _ = send(&reactor, &stream, &[1; 100]).await;
            tell_refused.set(Some(reactor.connect(address).await.unwrap_err().kind()));
            reactor.sleep(60 * SECOND).await;
        });
        world.run_for(SECOND / 2);
        world.crash(a, kind);
        world.run_for(10 * SECOND);
        match kind {
            CrashKind::Kill => {
                assert!(ended.borrow().is_some());
                assert_eq!(refused.get(), Some(io::ErrorKind::ConnectionRefused));
            }
            CrashKind::PowerCut => {
                assert!(ended.borrow().is_none(), "nobody is there to say so");
                assert_eq!(refused.get(), Some(io::ErrorKind::TimedOut));
                world.start_shard(a, ShardId(0), 1, POOL, serve);
                world.run_for(SECOND);
                let heard = ended.borrow_mut().take().unwrap();
                assert_eq!(heard.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
            }
        }
    }
}

#[test]
fn connections_break_when_asked_to() {
    let mut broken = 0;
    for seed in 0..20 {
        let world = world(seed);
        world.net_mut().reset = 50_000;
        let (a, b) = (world.add_node("a"), world.add_client("b"));
        let address = SocketAddr::new(world.address(a), PORT);
        world.start_shard(a, ShardId(0), 1, POOL, async move |reactor| {
            let (stream, _) = reactor.listen(address).await.unwrap().accept().await.unwrap();
            while let Ok(Some(_)) = stream.receive().await {}
        });
        world.start_shard(b, ShardId(0), 1, POOL, async move |reactor| {
            reactor.sleep(SECOND).await;
            let stream = reactor.connect(address).await.unwrap();
            for _ in 0..20 {
                if send(&reactor, &stream, &[1; 1000]).await.is_err() {
                    return;
                }
            }
        });
        assert!(world.run_until(10 * SECOND, || !world.is_up(a) && !world.is_up(b)));
        broken += world.resets();
    }
    assert!(broken > 0 && broken < 20);
}

#[test]
fn connections_spread_over_the_shards_that_listen() {
    let world = world(8);
    let (server, client) = (world.add_node("server"), world.add_client("client"));
    let address = SocketAddr::new(world.address(server), PORT);
    let accepted: Rc<RefCell<[usize; 2]>> = Rc::default();
    for shard in 0..2 {
        let accepted = accepted.clone();
        world.start_shard(server, ShardId(shard), 2, POOL, async move |reactor| {
            let listener = reactor.listen(address).await.unwrap();
            loop {
                let _ = listener.accept().await.unwrap();
                accepted.borrow_mut()[shard as usize] += 1;
            }
        });
    }
    world.run_for(SECOND);
    run(&world, client, async move |reactor| {
        for _ in 0..40 {
            reactor.connect(address).await.unwrap();
        }
    });
    world.run_for(SECOND);
    let accepted = accepted.take();
    assert!(accepted.iter().all(|&count| count > 5) && accepted.iter().sum::<usize>() == 40, "{accepted:?}");
}

#[test]
fn shards_of_a_node_reach_each_other_and_wake_each_other() {
    let world = world(9);
    let node = world.add_node("node");
    let sum = Rc::new(Cell::new(0u64));
    for (shard, mesh) in mesh::build::<u64>(2, 8).into_iter().enumerate() {
        let sum = sum.clone();
        world.start_shard(node, ShardId(shard as u16), 2, POOL, async move |reactor| {
            let mesh = mesh.attach(&reactor);
            for number in 1..=100u64 {
                if shard == 0 {
                    reactor.sleep(Duration::from_micros(reactor.random() % 500)).await;
                    mesh.try_send(ShardId(1), number).unwrap();
                } else {
                    sum.set(sum.get() + mesh.receive().await.1);
                }
            }
        });
    }
    assert!(world.run_until(SECOND, || !world.is_up(node)));
    assert_eq!(sum.get(), 5050);
}

#[test]
#[should_panic(expected = "shard 0 of node runs on and never waits")]
fn a_task_that_never_waits_is_caught() {
    let world = World::new(10, WorldOptions { busy_turns_max: 1000, ..WorldOptions::default() });
    let node = world.add_node("node");
    world.start_shard(node, ShardId(0), 1, POOL, async |reactor| {
        loop {
            reactor.yield_now().await;
        }
    });
    world.run_for(SECOND);
}

#[test]
fn clocks_follow_the_world_and_jump_when_told() {
    let world = world(11);
    let node = world.add_node("node");
    let seen = Rc::new(Cell::new((0, 0)));
    let tell = seen.clone();
    world.start_shard(node, ShardId(0), 1, POOL, async move |reactor| {
        loop {
            reactor.sleep(SECOND).await;
            tell.set((reactor.now().nanos(), reactor.wall_clock().0));
        }
    });
    world.run_for(Duration::from_millis(1500));
    let before = seen.get();
    world.jump_clock(node, -3_600_000);
    world.run_for(SECOND);
    let after = seen.get();
    assert!((1_000_000_000..1_100_000_000).contains(&(after.0 - before.0)));
    assert!((-3_599_100..-3_598_900).contains(&(after.1 - before.1)));
}

#[test]
fn the_simulator_keeps_what_a_reactor_promises() {
    for seed in 0..20 {
        for case in suite::CASES {
            let world = world(seed);
            let node = world.add_node("node");
            let passed = Rc::new(Cell::new(false));
            let tell = passed.clone();
            world.start_shard(node, ShardId(0), 1, suite::POOL, async move |reactor| {
                suite::run_case(reactor, Path::new("/"), *case).await;
                tell.set(true);
            });
            assert!(world.run_until(600 * SECOND, || passed.get()), "{} with seed {seed}", case.0);
        }
        for case in suite::SHARDS_CASES {
            let world = world(seed);
            let node = world.add_node("node");
            let passed = Rc::new(Cell::new(0));
            for (shard, mesh) in (0..3).zip(mesh::build(3, suite::MESH_CAPACITY)) {
                let tell = passed.clone();
                world.start_shard(node, ShardId(shard), 3, suite::POOL, async move |reactor| {
                    let mesh = mesh.attach(&reactor);
                    suite::run_shards_case(reactor, mesh, *case).await;
                    tell.set(tell.get() + 1);
                });
            }
            assert!(world.run_until(600 * SECOND, || passed.get() == 3), "{} with seed {seed}", case.0);
        }
    }
}
