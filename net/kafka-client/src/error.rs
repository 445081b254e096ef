//! Why the client could not do something.

use corelog_kafka::calls::error_name;
use corelog_kafka::codec::Malformed;
use std::io;

/// Why the client could not do something.
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// Nobody answers there.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The connection broke, or nothing came for too long.
    #[error("{address} did not answer: {source}")]
    Lost {
        /// With whom.
        address: String,
        /// How.
        source: io::Error,
    },
    /// What was answered is no response: it is no broker, or one that does not know this version.
    #[error("{address} answered what is not Kafka's protocol: {source}")]
    Malformed {
        /// Who.
        address: String,
        /// How so.
        source: Malformed,
    },
    /// The server refused it.
    #[error("{what}: {}", error_name(*code))]
    Refused {
        /// What was asked for.
        what: String,
        /// Kafka's number of the error.
        code: i16,
    },
    /// A topic or partition that there is not, or a request that cannot be said.
    #[error("{0}")]
    Invalid(String),
}

impl KafkaError {
    /// Whether the same may go well later: the server is away, or says "ask again".
    pub fn may_pass(&self) -> bool {
        match self {
            KafkaError::Unreachable { .. } | KafkaError::Lost { .. } => true,
            KafkaError::Refused { code, .. } => AGAIN.contains(code),
            KafkaError::Malformed { .. } | KafkaError::Invalid(_) => false,
        }
    }
}

/// Kafka's errors that say "ask again", some of them somebody else.
pub(crate) const AGAIN: [i16; 7] = [5, 6, 14, 15, 16, 41, 78];

/// Nothing, or what the server refused.
pub(crate) fn check(code: i16, what: impl FnOnce() -> String) -> Result<(), KafkaError> {
    if code == 0 { Ok(()) } else { Err(KafkaError::Refused { what: what(), code }) }
}
