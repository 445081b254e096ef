//! Why a benchmark could not be run.

use std::io;
use thiserror::Error;

/// Why a benchmark could not be run. All of them are for the person who started it.
#[derive(Debug, Error)]
pub enum BenchError {
    /// Something of the machine or the network failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server answered with an error.
    #[error("{what}: the server answered {status}{message}")]
    Refused {
        /// What was asked of it.
        what: String,
        /// The status by name.
        status: String,
        /// The server's own sentence, begun with ": ", or nothing.
        message: String,
    },
    /// The server's bytes are not the native protocol.
    #[error("{what}: the server's answer is no message of the native protocol: {why}")]
    Garbled {
        /// What was asked of it.
        what: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// The server that was started is not there any more, or did not begin to answer.
    #[error("{0}")]
    Server(String),
    /// The reports do not tell what they were asked for.
    #[error("{0}")]
    Report(String),
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
}

/// Short for results of this crate.
pub(crate) type Result<T> = std::result::Result<T, BenchError>;

/// Adds to an I/O error what was being done.
pub(crate) trait Doing<T> {
    /// Names what was being done, in a few words such as "writing the scratch file".
    fn doing(self, what: &str) -> Result<T>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|source| BenchError::Io { what: what.to_owned(), source })
    }
}
