//! The programs: how each is started, and what its client cannot do.

use corelog_tests::process::installed_clients;
use corelog_tests::serving::PATIENCE;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// All codecs of the format; each client has all of them.
pub(crate) const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

/// Seconds after which a program that answers and ends is taken to hang.
const ENDS_WITHIN: &str = "120";

/// A client, by what is particular to it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Client {
    pub(crate) name: &'static str,
    language: Language,
    /// Its producer numbers its batches, and goes on with that over a lost connection.
    pub(crate) is_idempotent: bool,
    /// It also has the group protocol in which the coordinator assigns.
    pub(crate) is_assigned: bool,
    /// It can write a header whose value is null.
    pub(crate) writes_null_headers: bool,
    /// It hands over an empty key or value as null.
    pub(crate) reads_empty_as_null: bool,
    /// What it says of a topic that is not there: the protocol's number, or what it has instead.
    pub(crate) unknown_topic: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Language {
    Go,
    Java,
    Node,
    Python,
}

const USUAL: Client = Client {
    name: "",
    language: Language::Go,
    is_idempotent: true,
    is_assigned: false,
    writes_null_headers: true,
    reads_empty_as_null: false,
    unknown_topic: "3",
};

/// All that are tested.
const CLIENTS: [Client; 8] = [
    Client { name: "java", language: Language::Java, is_assigned: true, ..USUAL },
    Client { name: "librdkafka", language: Language::Python, is_assigned: true, ..USUAL },
    Client {
        name: "kafkapython",
        language: Language::Python,
        writes_null_headers: false,
        unknown_topic: "KafkaTimeoutError",
        ..USUAL
    },
    Client { name: "aio", language: Language::Python, ..USUAL },
    Client { name: "kafkajs", language: Language::Node, writes_null_headers: false, ..USUAL },
    Client { name: "franz", language: Language::Go, ..USUAL },
    Client { name: "sarama", language: Language::Go, ..USUAL },
    Client { name: "segmentio", language: Language::Go, is_idempotent: false, reads_empty_as_null: true, ..USUAL },
];

/// Those that are installed. With `CI=true` all must be.
pub(crate) fn clients() -> Vec<Client> {
    CLIENTS.into_iter().filter(Client::is_there).collect()
}

impl Client {
    fn is_there(&self) -> bool {
        let is_there = match self.language {
            Language::Go => installed_clients().join("go").join(self.name),
            Language::Java => installed_clients().join("java/.installed"),
            Language::Node => installed_clients().join("node/.installed"),
            Language::Python => installed_clients().join("python/.installed"),
        }
        .exists();
        assert!(is_there || std::env::var("CI").is_err(), "{} is missing: run tests/clients/install", self.name);
        if !is_there {
            eprintln!("left out: {} is missing (tests/clients/install)", self.name);
        }
        is_there
    }

    /// Its program, without arguments.
    pub(crate) fn program(&self) -> Command {
        let installed = installed_clients();
        match self.language {
            Language::Go => Command::new(installed.join("go").join(self.name)),
            Language::Java => java("Client"),
            Language::Node => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", installed.join("node/node_modules"));
                command.arg(source("node").join("client.js"));
                command
            }
            Language::Python => {
                let mut command = Command::new(installed.join("python/bin/python"));
                // Nothing is to be written beside the sources.
                command.arg("-B").arg(source("python").join(format!("{}.py", self.name)));
                command
            }
        }
    }

    /// What it answers to a command, with `input` to read.
    pub(crate) fn ask(&self, address: SocketAddr, command: &str, arguments: &[&str], input: &str) -> String {
        let mut program = self.program();
        program.arg(command).arg(address.to_string()).args(arguments);
        let ended = run(&program, input);
        let complaint = String::from_utf8_lossy(&ended.stderr);
        assert!(ended.status.success(), "{} {command} {arguments:?}: {}\n{complaint}", self.name, ended.status);
        String::from_utf8(ended.stdout).expect("text")
    }
}

/// A class of Kafka's jars, or ours, without arguments.
pub(crate) fn java(class: &str) -> Command {
    let installed = installed_clients().join("java");
    let mut command = Command::new("java");
    // What makes a short life shorter; and many run at once.
    command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
    command.arg(format!("{0}/classes:{0}/libs/*", installed.display())).arg(class);
    command
}

/// Runs a program to its end, or kills it after a while.
pub(crate) fn run(program: &Command, input: &str) -> Output {
    let mut command = bounded(program);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    thread::scope(|scope| {
        // One that ends early does not read on, and its status tells.
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().expect("the program ends")
    })
}

/// The same program under `timeout`, with a pipe to its standard input.
fn bounded(program: &Command) -> Command {
    let mut command = Command::new("timeout");
    command.args(["--signal=KILL", ENDS_WITHIN]).arg(program.get_program()).args(program.get_args());
    command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdin(Stdio::piped());
    command
}

/// A client's program that is told when to end, by the end of its standard input. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Running {
    name: &'static str,
    child: Child,
    /// What it complained of. A file: a pipe that nobody reads would stop it once full.
    complaint: File,
}

impl Running {
    pub(crate) fn start(client: &Client, address: SocketAddr, arguments: &[&str]) -> Running {
        let [command, rest @ ..] = arguments else { panic!("a command") };
        let mut program = client.program();
        program.arg(command).arg(address.to_string()).args(rest);
        let complaint = tempfile::tempfile().expect("a file");
        program.stdin(Stdio::piped()).stdout(Stdio::piped());
        program.stderr(complaint.try_clone().expect("a descriptor"));
        Running { name: client.name, child: program.spawn().expect("the program starts"), complaint }
    }

    pub(crate) fn input(&mut self) -> &mut impl Write {
        self.child.stdin.as_mut().expect("a pipe")
    }

    pub(crate) fn output(&mut self) -> ChildStdout {
        self.child.stdout.take().expect("a pipe that was not taken")
    }

    /// Ends its standard input and waits until it has ended well.
    pub(crate) fn end(mut self) {
        drop(self.child.stdin.take());
        let began = Instant::now();
        let status = loop {
            match self.child.try_wait().expect("a child") {
                Some(status) => break status,
                None => assert!(began.elapsed() < PATIENCE, "{} does not end", self.name),
            }
            thread::sleep(Duration::from_millis(10));
        };
        let complaints = self.complaints();
        assert!(status.success(), "{} ended with {status}:\n{complaints}", self.name);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
    }

    /// What it complained of so far.
    pub(crate) fn complaints(&mut self) -> String {
        let mut text = Vec::new();
        self.complaint.rewind().and_then(|()| self.complaint.read_to_end(&mut text)).expect("reads the file");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that has ended cannot be killed, and is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn source(language: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients").join(language)
}
