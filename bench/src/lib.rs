//! Load and reports.
#![forbid(unsafe_code)]
