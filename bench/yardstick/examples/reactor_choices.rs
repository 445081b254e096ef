//! What each choice of the reactor brings on this machine: `docs/decisions/001` and `002` quote it.
//!
//! ```text
//! cargo run --release -p corelog-yardstick --example reactor_choices -- [DIRECTORY] [ROUNDS] [SECONDS PER RUN]
//! ```
//! All variants run in turn, round after round, and medians are shown, so that a busy machine troubles them alike.
//! DIRECTORY must lie on the disk to be measured.
#![allow(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic)] // a measurement that cannot go on has nothing to say

use corelog_engine::model::ShardId;
use corelog_engine::reactor::ring::{Avoid, DurableWrites, Options};
use corelog_engine::reactor::{File, Listener, Open, Outgoing, Reactor, Slice, Stream, WriteSync, run_ring};
use io_uring::{IoUring, opcode, squeue, types};
use std::alloc::{Layout, alloc_zeroed};
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

const FILE_BYTES: u64 = 64 << 20;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().unwrap_or_else(|| ".".to_owned()));
    let rounds: usize = arguments.next().map_or(5, |text| text.parse().unwrap());
    let seconds: f64 = arguments.next().map_or(1.0, |text| text.parse().unwrap());
    let path = directory.join(format!("reactor-choices-{}", std::process::id()));
    std::fs::write(&path, vec![0; FILE_BYTES as usize]).unwrap();
    std::fs::File::open(&path).unwrap().sync_all().unwrap();
    flushes(&path, rounds, Duration::from_secs_f64(seconds));
    reads(&path, rounds, Duration::from_secs_f64(seconds));
    echoes(&path, rounds, Duration::from_secs_f64(seconds));
    std::fs::remove_file(&path).unwrap();
}

// One durable write ---------------------------------------------------------------------------------------------------

#[derive(Clone, Copy, PartialEq)]
enum Flush {
    /// The write itself is durable (RWF_DSYNC).
    Dsync,
    /// A write, and linked to it an fdatasync.
    Linked,
}

/// Short windows in turn. The tenth percentile of their medians is what the machine does when it is left alone, the
/// median what it did.
fn flushes(path: &Path, rounds: usize, run: Duration) {
    println!(
        "durable write into zero-filled blocks, one at a time: us, when quiet (and over all), CPU us of the process"
    );
    println!("{:>10} {:>22} {:>22} {:>8} {:>8}", "bytes", "dsync", "write + fdatasync", "ratio", "(all)");
    for bytes in [4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20] {
        let mut windows = [Vec::new(), Vec::new()];
        for _ in 0..rounds * 8 {
            for (index, flush) in [Flush::Dsync, Flush::Linked].into_iter().enumerate() {
                windows[index].push(flush_window(path, bytes, flush, run / 8));
            }
        }
        let [dsync, linked] = windows.map(|windows| {
            let of = |part: fn(&(f64, f64)) -> f64, at| percentile(windows.iter().map(part).collect(), at);
            (of(|w| w.0, 0.1), of(|w| w.0, 0.5), of(|w| w.1, 0.5))
        });
        let shown = |(quiet, all, cpu): (f64, f64, f64)| format!("{quiet:.0} ({all:.0}) {cpu:.0}");
        let (quiet, all) = (linked.0 / dsync.0, linked.1 / dsync.1);
        println!("{bytes:>10} {:>22} {:>22} {quiet:>8.2} {all:>8.2}", shown(dsync), shown(linked));
    }
}

/// Median time and CPU time of a write.
fn flush_window(path: &Path, bytes: u64, flush: Flush, run: Duration) -> (f64, f64) {
    let file = std::fs::File::options().write(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    let mut ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8).unwrap();
    let layout = Layout::from_size_align(bytes as usize, 4096).unwrap();
    // SAFETY: the layout is not empty.
    let memory = unsafe { alloc_zeroed(layout) };
    let fd = types::Fd(file.as_raw_fd());
    let (mut taken, began, mut position) = (Vec::new(), Instant::now(), 0);
    let cpu = cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID);
    while began.elapsed() < run {
        let write = opcode::Write::new(fd, memory, bytes as u32).offset(position);
        let at = Instant::now();
        let entries = match flush {
            Flush::Dsync => vec![write.rw_flags(libc::RWF_DSYNC).build()],
            Flush::Linked => vec![
                write.build().flags(squeue::Flags::IO_LINK),
                opcode::Fsync::new(fd).flags(types::FsyncFlags::DATASYNC).build(),
            ],
        };
        // SAFETY: the memory is freed below, when all is complete.
        unsafe { ring.submission().push_multiple(&entries).unwrap() };
        ring.submit_and_wait(entries.len()).unwrap();
        assert!(ring.completion().all(|completion: io_uring::cqueue::Entry| completion.result() >= 0));
        taken.push(at.elapsed().as_secs_f64() * 1e6);
        position = (position + bytes) % FILE_BYTES;
    }
    let cpu = cpu_time(libc::CLOCK_PROCESS_CPUTIME_ID) - cpu;
    // SAFETY: allocated above with this layout; no operation is in flight.
    unsafe { std::alloc::dealloc(memory, layout) };
    let count = taken.len() as f64;
    (median(taken), cpu.as_secs_f64() * 1e6 / count)
}

fn median(values: Vec<f64>) -> f64 {
    percentile(values, 0.5)
}

fn percentile(mut values: Vec<f64>, at: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() as f64 * at) as usize]
}

// Reads over the reactor ----------------------------------------------------------------------------------------------

fn reads(path: &Path, rounds: usize, run: Duration) {
    println!("\n8 reads at a time past the page cache: CPU us of the shard's thread per read, ratio to the first");
    let variants = [
        ("all features", Avoid::default()),
        ("no registered buffers", Avoid { registered_buffers: true, ..Avoid::default() }),
        ("no registered files", Avoid { registered_files: true, ..Avoid::default() }),
    ];
    for bytes in [4 << 10, 64 << 10, 1 << 20] {
        let mut taken = [const { Vec::new() }; 3];
        for _ in 0..rounds {
            for (index, (_, avoid)) in variants.iter().enumerate() {
                taken[index].push(read_run(path, *avoid, bytes, run / 2));
            }
        }
        let taken = taken.map(median);
        for ((name, _), cpu) in variants.iter().zip(taken) {
            println!("{bytes:>10} {name:<24} {cpu:>8.1} {:>8.2}", cpu / taken[0]);
        }
    }
}

fn read_run(path: &Path, avoid: Avoid, bytes: usize, run: Duration) -> f64 {
    let options = Options { spin: Duration::ZERO, avoid, log: |_| {}, ..Options::default() };
    let path = path.to_owned();
    run_ring(options, async move |reactor| {
        let file = reactor.open(&path, Open::Read).await.unwrap();
        let (began, until) = (cpu_time(libc::CLOCK_THREAD_CPUTIME_ID), reactor.now().plus(run));
        let count = Rc::new(Cell::new(0u64));
        let tasks: Vec<_> = (0..8)
            .map(|_| reactor.spawn(read_on(reactor.clone(), file.clone(), bytes, until, count.clone())))
            .collect();
        for task in tasks {
            task.await;
        }
        (cpu_time(libc::CLOCK_THREAD_CPUTIME_ID) - began).as_secs_f64() * 1e6 / count.get() as f64
    })
    .unwrap()
}

async fn read_on(
    reactor: Reactor,
    file: File,
    bytes: usize,
    until: corelog_engine::reactor::Instant,
    count: Rc<Cell<u64>>,
) {
    let mut buffer = reactor.pool().buffer(bytes).unwrap();
    while reactor.now() < until {
        let position = reactor.random() % (FILE_BYTES / bytes as u64) * bytes as u64;
        let (read, back) = file.read_at(position, buffer).await;
        assert_eq!(read.unwrap(), bytes);
        buffer = back;
        count.set(count.get() + 1);
    }
}

// An echo over the reactor --------------------------------------------------------------------------------------------

/// What one run gave.
#[derive(Clone, Copy)]
struct Run {
    per_second: f64,
    cpu_us: f64,
    p50_us: f64,
    p99_us: f64,
}

fn echoes(path: &Path, rounds: usize, run: Duration) {
    let base = || Options { cpu: Some(0), spin: Duration::from_micros(50), log: |_| {}, ..Options::default() };
    let avoiding = |avoid| Options { avoid, ..base() };
    let spinning = |micros| Options { spin: Duration::from_micros(micros), ..base() };
    let plain = Avoid::default();
    let variants: Vec<(&str, Options)> = vec![
        ("all features, spin 50 us", base()),
        ("durable writes by DSYNC", Options { durable_writes: DurableWrites::Dsync, ..base() }),
        ("durable writes by a flush", Options { durable_writes: DurableWrites::Flush, ..base() }),
        ("spin 0", spinning(0)),
        ("spin 10 us", spinning(10)),
        ("spin 20 us", spinning(20)),
        ("spin 100 us", spinning(100)),
        ("spin 200 us", spinning(200)),
        ("spin 1 ms", spinning(1000)),
        ("no deferred completions", avoiding(Avoid { deferred_completions: true, ..plain })),
        ("no multishot receive", avoiding(Avoid { multishot_receive: true, ..plain })),
        ("no registered files", avoiding(Avoid { registered_files: true, ..plain })),
        ("no registered buffers", avoiding(Avoid { registered_buffers: true, ..plain })),
        ("none of them", avoiding(Avoid::ALL)),
    ];
    for (connections, write) in [(64, 0), (64, 4096), (1, 4096)] {
        let mut runs: Vec<Vec<Run>> = vec![Vec::new(); variants.len()];
        for _ in 0..rounds {
            for (index, (_, options)) in variants.iter().enumerate() {
                runs[index].push(echo_run(path, options.clone(), connections, write, run));
            }
        }
        println!("\n1 KiB echo, {connections} connections, commits of {write} bytes; ratios to the first line");
        println!("{:<28} {:>8} {:>9} {:>8} {:>8} {:>14}", "", "ech/s", "CPU/echo", "p50", "p99", "(ech/s, us)");
        let first = middle(&runs[0]);
        for ((name, _), runs) in variants.iter().zip(&runs) {
            let run = middle(runs);
            println!(
                "{name:<28} {:>8.2} {:>9.2} {:>8.2} {:>8.2} {:>14}",
                run.per_second / first.per_second,
                run.cpu_us / first.cpu_us,
                run.p50_us / first.p50_us,
                run.p99_us / first.p99_us,
                format!("{:.0}, {:.0}", run.per_second, run.p50_us),
            );
        }
    }
}

fn middle(runs: &[Run]) -> Run {
    let of = |pick: fn(&Run) -> f64| median(runs.iter().map(pick).collect());
    Run {
        per_second: of(|r| r.per_second),
        cpu_us: of(|r| r.cpu_us),
        p50_us: of(|r| r.p50_us),
        p99_us: of(|r| r.p99_us),
    }
}

fn echo_run(path: &Path, options: Options, connections: usize, write: usize, run: Duration) -> Run {
    let (address, path) = (Arc::new(OnceLock::new()), path.to_owned());
    let (told, stop) = (address.clone(), Arc::new(AtomicBool::new(false)));
    let stopped = stop.clone();
    let server = std::thread::spawn(move || {
        run_ring(options, async move |reactor| serve(reactor, &path, write, &told, &stopped).await).unwrap()
    });
    let (latencies, taken) = channel();
    let client = Options { shard: ShardId(0), cpu: Some(1), log: |_| {}, ..Options::default() };
    let began = Instant::now();
    run_ring(client, async move |reactor| {
        while address.get().is_none() {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        let address = *address.get().unwrap();
        let until = reactor.now().plus(run);
        let tasks: Vec<_> =
            (0..connections).map(|_| reactor.spawn(ask(reactor.clone(), address, until, latencies.clone()))).collect();
        for task in tasks {
            task.await;
        }
    })
    .unwrap();
    let elapsed = began.elapsed();
    stop.store(true, Ordering::Relaxed);
    let cpu = server.join().unwrap();
    let mut micros: Vec<f64> = taken.try_iter().flatten().collect();
    micros.sort_by(f64::total_cmp);
    Run {
        per_second: micros.len() as f64 / elapsed.as_secs_f64(),
        cpu_us: cpu.as_secs_f64() * 1e6 / micros.len() as f64,
        p50_us: micros[micros.len() / 2],
        p99_us: micros[micros.len() * 99 / 100],
    }
}

/// Sends 1 KiB, waits for its answer, again and again.
async fn ask(
    reactor: Reactor,
    address: SocketAddr,
    until: corelog_engine::reactor::Instant,
    latencies: Sender<Vec<f64>>,
) {
    let stream = reactor.connect(address).await.unwrap();
    let request = reactor.pool().buffer(1024).unwrap().freeze();
    let (mut out, mut taken) = (Outgoing::new(), Vec::with_capacity(1 << 16));
    while reactor.now() < until {
        let at = Instant::now();
        out = exchange(&stream, out, &request).await;
        taken.push(at.elapsed().as_secs_f64() * 1e6);
    }
    latencies.send(taken).unwrap();
}

async fn exchange(stream: &Stream, mut out: Outgoing, request: &Slice) -> Outgoing {
    out.push(request.clone());
    let (sent, out) = stream.send(out).await;
    sent.unwrap();
    stream.receive().await.unwrap().unwrap();
    out
}

/// Who waits for a commit. One write makes durable all that came before it began.
#[derive(Default)]
struct Commits {
    wanted: Cell<u64>,
    done: Cell<u64>,
    committer: RefCell<Option<Waker>>,
    waiting: RefCell<Vec<Waker>>,
}

/// Returns the CPU time of serving, without that of starting.
async fn serve(
    reactor: Reactor,
    path: &Path,
    write: usize,
    address: &OnceLock<SocketAddr>,
    stop: &AtomicBool,
) -> Duration {
    let file = reactor.open(path, Open::ReadWrite).await.unwrap();
    let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let began = cpu_time(libc::CLOCK_THREAD_CPUTIME_ID);
    address.set(listener.local_addr()).unwrap();
    let commits = (write > 0).then(|| Rc::new(Commits::default()));
    if let Some(commits) = &commits {
        reactor.spawn(commit(reactor.clone(), file, write, commits.clone())).detach();
    }
    reactor.spawn(accept(reactor.clone(), listener, commits)).detach();
    while !stop.load(Ordering::Relaxed) {
        reactor.sleep(Duration::from_millis(5)).await;
    }
    cpu_time(libc::CLOCK_THREAD_CPUTIME_ID) - began
}

async fn accept(reactor: Reactor, listener: Listener, commits: Option<Rc<Commits>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        reactor.spawn(answer(stream, commits.clone())).detach();
    }
}

async fn answer(stream: Stream, commits: Option<Rc<Commits>>) {
    let mut out = Outgoing::new();
    while let Ok(Some(chunk)) = stream.receive().await {
        drop(chunk);
        if let Some(commits) = &commits {
            commits.wait().await;
        }
        out.push(Slice::from_static(b"done"));
        out = stream.send(out).await.1;
    }
}

impl Commits {
    /// Waits for the next commit to begin, and for its end.
    async fn wait(&self) {
        let wanted = self.wanted.get() + 1;
        self.committer.borrow_mut().take().into_iter().for_each(Waker::wake);
        poll_fn(|cx| {
            if self.done.get() >= wanted {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

async fn commit(reactor: Reactor, file: File, write: usize, commits: Rc<Commits>) {
    let data = reactor.pool().buffer(write).unwrap().freeze();
    let mut position = 0;
    loop {
        poll_fn(|cx| {
            if !commits.waiting.borrow().is_empty() {
                return Poll::Ready(());
            }
            *commits.committer.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        commits.wanted.set(commits.wanted.get() + 1);
        let covered: Vec<Waker> = commits.waiting.borrow_mut().drain(..).collect();
        file.write_at(position, data.clone(), WriteSync::Data).await.unwrap();
        position = (position + write as u64) % FILE_BYTES;
        commits.done.set(commits.wanted.get());
        covered.into_iter().for_each(Waker::wake);
    }
}

fn cpu_time(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
