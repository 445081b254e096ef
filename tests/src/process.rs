//! The real program as a process: built if need be, started on a directory of its own, stopped, killed, looked at.

#![expect(clippy::expect_used, clippy::panic, reason = "a test that cannot run its server should end there")]

use corelog_bench::{Server, ServerOptions, free_address};
use std::env::current_exe;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a start, a recovery or a stop may take before it counts as hung: far more than any takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A server with a data directory of its own, on an address that it keeps over restarts. Dropping it kills the process
/// and removes the data.
pub struct Node {
    server: Option<Server>,
    options: ServerOptions,
    // Last, so that the process is gone before its files are.
    _directory: TempDir,
}

impl Node {
    /// Starts a server with `smp` shards and further arguments of `serve`, and waits until it serves.
    pub fn start(smp: u16, more: &[&str]) -> Node {
        let directory = scratch();
        let options = ServerOptions {
            program: program().to_owned(),
            data_dir: directory.path().join("data"),
            smp,
            listen: free_address().expect("a free port"),
            more: more.iter().map(|argument| (*argument).to_owned()).collect(),
        };
        let mut node = Node { server: None, options, _directory: directory };
        node.restart(smp);
        node
    }

    /// Starts the server again, after [`Node::kill`] or [`Node::stop`], and waits until it serves. How long that took.
    pub fn restart(&mut self, smp: u16) -> Duration {
        assert!(self.server.is_none(), "the server still runs");
        let began = Instant::now();
        self.options.smp = smp;
        let started = Server::start(self.options.clone(), PATIENCE);
        self.server = Some(started.unwrap_or_else(|error| panic!("{error}")));
        began.elapsed()
    }

    /// Kills it at once (SIGKILL).
    pub fn kill(&mut self) {
        let mut server = self.server.take().expect("a server that runs");
        server.kill().expect("killed");
    }

    /// Asks it to end and expects that it does so in good order.
    pub fn stop(&mut self) {
        let mut server = self.server.take().expect("a server that runs");
        let status = server.terminate(PATIENCE).unwrap_or_else(|error| panic!("{error}"));
        assert!(status.success(), "the server ended with {status}:\n{}", server.output());
    }

    /// Where clients begin: `host:port`.
    pub fn bootstrap(&self) -> String {
        self.options.listen.to_string()
    }

    /// Its data directory.
    pub fn data_dir(&self) -> &Path {
        &self.options.data_dir
    }

    /// What it printed, all its lives together.
    pub fn output(&self) -> String {
        self.server.as_ref().map(Server::output).unwrap_or_default()
    }

    /// Resident memory, bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.server.as_ref().expect("a server that runs").resident_bytes().expect("the server's figures")
    }

    /// The most memory that was resident since its last start, bytes.
    pub fn peak_bytes(&self) -> u64 {
        self.server.as_ref().expect("a server that runs").peak_bytes().expect("the server's figures")
    }

    /// Open file descriptors.
    pub fn descriptors(&self) -> usize {
        self.open_files().count()
    }

    /// Open file descriptors but those of segments, of which a shard keeps many open, up to a bound of their own.
    pub fn descriptors_but_segments(&self) -> usize {
        let is_segment = |file: &PathBuf| file.extension().is_some_and(|extension| extension == "log");
        self.open_files().filter(|file| !is_segment(file)).count()
    }

    /// What its descriptors refer to. One that is closed meanwhile is left out.
    fn open_files(&self) -> impl Iterator<Item = PathBuf> {
        let pid = self.server.as_ref().expect("a server that runs").pid();
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).expect("the server's descriptors");
        entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
    }
}

/// A directory for a test's files on the disk that holds the build, which takes direct I/O where /tmp may not.
pub fn scratch() -> TempDir {
    let beside = profile_directory().parent().expect("a target directory").join("tmp");
    fs::create_dir_all(&beside).expect("a directory for scratch files");
    tempfile::tempdir_in(beside).expect("a scratch directory")
}

/// The program: `CORELOG_BIN`, or the one of this build, brought up to date once per test process. (Cargo makes a
/// package's program for that package's own tests only.)
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(given) = std::env::var_os("CORELOG_BIN") {
            return given.into();
        }
        let directory = profile_directory();
        let profile = directory.file_name().and_then(|name| name.to_str()).expect("a build directory");
        let profile = if profile == "debug" { "dev" } else { profile };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        // To standard error: what is not a test's own output.
        eprintln!("building the program (CORELOG_BIN names one that is built)");
        let built = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--package", "corelog", "--profile", profile])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .stdin(Stdio::null())
            .status();
        assert!(built.expect("cargo runs").success(), "the program does not build");
        directory.join("corelog")
    })
}

/// What the script tests/clients/install has put there.
pub fn installed_clients() -> PathBuf {
    profile_directory().parent().expect("a target directory").join("clients")
}

/// `target/<profile>`: this executable is there, or a test in its `deps`.
fn profile_directory() -> PathBuf {
    let executable = current_exe().expect("the path of this program");
    let directory = executable.parent().expect("a build directory");
    let directory = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    directory.expect("a build directory").to_owned()
}
