//! What a load runs against: a server, started here or already there, and the yardstick on the same disk and core.

use super::connection::Connection;
use super::glommio::Glommio;
use super::interrupt;
use super::mini::Mini;
use super::process::{Server, ServerOptions, free_address};
use super::topic::{Topic, TopicName};
use super::usage::{Process, Usage};
use crate::error::{BenchError, Doing, Result};
use crate::load::Pace;
use crate::load::crew::{Crew, Edge, Job, Run, Target};
use crate::load::reader::Watch;
use crate::machine::cores::{Cores, CpuClock};
use crate::report::live::{self, Runs};
use crate::workload::Workload;
use crate::workload::batches::Bodies;
use clap::Args;
use corelog_wire::HEADER_BYTES;
use corelog_yardstick::bare::{self, Bare, Durable};
use corelog_yardstick::pin;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tempfile::TempDir;

const START_PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of a response's body to a produce; the yardstick answers as many.
const ACK_BYTES: usize = 24;
/// Requests that an open loop may have unanswered at the yardstick.
const OPEN_OUTSTANDING: usize = 16 << 10;

/// Where to run: shared by all benchmarks that need a server.
#[derive(Debug, Clone, Args)]
pub(crate) struct Place {
    /// A running server to measure; without it one is started and stopped here.
    #[arg(short = 'b', long, value_name = "HOST:PORT")]
    pub bootstrap_server: Option<SocketAddr>,
    /// Directory for data and scratch files, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Shards of the server that is started.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub smp: u16,
    /// An argument of `serve` for the server that is started; may be repeated.
    #[arg(long = "serve-arg", value_name = "ARG", allow_hyphen_values = true)]
    pub serve_args: Vec<String>,
}

/// A server and whatever is needed beside it.
pub(crate) struct Rig {
    pub(crate) cores: Cores,
    pub(crate) address: SocketAddr,
    shards: u16,
    // Dropped before the directory: a server that runs makes files in what is being removed.
    server: Option<Server>,
    pub(crate) directory: TempDir,
}

/// Batches may say any time.
const ANY_TIME: (&str, &str) = ("message.timestamp.after.max.ms", "9223372036854775807");

impl Rig {
    /// Connects to the server of `place`, or starts one there.
    pub(crate) fn start(place: &Place) -> Result<Rig> {
        let directory = interrupt::scratch(&place.dir)?;
        let cores = Cores::choose();
        let (cores, address, server) = match place.bootstrap_server {
            // Where that server runs is not known: the load is left to the scheduler, so as not to meet it on its core.
            Some(address) => (Cores { load: None, ..cores }, address, None),
            None => {
                live::say("starting a server");
                let options = server_options(directory.path(), place, cores)?;
                (cores, options.listen, Some(Server::start(options, START_PATIENCE)?))
            }
        };
        let shards = Connection::open(address)?.shards();
        Ok(Rig { cores, directory, address, shards, server })
    }

    /// Makes a topic of its own for one run. Stamped batches have nanoseconds where others have milliseconds.
    pub(crate) fn topic(&self, partitions: u32, settings: &[(&str, &str)]) -> Result<Topic> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let name = format!("bench-{}-{}", std::process::id(), now.as_nanos());
        let settings = [&[ANY_TIME][..], settings].concat();
        Connection::open(self.address)?.create_topic(&name, partitions, &settings)?;
        Ok(Topic(TopicName { name, partitions, address: self.address }))
    }

    /// Loads a topic with the workload's requests.
    pub(crate) fn load(
        &self,
        topic: &Topic,
        bodies: &Bodies,
        workload: &Workload,
        stamped: bool,
        live: Option<(Runs, usize)>,
    ) -> Result<Run<Usage>> {
        let crew = self.gather(topic, bodies, workload, stamped, live)?;
        let mut look = self.observer()?;
        crew.go(|_| look())
    }

    /// The same with batches that say when they should have been sent, and readers that are told when it counts.
    pub(crate) fn load_watched(
        &self,
        topic: &Topic,
        bodies: &Bodies,
        workload: &Workload,
        watch: &Watch,
        live: (Runs, usize),
    ) -> Result<Run<Usage>> {
        let crew = self.gather(topic, bodies, workload, true, Some(live))?;
        let mut look = self.observer()?;
        crew.go(|edge| {
            match edge {
                Edge::Begin => watch.begin()?,
                Edge::End => watch.end()?,
            }
            look()
        })
    }

    /// The same with something of the caller's to look at.
    pub(crate) fn load_looked_at<U>(
        &self,
        topic: &Topic,
        bodies: &Bodies,
        workload: &Workload,
        mut look: impl FnMut() -> Result<U>,
    ) -> Result<Run<U>> {
        self.gather(topic, bodies, workload, false, None)?.go(|_| look())
    }

    fn gather(
        &self,
        topic: &Topic,
        bodies: &Bodies,
        workload: &Workload,
        stamped: bool,
        live: Option<(Runs, usize)>,
    ) -> Result<Crew> {
        let Topic(name) = topic;
        Crew::gather(&job(Target::Topic(name.clone()), bodies, workload, stamped, self.cores), live)
    }

    /// Looks at what the server has used.
    fn observer(&self) -> Result<impl FnMut() -> Result<Usage>> {
        let (mut connection, shards, pid) = (Connection::open(self.address)?, self.shards, self.pid());
        Ok(move || Usage::look(&mut connection, shards, pid))
    }

    /// What the server has used up to now.
    pub(crate) fn usage(&self) -> Result<Usage> {
        self.observer()?()
    }

    /// The number of the process that was started here.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.server.as_ref().map(Server::pid)
    }

    /// Produces the workload's batches, as fast as they are taken, until they are at least `bytes`. Answers how many.
    pub(crate) fn fill(&self, topic: &Topic, bodies: &Bodies, workload: &Workload, bytes: u64) -> Result<u64> {
        const AT_ONCE: Duration = Duration::from_millis(500);
        let pace = Pace::Closed { window: 4 };
        let seconds = AT_ONCE.as_secs_f64();
        let workload = Workload { producers: 8, processes: 1, pace, warm_up: 0.0, seconds, ..workload.clone() };
        let each = bodies.bodies.iter().map(Vec::len).sum::<usize>() as u64 / bodies.bodies.len() as u64;
        let mut filled = 0;
        while filled < bytes {
            let run = self.load(topic, bodies, &workload, false, None)?;
            if run.load.requests == 0 {
                return Err(BenchError::Server("the server takes no records".into()));
            }
            filled += run.load.requests * each;
            live::say(&format!("{} filling the log", live::bar(filled as f64 / bytes as f64)));
        }
        Ok(filled)
    }

    /// Resident memory of the server that was started here.
    pub(crate) fn server_bytes(&self) -> Result<u64> {
        let server = self.server.as_ref();
        server.ok_or_else(|| BenchError::Usage("this needs a server that is started here".into()))?.resident_bytes()
    }

    /// The server that was started here, to be stopped or killed by the caller.
    pub(crate) fn take_server(&mut self) -> Result<Server> {
        self.server.take().ok_or_else(|| BenchError::Usage("this needs a server that is started here".into()))
    }

    /// Takes over a server that was started in the place of the one given away.
    pub(crate) fn adopt(&mut self, server: Server) {
        self.server = Some(server);
    }
}

fn job(target: Target, bodies: &Bodies, workload: &Workload, stamped: bool, cores: Cores) -> Job {
    Job {
        target,
        producers: workload.producers,
        member: 0,
        members: workload.processes,
        bodies: bodies.bodies.clone(),
        pace: workload.pace,
        span: workload.span(),
        stamped,
        core: cores.load.filter(|_| workload.processes == 1),
    }
}

/// A server with this executable, its data in `directory`, on the core that is meant for it.
fn server_options(directory: &Path, place: &Place, cores: Cores) -> Result<ServerOptions> {
    let program = std::env::current_exe().doing("finding this program")?;
    let one = cores.server.filter(|_| place.smp == 1);
    let mut more = one.map_or_else(Vec::new, |core| vec!["--cpuset".into(), core.to_string()]);
    more.extend(place.serve_args.iter().cloned());
    Ok(ServerOptions { program, data_dir: directory.join("data"), smp: place.smp, listen: free_address()?, more })
}

/// Loads the bare loop with the workload's requests. Beside the load stands the CPU time of its thread.
pub(crate) fn load_bare(rig: &Rig, bodies: &Bodies, workload: &Workload) -> Result<Run<u64>> {
    better_of(workload, |durable| {
        let bare = Bare::start(yardstick_options(rig, bodies, workload, durable)).doing("starting the yardstick")?;
        let clock = CpuClock(bare.thread_id());
        let run = load_yardstick(rig, bodies, workload, bare.address(), || clock.nanoseconds())?;
        bare.stop().doing("running the yardstick")?;
        Ok(run)
    })
}

/// The same for the mini broker on the engine's reactor.
pub(crate) fn load_mini(rig: &Rig, bodies: &Bodies, workload: &Workload) -> Result<Run<u64>> {
    better_of(workload, |durable| {
        let mini = Mini::start(yardstick_options(rig, bodies, workload, durable)).doing("starting the mini broker")?;
        let clock = CpuClock(mini.thread_id);
        let run = load_yardstick(rig, bodies, workload, mini.address, || clock.nanoseconds())?;
        mini.stop().doing("running the mini broker")?;
        Ok(run)
    })
}

/// The same for the mini broker on glommio, whose program this is. Beside the load stands the CPU time of its process.
pub(crate) fn load_glommio(rig: &Rig, bodies: &Bodies, workload: &Workload, program: &Path) -> Result<Run<u64>> {
    better_of(workload, |durable| {
        let glommio = Glommio::start(program, &yardstick_options(rig, bodies, workload, durable))?;
        let cpu = || Ok(Process::of(glommio.pid())?.cpu);
        load_yardstick(rig, bodies, workload, glommio.address, cpu)
    })
}

/// Runs a yardstick in both of its ways to make a write durable: which is better depends on device, kernel and which cores
/// are busy. The better one counts.
fn better_of(workload: &Workload, run: impl Fn(Durable) -> Result<Run<u64>>) -> Result<Run<u64>> {
    let (dsync, flush) = (run(Durable::Dsync)?, run(Durable::Flush)?);
    let p50 = |run: &Run<u64>| run.load.latency.value_at_quantile(0.5);
    let rate = |run: &Run<u64>| run.load.requests as f64 / run.load.seconds;
    let is_better = if workload.pace.is_closed() { rate(&dsync) >= rate(&flush) } else { p50(&dsync) <= p50(&flush) };
    Ok(if is_better { dsync } else { flush })
}

fn load_yardstick(
    rig: &Rig,
    bodies: &Bodies,
    workload: &Workload,
    address: SocketAddr,
    mut cpu: impl FnMut() -> Result<u64>,
) -> Result<Run<u64>> {
    let job = job(Target::Bare(address), bodies, workload, false, rig.cores);
    Crew::gather(&job, None)?.go(|_| cpu())
}

fn yardstick_options(rig: &Rig, bodies: &Bodies, workload: &Workload, durable: Durable) -> bare::Options {
    let frame_bytes = HEADER_BYTES + bodies.longest();
    let outstanding = match workload.pace {
        Pace::Closed { window } => workload.producers * window,
        Pace::Open { .. } | Pace::Bursts { .. } | Pace::Ramp { .. } => OPEN_OUTSTANDING,
    };
    let gather_bytes = outstanding * frame_bytes;
    bare::Options {
        directory: rig.directory.path().to_owned(),
        file_bytes: (4 * gather_bytes as u64).max(128 << 20).next_multiple_of(2 << 20),
        frame_bytes,
        ack_bytes: ACK_BYTES,
        gather_bytes,
        cpu: rig.cores.server,
        durable,
    }
}

/// Runs `work` on a thread pinned to `core`; the threads of this process are left where they are.
pub(crate) fn on_core<T: Send>(core: Option<usize>, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            pin(core).doing("moving the load to its core")?;
            work()
        });
        thread.join().unwrap_or_else(|_| Err(BenchError::Server("the load's thread panicked".into())))
    })
}
