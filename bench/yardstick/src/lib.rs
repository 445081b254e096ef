//! Bare loops.

