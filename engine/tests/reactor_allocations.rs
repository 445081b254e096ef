//! The record path of a reactor asks nothing of the heap once it is warm: receiving, sending, writing, timers, mesh.
//!
//! Each run does the same a number of times; twice as many times must cost as many allocations.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)] // a test from end to end

use corelog_engine::model::ShardId;
use corelog_engine::reactor::ring::Options;
use corelog_engine::reactor::{Open, Outgoing, Reactor, Stream, WriteSync, mesh, run_ring};
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

const ROUNDS: usize = 600;

/// Allocations of this thread for a run of so many rounds.
fn allocations<F: Future<Output = ()> + 'static>(rounds: usize, root: fn(Reactor, usize) -> F) -> u64 {
    let options = Options { pool_bytes: 8 << 20, ..Options::default() };
    allocation_counter::measure(move || run_ring(options, move |reactor| root(reactor, rounds)).unwrap()).count_total
}

fn assert_steady<F: Future<Output = ()> + 'static>(root: fn(Reactor, usize) -> F) {
    // Sockets may need a buffer more or less by chance: the least of some runs is what the path itself needs.
    let least = |rounds| (0..5).map(|_| allocations(rounds, root)).min();
    assert_eq!(least(ROUNDS), least(2 * ROUNDS));
}

async fn send_and_receive(reactor: &Reactor, stream: &Stream, mut out: Outgoing) -> Outgoing {
    let mut buffer = reactor.pool().buffer(100).unwrap();
    buffer.fill(7);
    let message = buffer.freeze();
    out.push(message.slice(0..40));
    out.push(message.slice(40..100));
    let (sent, out) = stream.send(out).await;
    sent.unwrap();
    let mut left = 100;
    while left > 0 {
        left -= stream.receive().await.unwrap().unwrap().len();
    }
    out
}

async fn echo(reactor: Reactor, rounds: usize) {
    let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let near = reactor.connect(listener.local_addr()).await.unwrap();
    let (far, _) = listener.accept().await.unwrap();
    let server = reactor.clone();
    let echo = reactor.spawn(async move {
        let mut out = Outgoing::new();
        for _ in 0..rounds {
            out = send_and_receive(&server, &far, out).await;
        }
    });
    let mut out = Outgoing::new();
    for _ in 0..rounds {
        out = send_and_receive(&reactor, &near, out).await;
    }
    echo.await;
}

async fn durable_writes(reactor: Reactor, rounds: usize) {
    let directory = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let file = reactor.open(&directory.path().join("file"), Open::CreateNew).await.unwrap();
    for round in 0..rounds {
        let buffer = reactor.pool().buffer(4096).unwrap();
        let sync = if round.is_multiple_of(8) { WriteSync::Data } else { WriteSync::None };
        file.write_at((round % 16) as u64 * 4096, buffer.freeze(), sync).await.unwrap();
    }
    let (read, _) = file.read_at(0, reactor.pool().buffer(4096).unwrap()).await;
    assert_eq!(read.unwrap(), 4096);
}

async fn timers_and_messages(reactor: Reactor, rounds: usize) {
    let Some(mesh) = mesh::build::<u64>(1, 16).pop() else { unreachable!() };
    let mesh = mesh.attach(&reactor);
    for round in 0..rounds as u64 {
        reactor.sleep(Duration::from_micros(10)).await;
        mesh.try_send(ShardId(0), round).unwrap();
        assert_eq!(mesh.receive().await, (ShardId(0), round));
        reactor.yield_now().await;
    }
}

#[test]
fn an_echo_allocates_nothing() {
    assert_steady(echo);
}

#[test]
fn durable_writes_allocate_nothing() {
    assert_steady(durable_writes);
}

#[test]
fn timers_and_messages_allocate_nothing() {
    assert_steady(timers_and_messages);
}
