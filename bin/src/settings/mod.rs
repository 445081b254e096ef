//! Settings of the server: what each is, where its value came from, and what is wrong with it.
//!
//! `table` has their names, `gather` their values as they were given, `kafka` and `server` what they mean, `told` what clients
//! hear of them; each knows those before it.

mod gather;
mod kafka;
mod server;
mod table;
#[cfg(test)]
mod tests;
mod told;

pub(crate) use gather::{Given, SettingsError, parse_set, remarks_on_variables};
pub(crate) use server::Settings;
