//! The server that a command talks to.

use crate::failure::Failure;
use clap::Args;
use corelog_client::blocking::Admin;
use corelog_client::{ClientError, ConnectOptions, Operation, Refusal, Status};

/// Arguments that every command has that talks to a server.
#[derive(Args)]
pub(crate) struct ServerArgs {
    /// The server, as `serve` says where it listens; several are separated by commas
    #[arg(
        short = 'b',
        long = "bootstrap-server",
        value_name = "HOST:PORT",
        default_value = DEFAULT,
        env = "CORELOG_BOOTSTRAP",
        hide_env_values = true
    )]
    pub(crate) bootstrap: String,
}

/// Where `serve` listens by default.
pub(crate) const DEFAULT: &str = "127.0.0.1:7092";

impl ServerArgs {
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions {
            client_id: concat!("corelog ", env!("CARGO_PKG_VERSION")).to_owned(),
            ..ConnectOptions::default()
        }
    }

    pub(crate) fn admin(&self) -> Result<Admin, Failure> {
        Admin::connect(&self.bootstrap, self.options()).map_err(failed)
    }
}

/// What the client could not do. An argument that cannot be is a matter of usage.
pub(crate) fn failed(error: ClientError) -> Failure {
    match error {
        ClientError::Invalid(_) => Failure::usage(error),
        ClientError::Unreachable { .. } => Failure::Failed(format!("{error}; is `corelog serve` running there?")),
        ClientError::Refused(refusal) => Failure::Failed(refused(&refusal)),
        _ => Failure::failed(error),
    }
}

/// What to do next, where there is something.
fn refused(refusal: &Refusal) -> String {
    match (refusal.operation, refusal.status()) {
        (Operation::DescribeTopic, Some(Status::UnknownTopic)) => {
            format!("{}; `corelog topic list` shows what there is", refusal.message)
        }
        (_, Some(Status::OffsetOutOfRange)) => format!("{refusal}; --from beginning begins with the first"),
        _ => refusal.to_string(),
    }
}

/// Where partitions are named on the command line: that they are there.
pub(crate) fn check_partitions(topic: &str, wanted: &[u32], there: u32) -> Result<(), Failure> {
    match wanted.iter().find(|partition| **partition >= there) {
        Some(missing) => {
            Err(Failure::Failed(format!("topic {topic} has no partition {missing}: it has {there}, numbered from 0")))
        }
        None => Ok(()),
    }
}
