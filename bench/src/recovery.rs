//! `bench recovery`: a log is filled, the server is killed under load, and the time to the next acknowledgement counts.

use crate::connection::Connection;
use crate::error::{BenchError, Result};
use crate::load::{Pace, Span};
use crate::rig::{Place, Rig, Shape, Topic, batch};
use crate::server::{Server, ServerOptions};
use clap::Args;
use corelog_wire::{Operation, Produced};
use serde::Serialize;
use std::fmt;
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const FILL_RECORDS: u32 = 64;
const RECORD_BYTES: usize = 1024;

/// Arguments of `bench recovery`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Example:\n  corelog bench recovery --gigabytes 10 --repeats 3")]
pub struct RecoveryArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    /// Size of the log, GB.
    #[arg(long, value_name = "GB", default_value_t = 10.0)]
    pub gigabytes: f64,
    /// Partitions it is spread over.
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub partitions: u32,
    /// How often the server is killed and started again.
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub repeats: usize,
}

/// One kill and restart.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Restart {
    /// From the start of the process to the answer to a hello, ms.
    pub hello_ms: f64,
    /// To the first acknowledgement of a durable record, ms.
    pub first_ack_ms: f64,
    /// To an acknowledgement in every partition, ms.
    pub all_acks_ms: f64,
}

/// The report of `bench recovery`.
#[derive(Debug, Clone, Serialize)]
pub struct RecoveryReport {
    /// Bytes of batches in the log at the first kill.
    pub bytes: u64,
    /// Each kill and restart.
    pub restarts: Vec<Restart>,
}

/// Runs `bench recovery`.
pub(crate) fn run(args: &RecoveryArgs) -> Result<RecoveryReport> {
    if args.place.bootstrap_server.is_some() {
        return Err(BenchError::Usage(
            "a server that is killed has to be started here: leave out --bootstrap-server".into(),
        ));
    }
    let mut rig = Rig::start(&args.place)?;
    let topic = rig.topic(args.partitions, &[])?;
    let body = batch(FILL_RECORDS, RECORD_BYTES)?;
    let bytes = rig.fill(&topic, &body, (args.gigabytes * 1e9) as u64)?;
    let restarts = (0..args.repeats.max(1)).map(|_| restart(&mut rig, &topic)).collect::<Result<_>>()?;
    Ok(RecoveryReport { bytes, restarts })
}

fn restart(rig: &mut Rig, topic: &Topic) -> Result<Restart> {
    let options = kill_under_load(rig, topic)?;
    let began = Instant::now();
    let since = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    let mut server = Server::spawn(options)?;
    let mut connection = server.wait_ready(PATIENCE)?;
    let hello_ms = since(began);
    let record = batch(1, RECORD_BYTES)?;
    let mut first_ack_ms = 0.0;
    for partition in 0..topic.partitions {
        produce_when_open(&mut connection, &topic.name, partition, &record)?;
        if partition == 0 {
            first_ack_ms = since(began);
        }
    }
    let all_acks_ms = since(began);
    rig.adopt(server);
    Ok(Restart { hello_ms, first_ack_ms, all_acks_ms })
}

/// Kills the server in the midst of a load of small records, so that its journal ends in commits of many partitions.
fn kill_under_load(rig: &mut Rig, topic: &Topic) -> Result<ServerOptions> {
    let body = batch(1, RECORD_BYTES)?;
    let span = Span { warm_up: Duration::ZERO, measured: Duration::from_secs(3) };
    let shape = Shape { connections: 64, pace: Pace::Closed { window: 4 }, span };
    let mut server = rig.take_server()?;
    let rig = &*rig;
    thread::scope(|scope| {
        let load = scope.spawn(|| rig.load(topic, &body, shape));
        thread::sleep(Duration::from_secs(2));
        server.kill()?;
        match load.join() {
            Ok(Err(_)) => Ok(server.options().clone()),
            _ => Err(BenchError::Server("the load went on although its server was killed".into())),
        }
    })
}

/// Produces once, as often as it takes while the shard still reads its journal.
fn produce_when_open(connection: &mut Connection, topic: &str, partition: u32, record: &[u8]) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let produced = connection.open_partition(topic, partition).and_then(|(handle, _)| {
            connection.call(Operation::Produce, handle, &(), record)?;
            connection.decode::<Produced>(Operation::Produce)
        });
        match produced {
            Err(BenchError::Refused { .. }) if Instant::now() < deadline => thread::sleep(Duration::from_micros(500)),
            produced => return produced.map(drop),
        }
    }
}

impl fmt::Display for RecoveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "killed (-9) under load with a log of {:.1} GB; ms from the start of the process",
            self.bytes as f64 / 1e9
        )?;
        writeln!(f, "   hello  first ack  all partitions")?;
        for Restart { hello_ms, first_ack_ms, all_acks_ms } in &self.restarts {
            writeln!(f, "{hello_ms:8.0} {first_ack_ms:10.0} {all_acks_ms:15.0}")?;
        }
        Ok(())
    }
}
