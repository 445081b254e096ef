//! Wire formats and connections.
#![forbid(unsafe_code)]
