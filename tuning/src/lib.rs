//! Host checks.
#![forbid(unsafe_code)]
