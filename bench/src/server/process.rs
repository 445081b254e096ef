//! The real program as a process of its own: start it, wait until it serves, stop it, kill it.

use super::connection::Connection;
use super::interrupt;
use crate::error::{BenchError, Doing, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How the program is started.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// The executable.
    pub program: PathBuf,
    /// `--data-dir`. What the server prints goes into a file beside it, with `.out` behind its name.
    pub data_dir: PathBuf,
    /// `--smp`.
    pub smp: u16,
    /// `--listen`; see [`free_address`].
    pub listen: SocketAddr,
    /// Further arguments.
    pub more: Vec<String>,
}

/// A started server. Dropping it kills it.
#[derive(Debug)]
pub struct Server {
    child: Child,
    options: ServerOptions,
}

/// A loopback address with a port that is free now. Kept over restarts, so that clients find the server again.
///
/// # Errors
/// When no port is free.
pub fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).doing("looking for a free port")?;
    listener.local_addr().doing("looking for a free port")
}

impl Server {
    /// Starts the program; it may not serve yet.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(options: ServerOptions) -> Result<Server> {
        let doing = format!("starting {}", options.program.display());
        let output = File::options().create(true).append(true).open(output_path(&options)).doing(&doing)?;
        let child = Command::new(&options.program)
            .arg("serve")
            .arg("--data-dir")
            .arg(&options.data_dir)
            .args(["--listen", &options.listen.to_string()])
            .args(["--smp", &options.smp.to_string()])
            .args(&options.more)
            // Servers of benchmarks and tests run side by side; who wants Kafka's protocol says where, and a flag wins.
            .env("CORELOG_KAFKA_LISTEN", "off")
            .stdin(Stdio::null())
            // Ctrl-C in a terminal goes to a group: it is ours to end it.
            .process_group(0)
            .stdout(output.try_clone().doing(&doing)?)
            .stderr(output)
            .spawn()
            .doing(&doing)?;
        interrupt::started(child.id());
        Ok(Server { child, options })
    }

    /// Starts the program and waits until it serves.
    ///
    /// # Errors
    /// When it cannot be started, ends, or does not serve within `patience`.
    pub fn start(options: ServerOptions, patience: Duration) -> Result<Server> {
        let mut server = Server::spawn(options)?;
        server.wait_ready(patience)?;
        Ok(server)
    }

    /// Waits until a hello is answered.
    ///
    /// # Errors
    /// When the server ends before, or takes longer than `patience`.
    pub fn wait_ready(&mut self, patience: Duration) -> Result<Connection> {
        let deadline = Instant::now() + patience;
        loop {
            let refused = match Connection::open(self.options.listen) {
                Ok(connection) => return Ok(connection),
                Err(error) => error,
            };
            if let Some(status) = self.child.try_wait().doing("waiting for the server")? {
                return Err(BenchError::Server(format!("the server ended with {status}:\n{}", self.output())));
            }
            if Instant::now() > deadline {
                let what = format!("the server does not serve after {patience:?} ({refused}):\n{}", self.output());
                return Err(BenchError::Server(what));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill().doing("killing the server")?;
        self.child.wait().doing("waiting for the server's end").map(drop)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it takes longer than `patience`.
    pub fn terminate(&mut self, patience: Duration) -> Result<ExitStatus> {
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, Signal::SIGTERM).map_err(std::io::Error::from).doing("ending the server")?;
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().doing("waiting for the server's end")? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                let what = format!("the server has not ended after {patience:?}:\n{}", self.output());
                return Err(BenchError::Server(what));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// The kernel's number of the process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its resident memory, bytes. Pages of a reserved pool of huge ones do not count as resident, so they are added.
    ///
    /// # Errors
    /// When it is gone.
    pub fn resident_bytes(&self) -> Result<u64> {
        self.memory("VmRSS:")
    }

    /// The most memory that was resident since it was started, bytes; huge pages as now.
    ///
    /// # Errors
    /// When it is gone.
    pub fn peak_bytes(&self) -> Result<u64> {
        self.memory("VmHWM:")
    }

    fn memory(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).doing("reading the server's memory")?;
        Ok([field, "HugetlbPages:"].iter().map(|field| kilobytes(&status, field) * 1024).sum())
    }

    /// How it was started: what a restart needs.
    pub fn options(&self) -> &ServerOptions {
        &self.options
    }

    /// What this server, and those before it on the same data directory, printed.
    pub fn output(&self) -> String {
        let bytes = fs::read(output_path(&self.options)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        interrupt::ended(self.pid());
        let _ = self.kill();
    }
}

fn kilobytes(status: &str, field: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

fn output_path(options: &ServerOptions) -> PathBuf {
    options.data_dir.with_added_extension("out")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_figures_of_memory() {
        let status = "VmPeak:\t  300 kB\nVmRSS:\t    1024 kB\nHugetlbPages:\t    2048 kB\n";
        assert_eq!(kilobytes(status, "VmRSS:") + kilobytes(status, "HugetlbPages:"), 3072);
    }

    #[test]
    fn a_program_that_ends_at_once_is_told_with_its_words() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = ServerOptions {
            program: "/bin/echo".into(),
            data_dir: directory.path().join("data"),
            smp: 1,
            listen: free_address().expect("a port"),
            more: vec!["hello".into()],
        };
        let started = Server::start(options, Duration::from_secs(10)).map(drop);
        let text = started.expect_err("echo serves nobody").to_string();
        assert!(text.contains("ended with exit status: 0") && text.contains("--smp 1 hello"), "{text}");
    }
}
