//! What was run, and where: without it a figure means nothing to anybody else.

use corelog_tuning::{Host, describe};
use serde::{Deserialize, Serialize};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The program and how it was called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its version.
    pub version: String,
    /// The commit that it was built from.
    pub commit: String,
    /// The command line, word by word.
    pub command: Vec<String>,
    /// When it was begun, seconds since 1970 UTC.
    pub began: u64,
}

/// The machine that was measured.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Facts by name, in the order in which they are shown.
    pub facts: Vec<(String, String)>,
}

impl Program {
    /// This one.
    pub(crate) fn this() -> Program {
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Program {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: env!("CORELOG_COMMIT").into(),
            command: std::env::args().collect(),
            began,
        }
    }

    /// The command line as a shell takes it.
    pub fn command_line(&self) -> String {
        self.command.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

impl Machine {
    /// This one, and the disk below `directory`.
    pub(crate) fn this(directory: &Path) -> Machine {
        let path = directory.canonicalize().unwrap_or_else(|_| directory.to_owned());
        let facts = describe(&Host::this(), &path);
        Machine { facts: facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect() }
    }

    /// Whether files are in memory only.
    pub(crate) fn is_memory(&self) -> bool {
        let is_memory = |value: &str| value.starts_with("tmpfs ") || value.starts_with("ramfs ");
        self.facts.iter().any(|(name, value)| name == "file system" && is_memory(value))
    }

    /// Adds what the benchmark itself arranged.
    pub(crate) fn note(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.into(), value.into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_can_be_pasted() {
        let command = ["corelog", "bench", "--dir", "my dir", "", "it's"].map(str::to_owned).to_vec();
        let program = Program { command, ..Program::this() };
        assert_eq!(program.command_line(), r"corelog bench --dir 'my dir' '' 'it'\''s'");
        assert!(!program.commit.is_empty());
    }

    #[test]
    fn this_machine_has_a_kernel() {
        let machine = Machine::this(Path::new("."));
        assert!(machine.facts.iter().any(|(name, _)| name == "kernel"), "{machine:?}");
    }
}
