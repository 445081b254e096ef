//! How a proof ends when it does not hold, and the exit status that goes with it.

use corelog_tests::interrupt;
use std::process::ExitCode;

/// Why a command did not end well.
pub(crate) enum Failure {
    /// It could not be run: exit 1.
    Failed(String),
    /// It was asked for wrongly: exit 2.
    Usage(String),
    /// Something did not hold, and was shown: exit 3.
    Found,
}

impl Failure {
    /// What came of a proof: what it found counts also when it was cut short, but then it has not held.
    pub(crate) fn unless(held: bool) -> Result<(), Failure> {
        if !held {
            return Err(Failure::Found);
        }
        interrupt::check().map_err(|error| Failure::Failed(error.to_string()))
    }

    /// Says why, where nobody has yet.
    pub(crate) fn exit(self) -> ExitCode {
        let (why, code) = match self {
            Failure::Failed(why) => (why, 1),
            Failure::Usage(why) => (why, 2),
            Failure::Found => return ExitCode::from(3),
        };
        eprintln!("proof: {why}");
        ExitCode::from(code)
    }
}
