//! The corelog program.
#![forbid(unsafe_code)]
fn main() {}
