//! Record batch v2.
#![forbid(unsafe_code)]
