//! What the reactor itself takes: a task spawned and run, a wake, a timer, a message to another core and back.
//! Run with `cargo bench -p corelog-bench --bench reactor`.

use corelog_engine::model::ShardId;
use corelog_engine::reactor::ring::Options;
use corelog_engine::reactor::{Reactor, mesh, run_ring};
use corelog_engine::shard::Event;
use criterion::{Criterion, criterion_group, criterion_main};
use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Small: nothing here needs buffers.
const POOL_BYTES: usize = 8 << 20;

fn options(shard: u16, shards: u16) -> Options {
    let spin = Duration::from_micros(50);
    Options { shard: ShardId(shard), shards, pool_bytes: POOL_BYTES, spin, log: |_| {}, ..Options::default() }
}

/// The time that `work` took on a reactor; criterion wants nothing but the time, whatever went wrong ends the benchmark.
#[expect(clippy::expect_used, reason = "a benchmark that cannot run has nothing to say")]
fn on_a_reactor<F: Future<Output = Duration> + 'static>(work: impl FnOnce(Reactor) -> F) -> Duration {
    run_ring(options(0, 1), work).expect("a reactor")
}

fn executor(criterion: &mut Criterion) {
    criterion.bench_function("executor: spawn a task and wait for it", |bencher| {
        bencher.iter_custom(|rounds| {
            on_a_reactor(async move |reactor| {
                let began = Instant::now();
                for _ in 0..rounds {
                    reactor.spawn(async {}).await;
                }
                began.elapsed()
            })
        });
    });
    criterion.bench_function("executor: wake a task, by turns", |bencher| {
        bencher.iter_custom(|rounds| on_a_reactor(async move |reactor| by_turns(&reactor, rounds).await));
    });
}

/// Two tasks that wake each other: half the time of a round is one wake.
async fn by_turns(reactor: &Reactor, rounds: u64) -> Duration {
    let (here, there) = (Rc::new(Event::default()), Rc::new(Event::default()));
    let other = {
        let (here, there) = (here.clone(), there.clone());
        reactor.spawn(async move {
            for _ in 0..rounds / 2 {
                there.wait().await;
                here.notify();
            }
        })
    };
    reactor.yield_now().await;
    let began = Instant::now();
    for _ in 0..rounds / 2 {
        let answered = here.wait();
        there.notify();
        answered.await;
    }
    let took = began.elapsed();
    other.await;
    took
}

fn timer(criterion: &mut Criterion) {
    criterion.bench_function("timer: set and taken back, beside 1,000 others", |bencher| {
        bencher.iter_custom(|rounds| {
            on_a_reactor(async move |reactor| {
                let far = Duration::from_secs(1000);
                let others = (0..1000).map(|_| {
                    let reactor = reactor.clone();
                    reactor.clone().spawn(async move { reactor.sleep(far).await })
                });
                let _others: Vec<_> = others.collect();
                reactor.yield_now().await;
                let began = Instant::now();
                for _ in 0..rounds {
                    let mut sleep = std::pin::pin!(reactor.sleep(far));
                    std::future::poll_fn(|context| std::task::Poll::Ready(sleep.as_mut().poll(context)))
                        .await
                        .is_ready();
                }
                began.elapsed()
            })
        });
    });
}

fn hop(criterion: &mut Criterion) {
    criterion.bench_function("mesh: a message to another core and back", |bencher| bencher.iter_custom(hops));
}

/// The time of so many messages there and back, one after the other, between two reactors that look for work.
#[expect(clippy::expect_used, reason = "a benchmark that cannot run has nothing to say")]
fn hops(rounds: u64) -> Duration {
    let mut meshes = mesh::build::<u64>(2, 64).into_iter();
    let (near, far) = (meshes.next().expect("one"), meshes.next().expect("another"));
    let over = Arc::new(AtomicBool::new(false));
    let stop = over.clone();
    let other = thread::spawn(move || {
        let options = Options { cpu: Some(1), ..options(1, 2) };
        let echo = async move |reactor: Reactor| {
            let mesh = far.attach(&reactor);
            while !stop.load(Ordering::Relaxed) {
                let (from, number) = mesh.receive().await;
                let _ = mesh.try_send(from, number);
            }
        };
        run_ring(options, echo).expect("a reactor")
    });
    let took = Rc::new(Cell::new(Duration::ZERO));
    let told = took.clone();
    let ask = async move |reactor: Reactor| {
        let mesh = near.attach(&reactor);
        let began = Instant::now();
        for number in 0..rounds {
            let _ = mesh.try_send(ShardId(1), number);
            mesh.receive().await;
        }
        told.set(began.elapsed());
        // One more lets the other see that it is over.
        over.store(true, Ordering::Relaxed);
        let _ = mesh.try_send(ShardId(1), 0);
        mesh.receive().await;
    };
    run_ring(Options { cpu: Some(0), ..options(0, 2) }, ask).expect("a reactor");
    other.join().expect("the other core's thread");
    took.get()
}

criterion_group! {
    name = benches;
    // Each measurement starts a reactor: few and long ones.
    config = Criterion::default().sample_size(10);
    targets = executor, timer, hop
}
criterion_main!(benches);
