//! The command line end to end: the real binary, its exact words and its exit statuses.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

mod arguments;
mod bench;
mod files;
mod records;
mod run;
mod serving;
mod stats;
mod topics;
