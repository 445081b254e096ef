//! Bare loops.
