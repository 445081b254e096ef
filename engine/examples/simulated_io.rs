//! How many simulated operations of the disk and the network pass in a second of real time.
//!
//! `cargo run --release -p corelog-engine --example simulated_io`
#![allow(missing_docs, clippy::unwrap_used)]

use corelog_engine::model::ShardId;
use corelog_engine::reactor::sim::{World, WorldOptions};
use corelog_engine::reactor::{Open, Outgoing, Reactor, WriteSync};
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

const HOUR: Duration = Duration::from_secs(3600);

fn main() {
    report("4 KiB write + flush, one at a time", 2 * 200_000, |world| {
        let node = world.add_node("node");
        world.start_shard(node, ShardId(0), 1, 1 << 20, |reactor| commits(reactor, "a", 200_000));
    });
    report("4 KiB write + flush, 32 tasks", 2 * 32 * 10_000, |world| {
        let node = world.add_node("node");
        world.start_shard(node, ShardId(0), 1, 1 << 20, async |reactor| {
            let tasks: Vec<_> =
                (0..32).map(|n| reactor.spawn(commits(reactor.clone(), &n.to_string(), 10_000))).collect();
            for task in tasks {
                task.await;
            }
        });
    });
    report("1 KiB echo over a connection, sends", 2 * 100_000, |world| {
        let (server, client) = (world.add_node("server"), world.add_client("client"));
        let address = SocketAddr::new(world.address(server), 1);
        world.start_shard(server, ShardId(0), 1, 1 << 20, move |reactor| echo(reactor, address));
        world.run_for(Duration::from_secs(1));
        world.start_shard(client, ShardId(0), 1, 1 << 20, move |reactor| talk(reactor, address, 100_000));
    });
}

fn report(what: &str, ops: u64, start: impl FnOnce(&World)) {
    let world = World::new(1, WorldOptions::default());
    start(&world);
    let began = Instant::now();
    world.run_for(HOUR);
    let took = began.elapsed().as_secs_f64();
    println!("{what}: {:.0} ops/s, {:.0} events/s", ops as f64 / took, world.events() as f64 / took);
}

fn commits(reactor: Reactor, name: &str, count: u64) -> impl Future<Output = ()> + use<> {
    let name = name.to_owned();
    async move {
        let file = reactor.open(Path::new(&name), Open::Create).await.unwrap();
        for number in 0..count {
            let mut buffer = reactor.pool().buffer(4096).unwrap();
            buffer.fill(number as u8);
            file.write_at(number % 1000 * 4096, buffer.freeze(), WriteSync::None).await.unwrap();
            file.sync_data().await.unwrap();
        }
    }
}

async fn echo(reactor: Reactor, address: SocketAddr) {
    let (stream, _) = reactor.listen(address).await.unwrap().accept().await.unwrap();
    while let Some(chunk) = stream.receive().await.unwrap() {
        let mut buffer = reactor.pool().buffer(chunk.len()).unwrap();
        buffer.copy_from_slice(&chunk);
        let mut out = Outgoing::new();
        out.push(buffer.freeze());
        stream.send(out).await.0.unwrap();
    }
}

async fn talk(reactor: Reactor, address: SocketAddr, count: u64) {
    let stream = reactor.connect(address).await.unwrap();
    for _ in 0..count {
        let mut out = Outgoing::new();
        out.push(reactor.pool().buffer(1024).unwrap().freeze());
        stream.send(out).await.0.unwrap();
        let mut left = 1024;
        while left > 0 {
            left -= stream.receive().await.unwrap().unwrap().len();
        }
    }
}
