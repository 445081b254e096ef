//! The machine: what it can do, and which of its cores does what.

pub(crate) mod cores;
pub(crate) mod limits;
