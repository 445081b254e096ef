//! Puts a ring reactor together on the calling thread, and its run loop.
#![allow(unsafe_code)]

use super::descriptors::Descriptors;
use super::device::{Devices, DurableWrites};
use super::helper::Helper;
use super::operations::REGISTERED_MAX;
use super::probe::{self, Avoid, CannotRun, Features};
use super::provided::{Buffers, GROUP};
use super::queue::Queue;
use super::{RingDriver, monotonic};
use crate::model::ShardId;
use crate::reactor::buffers::Pool;
use crate::reactor::door::Door;
use crate::reactor::driver::{Drive, Driver};
use crate::reactor::{Instant, Reactor, Task, Turn};
use io_uring::IoUring;
use nix::sched::{CpuSet, sched_setaffinity, sched_yield};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::Pid;
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// Most files of the ring's table. Beyond, files are used by descriptor.
const REGISTERED_FILES_MAX: usize = 32 << 10;

/// How to run a shard's reactor.
#[derive(Debug, Clone)]
pub struct Options {
    /// Which shard this is.
    pub shard: ShardId,
    /// Shards of the node.
    pub shards: u16,
    /// The core to pin the thread to; `None` leaves it to the kernel.
    pub cpu: Option<usize>,
    /// Bytes of the buffer pool.
    pub pool_bytes: usize,
    /// Entries of the submission queue, a power of two. The completion queue has four times as many.
    pub entries: u32,
    /// How long to look for work before going to sleep.
    pub spin: Duration,
    /// Buffers for what arrives on sockets, a power of two up to 32768.
    pub receive_buffers: u16,
    /// Bytes of each of them, a multiple of 4096.
    pub receive_buffer_bytes: usize,
    /// How [`WriteSync::Data`](crate::reactor::WriteSync) is done.
    pub durable_writes: DurableWrites,
    /// Features to leave aside.
    pub avoid: Avoid,
    /// Takes one line for each feature that is absent. What holds for the whole machine is said by shard 0 alone.
    pub log: fn(&str),
}

impl Default for Options {
    fn default() -> Options {
        Options {
            shard: ShardId(0),
            shards: 1,
            cpu: None,
            pool_bytes: 64 << 20,
            entries: 1024,
            spin: Duration::from_micros(50),
            receive_buffers: 512,
            receive_buffer_bytes: 16 << 10,
            durable_writes: DurableWrites::Auto,
            avoid: Avoid::default(),
            log: |line| eprintln!("{line}"),
        }
    }
}

/// Why a reactor did not run its future to the end.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// This machine cannot run it.
    #[error(transparent)]
    CannotRun(#[from] CannotRun),
    /// The operating system refused something.
    #[error("cannot start shard {shard}: {what}: {source}")]
    Io {
        /// The shard.
        shard: ShardId,
        /// What was refused.
        what: &'static str,
        /// The reason given.
        source: io::Error,
    },
    /// [`Reactor::stop`] was called first.
    #[error("the reactor was stopped before its work was done")]
    Stopped,
}

/// Builds a reactor on this thread, runs the future that `root` makes to its end, and drops all other tasks.
/// When this returns, nothing is in flight. Operations asked for afterwards, of what `T` may hold, are refused.
///
/// # Errors
/// See [`StartError`].
pub fn run_ring<T: 'static, F: Future<Output = T> + 'static>(
    options: Options,
    root: impl FnOnce(Reactor) -> F,
) -> Result<T, StartError> {
    let spin = options.spin;
    let reactor = build(options)?;
    // Also when a task panics: what the kernel writes to must not be freed before it is done.
    let _end = End(&reactor);
    let mut root = reactor.spawn(root(reactor.clone()));
    run(&reactor, &root, spin);
    match Pin::new(&mut root).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Ok(value),
        Poll::Pending => Err(StartError::Stopped),
    }
}

struct End<'a>(&'a Reactor);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

fn run<T>(reactor: &Reactor, root: &Task<T>, spin: Duration) {
    loop {
        let turn = reactor.turn();
        if root.is_finished() || reactor.is_stopping() {
            return;
        }
        let news = take_in(reactor);
        if let (Turn::Idle(until), false) = (turn, news) {
            wait(reactor, until, spin);
        }
    }
}

fn take_in(reactor: &Reactor) -> bool {
    reactor.with_ops(|driver, ops, counters| driver.poll(ops, counters))
}

/// Looks for work for a while, because sleeping and waking takes longer than most answers; then sleeps. Yields in
/// between: the core that takes the disk's interrupts would otherwise keep them from being served.
fn wait(reactor: &Reactor, until: Option<Instant>, spin: Duration) {
    let began = monotonic();
    loop {
        let now = monotonic();
        if until.is_some_and(|until| until <= now) {
            return;
        }
        if now.since(began) >= spin {
            break;
        }
        let _ = sched_yield();
        if take_in(reactor) || reactor.wake_readers() {
            return;
        }
    }
    if reactor.close_eyes() {
        reactor.with_ops(|driver, ops, counters| driver.park(ops, counters, until));
        reactor.open_eyes();
    }
}

fn build(options: Options) -> Result<Reactor, StartError> {
    let shard = options.shard;
    let refused = |what| move |source| StartError::Io { shard, what, source };
    let bell = Arc::new(event_counter().map_err(refused("an event counter"))?);
    // Before this thread is pinned: the helper, and the kernel's workers that flush, must not share its core.
    let cpus = cpus_allowed();
    let helper = Helper::start(format!("helper-{shard}"), bell.clone()).map_err(refused("its helper thread"))?;
    if let Some(cpu) = options.cpu {
        pin(cpu).map_err(refused("pinning its thread"))?;
    }
    let (ring, features) = probe::build(options.entries, options.avoid)?;
    // Without it, or where it is refused, a flush waits until this thread has nothing to do.
    let _ = cpus.and_then(|cpus| ring.submitter().register_iowq_aff(&cpus));
    let pool = Pool::new(options.pool_bytes).map_err(refused("the buffer pool's memory"))?;
    let buffers = Buffers::new(options.receive_buffers, options.receive_buffer_bytes, features.multishot_receive);
    let buffers = buffers.map_err(refused("the receive buffers' memory"))?;
    let mut driver = Parts { options: &options, ring, features, pool: &pool, buffers, bell, helper }
        .assemble()
        .map_err(refused("registering receive buffers"))?;
    driver.arm_bell();
    Ok(Reactor::new(shard, options.shards, pool, Driver::Ring(Box::new(driver))))
}

/// What a driver is made of.
struct Parts<'a> {
    options: &'a Options,
    ring: IoUring,
    features: Features,
    pool: &'a Pool,
    buffers: Rc<Buffers>,
    bell: Arc<OwnedFd>,
    helper: Helper,
}

impl Parts<'_> {
    fn assemble(mut self) -> io::Result<RingDriver> {
        if self.features.multishot_receive {
            self.register_receive_buffers()?;
        }
        let registered_files = self.register_files();
        let pool_registered = self.register_pool();
        let address = self.ring.as_raw_fd() as u64;
        if self.options.shard == ShardId(0) {
            self.features.notes.iter().for_each(|note| (self.options.log)(note));
        }
        let descriptors = Descriptors::new(registered_files, self.features.registered_sockets);
        Ok(RingDriver {
            queue: Queue::new(self.ring),
            features: self.features,
            log: self.options.log,
            work: Vec::new(),
            descriptors,
            devices: Devices::new(self.options.durable_writes),
            buffers: self.buffers,
            pool: self.pool.clone(),
            pool_registered,
            starved: VecDeque::new(),
            crowded: Vec::new(),
            helper: self.helper,
            door: Arc::new(Door::with_counter(address, self.bell.clone())),
            bell: self.bell,
            bell_count: Box::new(0),
            bell_armed: false,
            random: seed()?,
            in_flight: 0,
            armed: 0,
            draining: false,
            said_buffered: false,
        })
    }

    fn register_receive_buffers(&self) -> io::Result<()> {
        let (address, count) = (self.buffers.ring_address(), self.buffers.count());
        // SAFETY: the ring of buffers lives as long as the driver, which drops the kernel's ring first.
        unsafe { self.ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }
    }

    /// Size of the table of open files that the kernel grants.
    fn register_files(&mut self) -> usize {
        let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft as usize);
        let size = limit.min(REGISTERED_FILES_MAX);
        if self.options.avoid.registered_files || self.ring.submitter().register_files(&vec![-1; size]).is_err() {
            self.features.notes.push("no registered files: the kernel looks each one up".to_owned());
            return 0;
        }
        size
    }

    fn register_pool(&mut self) -> bool {
        let (base, bytes) = (self.pool.base(), self.pool.total_bytes());
        let pieces: Vec<libc::iovec> = (0..bytes)
            .step_by(REGISTERED_MAX)
            .map(|at| libc::iovec { iov_base: base.wrapping_add(at).cast(), iov_len: REGISTERED_MAX.min(bytes - at) })
            .collect();
        // SAFETY: the pieces cover the pool's region, which lives as long as the driver, which drops the ring first.
        let registered = !self.options.avoid.registered_buffers
            && unsafe { self.ring.submitter().register_buffers(&pieces) }.is_ok();
        if !registered {
            let note = "buffers are not registered: raise the memory that may be locked (`ulimit -l`, LimitMEMLOCK=) \
                        above the memory budget";
            self.features.notes.push(note.to_owned());
        }
        registered
    }
}

fn pin(cpu: usize) -> io::Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &cpus)?)
}

/// The cores on which this thread may run.
fn cpus_allowed() -> io::Result<libc::cpu_set_t> {
    // SAFETY: all zeros is an empty set, and the size is that of the set that is filled.
    unsafe {
        let mut cpus: libc::cpu_set_t = std::mem::zeroed();
        match libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut cpus) {
            0 => Ok(cpus),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn event_counter() -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers; the descriptor it returns is new and ours.
    unsafe {
        let fd = libc::eventfd(0, libc::EFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

fn seed() -> io::Result<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the pointer and length are those of `bytes`.
    let filled = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if filled == 8 { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::Error::last_os_error()) }
}
