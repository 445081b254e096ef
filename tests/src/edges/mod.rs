//! Load on the edges: a real server with honest clients, beside crowds of clients that do what no client should. The honest
//! ones are measured alone and beside a crowd, in turns; the server's memory and descriptors are looked at all the while.

mod crowd;
mod flood;
mod guest;
mod honest;
mod newcomer;
mod report;

pub use crowd::Numbers;
pub use guest::Kind;
pub use honest::Answers;
pub use newcomer::Told;
pub use report::{Fault, Row};

use crate::disk::Result;
use crate::interrupt;
use crate::process::{Node, PATIENCE};
use corelog_bench::Connection;
use corelog_client::blocking::{Admin, Producer};
use corelog_client::{ConnectOptions, NewRecord, ProducerOptions};
use corelog_engine::limits::least_memory;
use corelog_engine::rlimits::Rlimits;
use crowd::Crowd;
use honest::Honest;
use newcomer::Newcomer;
use report::{Part, Window};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

/// Shards of the server.
const SHARDS: u16 = 2;
/// Partitions of each topic: enough that each shard has some of every one.
const PARTITIONS: u32 = 4;
/// What honest clients write and read.
const HONEST: &str = "honest";
/// What slow readers ask for, and how much there is of it.
const BAIT: &str = "bait";
const BAIT_BYTES: usize = 64 << 20;
const BAIT_RECORD_BYTES: usize = 64 << 10;
/// What producers over the limit write; little of it is kept.
const FLOOD: &str = "flood";
const FLOOD_SETTINGS: [(&str, &str); 2] = [("segment.bytes", "16777216"), ("retention.bytes", "67108864")];
/// Before anything counts: connections are made, segments too.
const WARM_UP: Duration = Duration::from_secs(2);
/// The honest clients alone, each time; no longer than beside the crowd.
const ALONE: Duration = Duration::from_secs(15);
/// Descriptors of this process beside those of a crowd.
const OWN_FILES: u64 = 256;
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Time beside each crowd, all rounds together.
    pub beside: Duration,
    /// In how many parts. The honest clients are alone before, between and after.
    pub rounds: u32,
    /// `--memory` of the server, bytes.
    pub memory: u64,
    /// Its `--produce-rate-max`, bytes; for those that produce over it.
    pub produce_rate: Option<u64>,
}

/// Puts a crowd beside honest clients. `say` is told a line now and then.
///
/// # Errors
/// When it cannot be run here, or an honest client fails for good.
pub fn run(kind: Kind, options: &Options, say: &mut dyn FnMut(&str)) -> Result<Row> {
    check_files(kind)?;
    check_memory(options.memory)?;
    let memory = options.memory.to_string();
    let rate = options.produce_rate.map_or("off".to_owned(), |rate| rate.to_string());
    let others = ["--retention-check-interval", "1s", "--disk-reserve", "64MiB"];
    let node = Node::start(SHARDS, &[&["--memory", &memory, "--produce-rate-max", &rate][..], &others].concat());
    let shards = prepare(&node, kind)?;
    let epoch = Instant::now();
    let honest = Honest::start(&node.bootstrap(), epoch)?;
    interrupt::sleep(WARM_UP);
    interrupt::check()?;
    let mut stay = Stay { node, kind, shards, epoch, windows: Vec::new(), newcomer: Newcomer::default() };
    let descriptors_before = stay.node.descriptors_but_segments();
    let beside = options.beside / options.rounds.max(1);
    let mut numbers = Numbers::default();
    let mut descriptors_after = descriptors_before;
    stay.alone(ALONE.min(beside), say);
    for _ in 0..options.rounds.max(1) {
        numbers.add(&stay.beside(beside, say)?);
        descriptors_after = descriptors_after.max(stay.descriptors_settle_at(descriptors_before));
        stay.alone(ALONE.min(beside), say);
        interrupt::check()?;
    }
    let answers = honest.end()?;
    Ok(Row {
        kind,
        numbers,
        newcomers: stay.newcomer.told(),
        windows: stay.windows,
        answers,
        peak_bytes: stay.node.peak_bytes(),
        memory: options.memory,
        produce_rate: options.produce_rate,
        descriptors: (descriptors_before, descriptors_after),
    })
}

/// Both this process and the server need a descriptor for each connection.
fn check_files(kind: Kind) -> Result<()> {
    let (files, least) = (Rlimits::raised().files, kind.connections() as u64 + OWN_FILES);
    if files < least {
        let what =
            format!("{} connections need {least} open files, and this process may have {files}", kind.connections());
        return Err(format!("{what}: raise the hard limit (ulimit -Hn, or LimitNOFILE=) and try again").into());
    }
    Ok(())
}

fn check_memory(memory: u64) -> Result<()> {
    let least = least_memory(SHARDS);
    if memory < least {
        return Err(format!("a server of {SHARDS} shards needs at least {} MiB", least.div_ceil(1 << 20)).into());
    }
    Ok(())
}

/// Makes the topics; at which shards the partitions of the crowd's topic are.
fn prepare(node: &Node, kind: Kind) -> Result<Vec<SocketAddr>> {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default())?;
    admin.create_topic(HONEST, PARTITIONS, &[])?;
    admin.create_topic(BAIT, PARTITIONS, &[])?;
    admin.create_topic(FLOOD, PARTITIONS, &FLOOD_SETTINGS)?;
    if kind == Kind::NeverRead {
        lay_bait(&node.bootstrap())?;
    }
    Ok(Connection::open(node.bootstrap().parse()?)?.owners(kind.topic())?)
}

fn lay_bait(bootstrap: &str) -> Result<()> {
    let producer = Producer::connect(bootstrap, BAIT, ProducerOptions::default())?;
    let value = vec![7; BAIT_RECORD_BYTES];
    for number in 0..BAIT_BYTES / BAIT_RECORD_BYTES {
        producer.send(NewRecord::new(&value).partition(number as u32 % PARTITIONS))?;
    }
    Ok(producer.close()?)
}

/// A server while crowds come and go.
struct Stay {
    node: Node,
    kind: Kind,
    shards: Vec<SocketAddr>,
    epoch: Instant,
    windows: Vec<Window>,
    newcomer: Newcomer,
}

impl Stay {
    fn alone(&mut self, time: Duration, say: &mut dyn FnMut(&str)) {
        say(&format!("{}: honest clients alone for {time:.0?}", self.kind));
        self.window(Part::Alone, || interrupt::sleep(time));
    }

    fn beside(&mut self, time: Duration, say: &mut dyn FnMut(&str)) -> Result<Numbers> {
        let count = self.kind.connections();
        say(&format!("{}: beside {count} connections, as many at once as the server takes, for {time:.0?}", self.kind));
        let crowd = Crowd::gather(self.kind, self.shards.clone())?;
        if let Err(error) = crowd.wait_until_whole() {
            crowd.disperse()?;
            return Err(error);
        }
        let newcomers = self.newcomer.come(self.node.bootstrap().parse()?);
        self.window(Part::Beside, || interrupt::sleep(time));
        newcomers.end();
        let resident = self.node.resident_bytes() >> 20;
        let numbers = crowd.disperse()?;
        say(&format!("{}: {numbers}; the server has {resident} MiB", self.kind));
        Ok(numbers)
    }

    fn window(&mut self, part: Part, during: impl FnOnce()) {
        let from = self.epoch.elapsed();
        during();
        self.windows.push(Window { part, from, to: self.epoch.elapsed() });
    }

    /// How many descriptors are open once those of the crowd are gone, or have had the time to go.
    fn descriptors_settle_at(&self, before: usize) -> usize {
        let until = Instant::now() + PATIENCE;
        loop {
            let now = self.node.descriptors_but_segments();
            if now <= before || Instant::now() > until {
                return now;
            }
            thread::sleep(LOOK_INTERVAL);
        }
    }
}
