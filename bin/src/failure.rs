//! How a command ends when it does not end well, and the exit status that goes with it.

use std::fmt::Display;
use std::process::ExitCode;

/// Why a command stopped. The text is one sentence for the person at the terminal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Failure {
    /// It was tried and did not work: exit 1.
    #[error("{0}")]
    Failed(String),
    /// It was asked for wrongly: exit 2, as for arguments that cannot be parsed.
    #[error("{0}")]
    Usage(String),
    /// A check found what it looks for, and has shown it: exit 3.
    #[error("")]
    Found,
    /// Whoever read our output has gone. That is how `| head` ends a command: exit 0, nothing to say.
    #[error("")]
    OutputClosed,
}

impl Failure {
    /// A failure that says what was tried and why it did not work.
    pub(crate) fn failed(what: impl Display) -> Failure {
        Failure::Failed(what.to_string())
    }

    pub(crate) fn usage(what: impl Display) -> Failure {
        Failure::Usage(what.to_string())
    }

    /// Writing to standard output went wrong.
    pub(crate) fn output(error: &std::io::Error) -> Failure {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::OutputClosed,
            _ => Failure::Failed(format!("cannot write the output: {error}")),
        }
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::OutputClosed => ExitCode::SUCCESS,
            Failure::Failed(_) => ExitCode::from(1),
            Failure::Usage(_) => ExitCode::from(2),
            Failure::Found => ExitCode::from(3),
        }
    }
}

/// A text as a terminal may have it. Servers and files have their say in some: what would move the cursor, or worse, is
/// replaced.
pub(crate) fn for_terminal(text: &str) -> String {
    text.chars()
        .map(|sign| if sign.is_control() && sign != '\n' { char::REPLACEMENT_CHARACTER } else { sign })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_given_no_commands() {
        assert_eq!(for_terminal("caf\u{e9}\nx\u{1b}[2J\u{9b}y\r"), "caf\u{e9}\nx\u{fffd}[2J\u{fffd}y\u{fffd}");
    }
}
