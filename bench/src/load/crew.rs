//! Who makes a load: a thread of this process, or several processes whose measurements are joined. Each connects first;
//! when all have, they are told to begin.

use super::{Lane, Load, Pace, Plan, Span, Watch};
use crate::error::{BenchError, Doing, Result};
use crate::report::latency::{Second, counts, of_counts};
use crate::report::live::Runs;
use crate::server::interrupt;
use crate::server::topic::TopicName;
use corelog_yardstick::pin;
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read, Write, stdin, stdout};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Instant;

/// Where requests go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Target {
    /// To the shards that own the topic's partitions.
    Topic(TopicName),
    /// To the yardstick, which has neither topics nor hello.
    Bare(SocketAddr),
}

/// What one maker of a load does.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    pub(crate) target: Target,
    /// Connections of the whole load.
    pub(crate) producers: usize,
    /// This is the maker of this number, of so many: its connections are those whose number leaves this remainder.
    pub(crate) member: usize,
    pub(crate) members: usize,
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Of this member alone.
    pub(crate) pace: Pace,
    pub(crate) span: Span,
    pub(crate) stamped: bool,
    pub(crate) core: Option<usize>,
}

impl Job {
    fn lanes(&self) -> Result<Vec<Lane>> {
        let mine = (0..self.producers).filter(|number| number % self.members == self.member);
        match &self.target {
            Target::Topic(topic) => topic.lanes(self.producers, mine),
            Target::Bare(address) => mine.map(|_| bare_lane(*address)).collect(),
        }
    }

    fn plan(&self) -> Plan<'_> {
        Plan { bodies: &self.bodies, pace: self.pace, span: self.span, stamped: self.stamped }
    }
}

fn bare_lane(address: SocketAddr) -> Result<Lane> {
    let stream = TcpStream::connect(address).doing("connecting to the yardstick")?;
    stream.set_nodelay(true).doing("connecting to the yardstick")?;
    Ok(Lane { stream, handles: vec![0] })
}

/// Makers of a load that have connected and wait for the word.
pub(crate) struct Crew {
    members: Vec<Member>,
    span: Span,
}

enum Member {
    Thread { go: SyncSender<()>, done: JoinHandle<Result<Load>> },
    Process(Worker),
}

/// What a load measured, and what was seen of the other side at the beginning and the end of the measured time.
pub(crate) struct Run<U> {
    pub(crate) load: Load,
    pub(crate) before: U,
    pub(crate) after: U,
}

/// The two ends of the measured time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Edge {
    Begin,
    End,
}

impl Crew {
    /// Has all of them connect. A single one is a thread, and says each second what it sees.
    pub(crate) fn gather(job: &Job, live: Option<(Runs, usize)>) -> Result<Crew> {
        let jobs = (0..job.members).map(|member| Job { member, pace: job.pace.shared(job.members), ..job.clone() });
        let members = match job.members {
            1 => vec![start_thread(job.clone(), live)?],
            _ => jobs.map(|job| Worker::start(&job).map(Member::Process)).collect::<Result<_>>()?,
        };
        Ok(Crew { members, span: job.span })
    }

    /// Begins, and looks at the other side at both ends of the measured time.
    pub(crate) fn go<U>(self, mut look: impl FnMut(Edge) -> Result<U>) -> Result<Run<U>> {
        let Crew { mut members, span } = self;
        for member in &mut members {
            match member {
                // A thread that ended says why when it is joined.
                Member::Thread { go, .. } => drop(go.send(())),
                Member::Process(worker) => worker.go()?,
            }
        }
        let begin = Instant::now() + span.warm_up;
        let mut look_at = |when: Instant, edge| {
            thread::sleep(when.saturating_duration_since(Instant::now()));
            look(edge)
        };
        let before = look_at(begin, Edge::Begin);
        let after = look_at(begin + span.measured, Edge::End);
        let loads = members.into_iter().map(Member::join).collect::<Result<Vec<_>>>()?;
        Ok(Run { load: join(loads)?, before: before?, after: after? })
    }
}

impl Member {
    fn join(self) -> Result<Load> {
        match self {
            Member::Thread { done, .. } => {
                done.join().unwrap_or_else(|_| Err(BenchError::Server("the load's thread panicked".into())))
            }
            Member::Process(worker) => worker.join(),
        }
    }
}

fn start_thread(job: Job, live: Option<(Runs, usize)>) -> Result<Member> {
    let (go, told) = sync_channel(1);
    let (ready, is_ready) = sync_channel(1);
    let done = thread::spawn(move || make(&job, live, &ready, &told));
    // Where it could not connect it ends, which the join tells.
    let _ = is_ready.recv();
    Ok(Member::Thread { go, done })
}

fn make(job: &Job, live: Option<(Runs, usize)>, ready: &SyncSender<()>, told: &Receiver<()>) -> Result<Load> {
    pin(job.core).doing("moving the load to its core")?;
    let lanes = job.lanes()?;
    let _ = ready.send(());
    if told.recv().is_err() {
        return Err(BenchError::Server("the load was given up before it began".into()));
    }
    let mut seconds = Seconds { live, number: 0 };
    super::run(lanes, job.plan(), &mut seconds)
}

/// Says each second what was seen.
struct Seconds {
    live: Option<(Runs, usize)>,
    number: usize,
}

impl Watch for Seconds {
    fn second(&mut self, second: &Second) {
        if let Some((runs, run)) = &self.live {
            runs.second(*run, self.number, second);
        }
        self.number += 1;
    }
}

/// What several drivers measured at the same time, as if it had been one.
fn join(mut loads: Vec<Load>) -> Result<Load> {
    let Some(mut all) = loads.pop() else { return Err(BenchError::Server("nobody made the load".into())) };
    let drivers = loads.len() as f64 + 1.0;
    for load in &loads {
        all.requests += load.requests;
        all.refused += load.refused;
        all.idle += load.idle;
        // Histograms of the same bounds always add up.
        let _ = all.latency.add(&load.latency);
        all.each_second.resize(all.each_second.len().max(load.each_second.len()), Second::default());
        all.each_second.iter_mut().zip(&load.each_second).for_each(|(second, more)| second.add(more));
    }
    all.idle /= drivers;
    Ok(all)
}

/// What a worker's process says at its end.
#[derive(Debug, Serialize, Deserialize)]
struct Told {
    requests: u64,
    refused: u64,
    seconds: f64,
    idle: f64,
    latency: Vec<(u64, u64)>,
    each_second: Vec<Second>,
}

/// A process that makes a part of a load: `corelog bench worker`. It reads its job from a line of standard input, says
/// when it is ready, waits for another line, and says what it measured.
struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start(job: &Job) -> Result<Worker> {
        let doing = "starting a process for the load";
        let program = std::env::current_exe().doing(doing)?;
        let mut child = Command::new(program)
            .args(["bench", "worker"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .doing(doing)?;
        interrupt::started(child.id());
        let (Some(mut input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(BenchError::Server("a process for the load has no pipes".into()));
        };
        let mut line = serde_json::to_vec(job).map_err(|error| BenchError::Server(error.to_string()))?;
        line.push(b'\n');
        input.write_all(&line).doing(doing)?;
        let mut worker = Worker { child, input, output: BufReader::new(output) };
        worker.expect_ready()?;
        Ok(worker)
    }

    fn expect_ready(&mut self) -> Result<()> {
        let mut line = String::new();
        self.output.read_line(&mut line).doing("waiting for a process of the load")?;
        // What was wrong it has said on standard error, which it shares with us.
        let failed = || BenchError::Server("a process for the load ended before it began".into());
        (line.trim() == READY).then_some(()).ok_or_else(failed)
    }

    fn go(&mut self) -> Result<()> {
        self.input.write_all(b"go\n").doing("telling a process of the load to begin")
    }

    fn join(mut self) -> Result<Load> {
        let mut text = String::new();
        self.output.read_to_string(&mut text).doing("hearing from a process of the load")?;
        let failed = |error| BenchError::Server(format!("a process of the load ended without a result: {error}"));
        let told: Told = serde_json::from_str(&text).map_err(failed)?;
        let Told { requests, refused, seconds, idle, latency, each_second } = told;
        Ok(Load { requests, refused, seconds, idle, latency: of_counts(&latency), each_second, probed: 0 })
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        interrupt::ended(self.child.id());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const READY: &str = "ready";

/// Runs `bench worker`.
pub(crate) fn work() -> Result<()> {
    let mut lines = stdin().lock().lines();
    let mut line = || lines.next().transpose().doing("reading the job of a worker");
    let job = line()?.unwrap_or_default();
    let usage =
        |error| BenchError::Usage(format!("`bench worker` is for `bench --processes`: its input is no job: {error}"));
    let job: Job = serde_json::from_str(&job).map_err(usage)?;
    pin(job.core).doing("moving the load to its core")?;
    let lanes = job.lanes()?;
    let mut out = stdout().lock();
    writeln!(out, "{READY}").and_then(|()| out.flush()).doing("saying that a worker is ready")?;
    if line()?.is_none() {
        return Ok(());
    }
    let load = super::run(lanes, job.plan(), &mut ())?;
    let Load { requests, refused, seconds, idle, each_second, .. } = load;
    let told = Told { requests, refused, seconds, idle, latency: counts(&load.latency), each_second };
    serde_json::to_writer(&mut out, &told).map_err(|error| BenchError::Server(error.to_string()))?;
    out.flush().doing("saying what a worker measured")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::latency::histogram;
    use std::time::Duration;

    fn load(requests: u64, us: u64) -> Load {
        let mut latency = histogram();
        latency.record_n(us * 1000, requests).expect("in bounds");
        let each_second = vec![Second::take(&mut latency.clone(), Duration::from_secs(1))];
        Load { requests, refused: 1, seconds: 1.0, latency, each_second, idle: 0.5, probed: 0 }
    }

    #[test]
    fn loads_of_several_drivers_are_one() {
        let all = join(vec![load(10, 100), load(30, 900)]).expect("joined");
        assert_eq!((all.requests, all.refused, all.latency.len(), all.idle), (40, 2, 40, 0.5));
        assert_eq!(all.each_second[0].count(), 40);
        assert!(join(vec![]).is_err());
    }
}
