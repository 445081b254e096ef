//! `bench recovery`: a log is filled, the server is killed under load, and the time to the next acknowledgement counts.

use super::produce::CORELOG;
use crate::error::{BenchError, Result};
use crate::load::Pace;
use crate::report::{Better, Machine, Measured, Report};
use crate::server::connection::Connection;
use crate::server::process::{Server, ServerOptions};
use crate::server::rig::{Place, Rig};
use crate::server::topic::Topic;
use crate::workload::batches::Bodies;
use crate::workload::{Workload, counted, gigabytes};
use clap::Args;
use corelog_wire::{Operation, Produced};
use std::thread;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(120);
const FILL_RECORDS: u32 = 64;

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

/// One kill and restart, ms from the start of the process.
struct Restart {
    /// To the answer to a hello.
    hello: f64,
    /// To the first acknowledgement of a durable record.
    first_ack: f64,
    /// To an acknowledgement in every partition.
    all_acks: f64,
}

pub(crate) const FIRST_ACK: &str = "to the first acknowledgement";

/// Runs `bench recovery`.
pub(crate) fn run(args: &RecoveryArgs) -> Result<Report> {
    let mut report = Report::new(Machine::this(&args.place.dir));
    report.results.push(measure(args)?);
    Ok(report)
}

/// Fills a log, and kills and restarts its server some times.
pub(crate) fn measure(args: &RecoveryArgs) -> Result<Measured> {
    if args.place.bootstrap_server.is_some() {
        return Err(BenchError::Usage(
            "a server that is killed has to be started here: leave out --bootstrap-server".into(),
        ));
    }
    let mut rig = Rig::start(&args.place)?;
    let topic = rig.topic(args.partitions, &[])?;
    let workload = Workload { batch_records: FILL_RECORDS, partitions: args.partitions, ..Workload::default() };
    let bytes = rig.fill(&topic, &Bodies::of(&workload)?, &workload, (args.gigabytes * 1e9) as u64)?;
    let restarts: Vec<Restart> = (0..args.repeats.max(1)).map(|_| restart(&mut rig, &topic)).collect::<Result<_>>()?;
    let partitions = counted(args.partitions, "partition");
    let load = format!("killed under load with a log of {} in {partitions}", gigabytes(bytes));
    let mut measured = Measured::new("recovery", CORELOG, load);
    let mut put = |name, of: fn(&Restart) -> f64| {
        measured.figure(name, "ms", Better::Lower, restarts.iter().map(of).collect());
    };
    put("to the answer to a hello", |restart| restart.hello);
    put(FIRST_ACK, |restart| restart.first_ack);
    put("to one in every partition", |restart| restart.all_acks);
    Ok(measured)
}

fn restart(rig: &mut Rig, topic: &Topic) -> Result<Restart> {
    let options = kill_under_load(rig, topic)?;
    let began = Instant::now();
    let since = |began: Instant| began.elapsed().as_secs_f64() * 1e3;
    let mut server = Server::spawn(options)?;
    let mut connection = server.wait_ready(PATIENCE)?;
    let hello = since(began);
    let record = Bodies::of(&Workload::default())?.bodies.remove(0);
    let mut first_ack = 0.0;
    for partition in 0..topic.0.partitions {
        produce_when_open(&mut connection, &topic.0.name, partition, &record)?;
        if partition == 0 {
            first_ack = since(began);
        }
    }
    let all_acks = since(began);
    rig.adopt(server);
    Ok(Restart { hello, first_ack, all_acks })
}

/// Kills the server in the midst of a load of small records, so that its journal ends in commits of many partitions.
fn kill_under_load(rig: &mut Rig, topic: &Topic) -> Result<ServerOptions> {
    let pace = Pace::Closed { window: 4 };
    let partitions = topic.0.partitions;
    let workload = Workload { pace, partitions, warm_up: 0.0, seconds: 3.0, ..Workload::default() };
    let bodies = Bodies::of(&workload)?;
    let mut server = rig.take_server()?;
    let rig = &*rig;
    thread::scope(|scope| {
        let load = scope.spawn(|| rig.load(topic, &bodies, &workload, false, None).map(drop));
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
