//! What a benchmark leaves behind when it is asked to end: nothing. Its servers are killed, its files removed.

use crate::error::{Doing, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, kill};
use nix::unistd::Pid;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{fs, process, thread};
use tempfile::TempDir;

/// A signal has asked for the end.
static ASKED: AtomicBool = AtomicBool::new(false);
/// Nodes that run in threads of this process.
static NODES: AtomicUsize = AtomicUsize::new(0);
static LEFT: Mutex<Left> = Mutex::new(Left { servers: Vec::new(), directories: Vec::new(), namespaces: Vec::new() });

struct Left {
    servers: Vec<u32>,
    directories: Vec<PathBuf>,
    namespaces: Vec<String>,
}

/// Clears up when a signal asks for the end, and ends the process as it would have.
///
/// # Errors
/// As [`on_signal`].
pub(crate) fn watch() -> Result<()> {
    on_signal(|signal| {
        ASKED.store(true, Ordering::Relaxed);
        if NODES.load(Ordering::Relaxed) > 0 {
            clear_instead(signal);
        }
        clear();
        end_by(signal);
    })
}

/// Does not come back once a signal has asked for the end, which is then under way: what a benchmark says whose server was
/// taken from it is of no interest.
pub(crate) fn give_way() {
    while ASKED.load(Ordering::Relaxed) {
        thread::park();
    }
}

/// Ends the process with the status that a shell gives one that a signal ended.
pub fn end_by(signal: Signal) -> ! {
    process::exit(128 + signal as i32)
}

/// Starts a program that can be asked to end: a child inherits which signals are blocked, and [`on_signal`] blocks those. One
/// that comes in this instant ends the process as if nobody waited for it.
///
/// # Errors
/// When it cannot be started.
pub fn spawn(command: &mut Command) -> io::Result<Child> {
    let blocked = SigSet::empty().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let child = command.spawn();
    blocked.thread_set_mask()?;
    child
}

/// Calls `act` on a thread of its own for each SIGINT, SIGTERM or SIGHUP that comes. To be called before other threads
/// begin, which inherit the mask; programs inherit it as well, unless [`spawn`] starts them.
///
/// # Errors
/// When the system refuses to block the signals.
pub fn on_signal(mut act: impl FnMut(Signal) + Send + 'static) -> Result<()> {
    let mut signals = SigSet::empty();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().for_each(|signal| signals.add(signal));
    signals.thread_block().map_err(io::Error::from).doing("waiting for signals")?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            act(signal);
        }
    });
    Ok(())
}

/// A directory of its own in `parent`; removed when it is dropped, or by a signal.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn scratch(parent: &Path) -> Result<TempDir> {
    let made = tempfile::Builder::new().prefix("corelog-bench-").tempdir_in(parent);
    let made = made.doing(&format!("making a directory for the data in {}", parent.display()))?;
    left().directories.push(made.path().to_owned());
    Ok(made)
}

/// A network namespace is about to be made.
pub(crate) fn namespace(name: &str) {
    left().namespaces.push(name.to_owned());
}

/// A server runs.
pub(crate) fn started(pid: u32) {
    left().servers.push(pid);
}

/// It is about to be ended; its number may soon be another's.
pub(crate) fn ended(pid: u32) {
    left().servers.retain(|server| *server != pid);
}

/// A node runs in this process for as long as one has this.
#[derive(Debug)]
pub(crate) struct Node(());

impl Node {
    pub(crate) fn runs() -> Node {
        NODES.fetch_add(1, Ordering::Relaxed);
        Node(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        NODES.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A node in this process would take files that are gone for damage, and takes seconds to stop: a program that takes this
/// one's place ends its threads at once, and removes the directories then. Comes back where there is no such program.
fn clear_instead(signal: Signal) {
    let left = left();
    end_programs(&left);
    let remove = format!("rm -rf -- \"$@\"; exit {}", 128 + signal as i32);
    let error = Command::new("sh").args(["-c", &remove, "sh"]).args(&left.directories).exec();
    eprintln!("cannot run sh to remove what is left: {error}");
}

/// Kills servers that run, and removes what was made for them.
pub fn clear() {
    let left = left();
    end_programs(&left);
    for directory in &left.directories {
        let _ = fs::remove_dir_all(directory);
    }
}

fn end_programs(left: &Left) {
    for server in &left.servers {
        let _ = kill(Pid::from_raw(server.cast_signed()), Signal::SIGKILL);
    }
    for name in &left.namespaces {
        let _ = process::Command::new("ip").args(["netns", "del", name]).output();
    }
}

fn left() -> MutexGuard<'static, Left> {
    LEFT.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;
    use std::time::{Duration, Instant};

    #[test]
    fn a_program_that_is_started_here_can_be_asked_to_end() {
        let mut asked = SigSet::empty();
        asked.add(Signal::SIGTERM);
        asked.thread_block().expect("the mask");
        let mut child = spawn(Command::new("sleep").arg("60")).expect("sleep");
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).expect("a signal");
        let until = Instant::now() + Duration::from_secs(20);
        let ended = loop {
            match child.try_wait().expect("its status") {
                None if Instant::now() < until => thread::sleep(Duration::from_millis(5)),
                ended => break ended,
            }
        };
        if ended.is_none() {
            child.kill().expect("killed");
        }
        assert_eq!(ended.and_then(|ended| ended.signal()), Some(Signal::SIGTERM as i32));
        assert_eq!(SigSet::thread_get_mask().map(|mask| mask.contains(Signal::SIGTERM)), Ok(true));
    }
}
