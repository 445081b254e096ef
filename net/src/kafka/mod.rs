//! Kafka's protocol as a dialect of connections: `corelog-kafka` has its frames, docs/kafka.md says what is served.
//!
//! Responses go out in the order of their requests. Produces are begun one behind the other and answered in order; any other
//! request begins when nothing before it is unanswered, and is alone until it is answered. So there is one fetch, or one
//! lengthy request, under way at most.

mod configs;
mod consumer_groups;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod dialect;
mod errors;
mod fetch;
mod find_coordinator;
mod groups;
mod leader_epochs;
mod list_offsets;
mod log_dirs;
mod membership;
mod metadata;
mod offsets;
mod produce;
mod producers;
mod server;
mod state;
mod topics;

pub use server::{NodeSettings, Options, serve};
