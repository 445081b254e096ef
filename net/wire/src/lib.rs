//! Native protocol.
#![forbid(unsafe_code)]
