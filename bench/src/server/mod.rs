//! What is measured: a server in a process of its own, its topics, and what it used.

pub(crate) mod calls;
pub(crate) mod connection;
pub(crate) mod embedded;
pub(crate) mod glommio;
pub mod interrupt;
pub(crate) mod mini;
pub(crate) mod process;
pub(crate) mod rig;
pub(crate) mod topic;
pub(crate) mod usage;
pub(crate) mod veth;
