//! The yardsticks' broker on glommio: a program that is not built with this one, as a process of its own.

use super::interrupt;
use crate::error::{BenchError, Doing, Result};
use corelog_yardstick::bare::{Durable, Options};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// A started broker. Dropping it kills it; it also ends by itself when this process is gone.
pub(crate) struct Glommio {
    started: Started,
    pub(crate) address: SocketAddr,
}

struct Started(Child);

impl Glommio {
    /// Starts the program and returns when it listens. Its file lies in the options' directory.
    ///
    /// # Errors
    /// When there is no such program, or it ends.
    pub(crate) fn start(program: &Path, options: &Options) -> Result<Glommio> {
        let mut command = Command::new(program);
        command.arg("--file").arg(options.directory.join("glommio"));
        command.args(["--file-bytes", &options.file_bytes.to_string()]);
        command.args(["--frame-bytes", &options.frame_bytes.to_string()]);
        command.args(["--ack-bytes", &options.ack_bytes.to_string()]);
        command.args(["--gather-bytes", &options.gather_bytes.to_string()]);
        // As long as a shard looks for work before it sleeps, by default.
        command.args(["--spin-us", "50"]);
        command.args(["--durable", if options.durable == Durable::Dsync { "dsync" } else { "flush" }]);
        command.args(options.cpu.iter().flat_map(|cpu| ["--cpu".to_owned(), cpu.to_string()]));
        let doing = format!("starting {}, which `bash bench/reactors` builds", program.display());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().doing(&doing)?;
        interrupt::started(child.id());
        let output = child.stdout.take();
        let started = Started(child);
        let mut line = String::new();
        output.map_or(Ok(0), |output| BufReader::new(output).read_line(&mut line)).doing(&doing)?;
        // What was wrong it has said on standard error, which it shares with us.
        let ended = |_| BenchError::Server(format!("{} ended before it listened", program.display()));
        Ok(Glommio { started, address: line.trim().parse().map_err(ended)? })
    }

    /// The kernel's number of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.started.0.id()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        interrupt::ended(self.0.id());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(program: &str) -> String {
        let options = Options {
            directory: "/nowhere".into(),
            file_bytes: 0,
            frame_bytes: 100,
            ack_bytes: 8,
            gather_bytes: 100,
            cpu: None,
            durable: Durable::Flush,
        };
        Glommio::start(Path::new(program), &options).map(drop).expect_err("no broker").to_string()
    }

    #[test]
    fn a_program_that_is_none_is_told_with_what_to_do() {
        let missing = start("/nowhere/glommio");
        assert!(missing.contains("/nowhere/glommio, which `bash bench/reactors` builds: No such file"), "{missing}");
        assert_eq!(start("/bin/true"), "/bin/true ended before it listened");
    }
}
