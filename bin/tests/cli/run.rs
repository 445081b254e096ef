//! Runs the real binary: commands to their end, servers until they are dropped.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than any step takes on a busy machine; a test that hangs ends with this.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The program, without what this shell's environment might tell it.
pub(crate) fn corelog(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_corelog"));
    command.args(arguments);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("CORELOG_") {
            command.env_remove(name);
        }
    }
    // Servers of these tests run side by side.
    command.env("CORELOG_KAFKA_LISTEN", "off");
    command
}

/// How a command ended and what it said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// Asserts that it ended well and returns what it wrote.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// Asserts that it ended with `status` and one sentence on standard error, and nothing on standard output.
    #[track_caller]
    pub(crate) fn fails(self, status: i32, sentence: &str) {
        assert_eq!((self.status, self.stderr.trim_end()), (Some(status), sentence));
        assert_eq!(self.text(), "");
    }
}

impl Ended {
    /// Asserts that a server did not start, for this reason. It may have said what it was about to do.
    #[track_caller]
    pub(crate) fn refuses(self, sentence: &str) {
        assert_eq!((self.status, self.stderr.trim_end()), (Some(1), sentence));
    }
}

/// Runs a command with `input` to its end.
pub(crate) fn run_with(mut command: Command, input: &[u8]) -> Ended {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let stderr = child.stderr.take().unwrap();
    std::thread::scope(|scope| {
        // A command that stops reading early is judged by how it ends, not by our broken pipe.
        scope.spawn(move || stdin.write_all(input));
        let (stdout, stderr) = (scope.spawn(|| read_all(stdout)), scope.spawn(|| read_all(stderr)));
        let status = wait(&mut child);
        let stderr = String::from_utf8_lossy(&stderr.join().unwrap()).into_owned();
        Ended { status, stdout: stdout.join().unwrap(), stderr }
    })
}

fn read_all(mut from: impl Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    from.read_to_end(&mut bytes).unwrap();
    bytes
}

/// Runs a command that needs no server to its end.
pub(crate) fn run(arguments: &[&str]) -> Ended {
    run_with(corelog(arguments), b"")
}

/// A server in a process of its own, killed when dropped.
pub(crate) struct Server {
    child: Child,
    /// HOST:PORT.
    pub(crate) address: String,
    /// What it said until it was ready.
    pub(crate) start_lines: Vec<String>,
    stdout: BufReader<ChildStdout>,
}

impl Server {
    /// Starts on a port that the kernel chooses and waits until it answers.
    pub(crate) fn start(data_dir: &Path) -> Server {
        Server::start_with(data_dir, &["--listen", "127.0.0.1:0", "--smp", "2"])
    }

    pub(crate) fn start_with(data_dir: &Path, arguments: &[&str]) -> Server {
        let mut command = corelog(&["serve", "--memory", "1600MiB", "--journal-bytes", "32MiB", "--data-dir"]);
        Server::started(command.arg(data_dir).args(arguments))
    }

    /// Waits until the server that the command starts answers.
    pub(crate) fn started(command: &mut Command) -> Server {
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut start_lines = Vec::new();
        while let Some(line) = next_line(&mut stdout) {
            if let Some(address) = line.strip_prefix("listening on ") {
                let address = address.to_owned();
                return Server { child, address, start_lines, stdout };
            }
            start_lines.push(line);
        }
        panic!("the server ended before it listened: {:?}: {start_lines:?}", child.wait());
    }

    /// A command that talks to this server.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = corelog(arguments);
        command.env("CORELOG_BOOTSTRAP", &self.address);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(arguments, b"")
    }

    pub(crate) fn run_with(&self, arguments: &[&str], input: &[u8]) -> Ended {
        run_with(self.command(arguments), input)
    }

    /// kill -9, as the power switch of a process.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops its threads where they are: it takes in nothing, while its connections stay.
    pub(crate) fn freeze(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
        // Each thread stops when it gets to it.
        let begun = Instant::now();
        while !is_stopped(self.child.id()) {
            assert!(begun.elapsed() < PATIENCE, "the server does not stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Asks it to end, as Ctrl-C or a service manager does; returns its exit status and what it said after its start.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        let status = wait(&mut self.child);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        (status, rest)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process to end, but not for ever.
pub(crate) fn wait(child: &mut Child) -> Option<i32> {
    let begun = Instant::now();
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if begun.elapsed() > PATIENCE => {
                child.kill().unwrap();
                panic!("the process does not end");
            }
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// Whether all threads of a process are stopped.
fn is_stopped(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("stat"))).all(|stat| {
        // A thread may have ended since, and the kernel's own workers need not stop. The state stands behind the name.
        stat.map_or(true, |stat| stat.contains("(iou-") || stat.contains(") T "))
    })
}

fn next_line(from: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    let length = from.read_line(&mut line).unwrap();
    (length > 0).then(|| line.trim_end().to_owned())
}
