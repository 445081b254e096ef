//! Counts the system calls of a thread of another process, with ptrace(2).
//!
//! Each call stops the thread twice and takes many times as long as otherwise: times mean nothing meanwhile.

use crate::error::{BenchError, Doing, Result};
use nix::libc;
use nix::sched::sched_yield;
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No thread is traced for longer, whatever becomes of who asked for it.
const LONGEST: Duration = Duration::from_secs(5);
/// The number of the ring's call.
const IO_URING_ENTER: i64 = libc::SYS_io_uring_enter;
const DOING: &str = "tracing the server's system calls with ptrace";

/// Counts a thread's system calls until it is stopped or dropped.
///
/// The kernel knows a tracer by its thread, so it has one of its own. When that ends, for whatever reason, the kernel lets go
/// of what it traced.
pub(crate) struct Tracer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<io::Result<()>>>,
}

#[derive(Default)]
struct Shared {
    /// Calls of io_uring_enter.
    rings: AtomicU64,
    /// All others.
    others: AtomicU64,
    is_over: AtomicBool,
}

impl Tracer {
    /// Begins with the thread of this name of a process.
    ///
    /// # Errors
    /// When there is none. Of kind `PermissionDenied` or `Unsupported` when it may not or cannot be traced here.
    pub(crate) fn start(pid: u32, thread: &str) -> Result<Tracer> {
        if !cfg!(target_arch = "x86_64") {
            return Err(io::Error::new(ErrorKind::Unsupported, "only on x86_64 are calls told apart")).doing(DOING);
        }
        let traced = thread_of(pid, thread)?;
        let (shared, (tell, told)) = (Arc::new(Shared::default()), sync_channel(1));
        let thread = thread::spawn({
            let shared = shared.clone();
            move || trace(traced, &shared, &tell)
        });
        let mut tracer = Tracer { shared, thread: Some(thread) };
        // Where it could not begin it ends, and says why.
        match told.recv() {
            Ok(()) => Ok(tracer),
            Err(_) => tracer.join().and(Err(BenchError::Server("the tracer ended before it began".into()))),
        }
    }

    /// How many calls other than io_uring_enter there were so far.
    ///
    /// # Errors
    /// When it does not count any more.
    pub(crate) fn calls(&self) -> Result<u64> {
        match self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
            true => Err(BenchError::Server(format!("{DOING}: it ended by itself"))),
            false => Ok(self.shared.others.load(Ordering::Relaxed)),
        }
    }

    /// Lets go of the thread. Answers how many calls of io_uring_enter there were: without any, nothing was counted.
    ///
    /// # Errors
    /// What the tracing ended with.
    pub(crate) fn stop(mut self) -> Result<u64> {
        self.join()?;
        Ok(self.shared.rings.load(Ordering::Relaxed))
    }

    fn join(&mut self) -> Result<()> {
        self.shared.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().unwrap_or_else(|_| Err(io::Error::other("its thread panicked"))).doing(DOING)
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        let _ = self.join();
    }
}

fn thread_of(pid: u32, name: &str) -> Result<Pid> {
    for thread in fs::read_dir(format!("/proc/{pid}/task")).doing(DOING)?.flatten() {
        // One that ended meanwhile is not the one.
        let is_it = fs::read_to_string(thread.path().join("comm")).is_ok_and(|comm| comm.trim_end() == name);
        if let (true, Some(id)) = (is_it, thread.file_name().to_str().and_then(|id| id.parse().ok())) {
            return Ok(Pid::from_raw(id));
        }
    }
    Err(BenchError::Server(format!("{DOING}: process {pid} has no thread {name}")))
}

/// Counts until it is told that it is over; at most for [`LONGEST`].
fn trace(thread: Pid, shared: &Shared, ready: &SyncSender<()>) -> io::Result<()> {
    let mut traced = Traced::seize(thread)?;
    let _ = ready.send(());
    let deadline = Instant::now() + LONGEST;
    while Instant::now() < deadline {
        let is_over = shared.is_over.load(Ordering::Relaxed);
        match traced.next_stop()? {
            // It may sleep in the ring for want of work, and is let go of in a stop only.
            None if is_over => ptrace::interrupt(thread)?,
            None => drop(sched_yield()),
            Some(stop) if is_over => return Ok(ptrace::detach(thread, stop.signal)?),
            Some(stop) => {
                match stop.call {
                    Some(IO_URING_ENTER) => drop(shared.rings.fetch_add(1, Ordering::Relaxed)),
                    Some(_) => drop(shared.others.fetch_add(1, Ordering::Relaxed)),
                    None => {}
                }
                ptrace::syscall(thread, stop.signal)?;
            }
        }
    }
    Err(io::Error::new(ErrorKind::TimedOut, format!("nobody stopped it for {LONGEST:?}")))
}

/// A thread of another process that this thread traces.
struct Traced {
    thread: Pid,
    is_in_call: bool,
}

/// Where it has stopped.
#[derive(Default)]
struct Stop {
    /// The number of the call that begins here.
    call: Option<i64>,
    /// What it is to be given when it goes on.
    signal: Option<Signal>,
}

impl Traced {
    fn seize(thread: Pid) -> io::Result<Traced> {
        ptrace::seize(thread, ptrace::Options::PTRACE_O_TRACESYSGOOD)?;
        // It runs on; from a stop on it can be told to stop at its calls.
        ptrace::interrupt(thread)?;
        Ok(Traced { thread, is_in_call: false })
    }

    /// The stop that it is in, if it is.
    fn next_stop(&mut self) -> io::Result<Option<Stop>> {
        match waitpid(self.thread, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL))? {
            WaitStatus::StillAlive => Ok(None),
            // They come in pairs: where a call begins, and where it ends.
            WaitStatus::PtraceSyscall(_) => {
                self.is_in_call = !self.is_in_call;
                let call = if self.is_in_call { Some(number(self.thread)?) } else { None };
                Ok(Some(Stop { call, signal: None }))
            }
            WaitStatus::PtraceEvent(..) => Ok(Some(Stop::default())),
            WaitStatus::Stopped(_, signal) => Ok(Some(Stop { call: None, signal: Some(signal) })),
            ended => Err(io::Error::other(format!("the thread has ended: {ended:?}"))),
        }
    }
}

/// The number of the call that a thread has stopped at.
#[cfg(target_arch = "x86_64")]
fn number(thread: Pid) -> io::Result<i64> {
    Ok(ptrace::getregs(thread)?.orig_rax.cast_signed())
}

#[cfg(not(target_arch = "x86_64"))]
fn number(_: Pid) -> io::Result<i64> {
    Err(ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    /// A program that is killed when the test is over.
    struct Running(Child);

    impl Running {
        fn start(program: &str, argument: &str) -> Running {
            let child = Command::new(program).arg(argument).stdout(Stdio::null()).spawn().expect("a program to trace");
            let running = Running(child);
            // Between fork and exec it has the name of who started it.
            wait_until(|| thread_of(running.pid(), program).is_ok());
            running
        }

        fn pid(&self) -> u32 {
            let Running(child) = self;
            child.id()
        }

        fn is_free(&self) -> bool {
            let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
            status.contains("TracerPid:\t0\n") && !status.contains("State:\tt")
        }
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let Running(child) = self;
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "it does not come about");
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn counts_what_a_thread_calls_and_lets_go_of_it() {
        let busy = Running::start("yes", "again");
        let tracer = Tracer::start(busy.pid(), "yes").expect("may be traced");
        let refused = Tracer::start(busy.pid(), "yes").map(drop).expect_err("it has a tracer");
        assert!(matches!(refused, BenchError::Io { source, .. } if source.kind() == ErrorKind::PermissionDenied));
        wait_until(|| tracer.calls().expect("it counts") > 100);
        assert_eq!(tracer.stop().expect("ends in order"), 0, "it calls no ring");
        assert!(busy.is_free());
    }

    #[test]
    fn one_that_sleeps_is_let_go_of_at_once() {
        let sleeping = Running::start("sleep", "60");
        let tracer = Tracer::start(sleeping.pid(), "sleep").expect("may be traced");
        let began = Instant::now();
        drop(tracer);
        assert!(began.elapsed() < LONGEST && sleeping.is_free());
    }

    #[test]
    fn one_that_ends_or_is_not_there_is_told() {
        let mut ending = Running::start("sleep", "60");
        let tracer = Tracer::start(ending.pid(), "sleep").expect("may be traced");
        ending.0.kill().expect("killed");
        wait_until(|| tracer.calls().is_err());
        assert!(tracer.stop().expect_err("it is gone").to_string().contains("has ended"));
        let missing = Tracer::start(std::process::id(), "no such thread").map(drop).expect_err("has none");
        assert!(missing.to_string().contains("no thread no such thread"), "{missing}");
    }
}
