//! `consume --group`: reads the partitions that the group's coordinator gives it, and commits what it has written.
//!
//! One thread: while nobody takes the output, no heartbeat is sent, and others get the partitions in the end. What was written
//! and not committed by then is written again by them.

use super::{Consume, Output, WAIT, ends, options};
use crate::failure::{Failure, for_terminal};
use crate::server::failed;
use corelog_client::blocking::Consumer;
use corelog_client::{ConsumerOptions, TopicDescription};
use corelog_kafka_client::{Beat, Groups, KafkaError, Membership};
use nix::sys::signal::{SigSet, Signal};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// How often what was written is committed.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How soon a coordinator that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

const CLIENT_ID: &str = concat!("corelog ", env!("CARGO_PKG_VERSION"));

pub(super) fn run(args: &Consume, group: &str, topic: &TopicDescription) -> Result<(), Failure> {
    let stop = stop_on_signals()?;
    let membership = Membership::new(&args.group_server, CLIENT_ID, group, (&topic.name, topic.id));
    let now = Instant::now();
    let mut reader = Reader {
        args,
        group,
        membership: membership.map_err(of_kafka)?,
        groups: Groups::connect(&args.group_server, CLIENT_ID).map_err(of_kafka)?,
        consumer: None,
        owned: BTreeSet::new(),
        written: BTreeMap::new(),
        committed: BTreeMap::new(),
        beat_at: now,
        commit_at: now + COMMIT_EVERY,
        is_silent: false,
    };
    let outcome = reader.read(&stop, &ends(args, topic));
    // Whatever ended it, what was written is not to be read again.
    let committed = reader.commit();
    let left = reader.membership.leave();
    outcome?;
    committed.and(left).map_err(of_kafka)
}

/// Whether the end was asked for.
fn stop_on_signals() -> Result<Arc<AtomicBool>, Failure> {
    let signals = SigSet::from_iter([Signal::SIGINT, Signal::SIGTERM]);
    signals.thread_block().map_err(|error| Failure::Failed(format!("cannot block signals: {error}")))?;
    let stop = Arc::new(AtomicBool::new(false));
    let asked = stop.clone();
    thread::spawn(move || {
        let _ = signals.wait();
        asked.store(true, Ordering::Relaxed);
        // While nobody takes the output nothing ends in order.
        let _ = signals.wait();
        std::process::exit(1);
    });
    Ok(stop)
}

fn of_kafka(error: KafkaError) -> Failure {
    Failure::Failed(error.to_string())
}

struct Reader<'a> {
    args: &'a Consume,
    group: &'a str,
    membership: Membership,
    groups: Groups,
    /// Reads what it has.
    consumer: Option<Consumer>,
    owned: BTreeSet<u32>,
    /// Offsets behind what was written.
    written: BTreeMap<u32, i64>,
    committed: BTreeMap<u32, i64>,
    beat_at: Instant,
    commit_at: Instant,
    /// The coordinator does not answer, and that was said.
    is_silent: bool,
}

impl Reader<'_> {
    fn read(&mut self, stop: &AtomicBool, ends: &[(u32, i64)]) -> Result<(), Failure> {
        let mut output = Output::new(self.args);
        while output.left > 0 && !stop.load(Ordering::Relaxed) {
            self.stay_a_member()?;
            if self.args.exit_at_end && self.is_read(ends) {
                break;
            }
            let Some(consumer) = &mut self.consumer else {
                thread::sleep(WAIT);
                continue;
            };
            if let Some(fetched) = consumer.poll(WAIT).map_err(failed)?
                && let Some(next) = output.write(&fetched)?
            {
                self.written.insert(fetched.partition(), next);
            }
            if Instant::now() >= self.commit_at {
                self.commit().or_else(|error| self.bear(error))?;
                self.commit_at = Instant::now() + COMMIT_EVERY;
            }
        }
        Ok(())
    }

    /// Whether all was written that there was at the start, of the partitions that it has.
    fn is_read(&self, ends: &[(u32, i64)]) -> bool {
        let is_read = |(partition, end): &(u32, i64)| self.position(*partition) >= Some(*end);
        // Others may have all.
        let has_its_share = !self.owned.is_empty() || self.membership.is_settled();
        has_its_share && ends.iter().filter(|(partition, _)| self.owned.contains(partition)).all(is_read)
    }

    fn position(&self, partition: u32) -> Option<i64> {
        let of_consumer = || self.consumer.as_ref().and_then(|consumer| consumer.position(partition));
        self.written.get(&partition).copied().or_else(of_consumer)
    }

    fn stay_a_member(&mut self) -> Result<(), Failure> {
        if Instant::now() < self.beat_at {
            return Ok(());
        }
        match self.membership.beat(&self.owned) {
            Ok(beat) => {
                self.is_silent = false;
                self.beat_at = Instant::now() + self.membership.heartbeat();
                match beat {
                    Beat::Same => Ok(()),
                    Beat::Assigned(partitions) => self.take(partitions),
                    Beat::Out => {
                        eprintln!("corelog: this member was out of group {}: it joins again", for_terminal(self.group));
                        self.forget();
                        Ok(())
                    }
                }
            }
            Err(error) if error.may_pass() => {
                self.beat_at = Instant::now() + ASK_AGAIN;
                self.bear(error)
            }
            Err(error) => Err(of_kafka(error)),
        }
    }

    /// A server that is away may come back, and who may not commit will be told why by its next heartbeat.
    fn bear(&mut self, error: KafkaError) -> Result<(), Failure> {
        if !matches!(error, KafkaError::Unreachable { .. } | KafkaError::Lost { .. } | KafkaError::Refused { .. }) {
            return Err(of_kafka(error));
        }
        if !std::mem::replace(&mut self.is_silent, true) {
            eprintln!("corelog: {}; trying again", for_terminal(&error.to_string()));
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.consumer = None;
        self.owned.clear();
        self.written.clear();
        self.committed.clear();
    }

    /// Reads these partitions and no others: those that go are committed first.
    fn take(&mut self, partitions: BTreeSet<u32>) -> Result<(), Failure> {
        if partitions == self.owned {
            return Ok(());
        }
        self.commit().or_else(|error| self.bear(error))?;
        let mut from: BTreeMap<u32, i64> =
            partitions.iter().filter_map(|partition| Some((*partition, self.position(*partition)?))).collect();
        let committed = match self.groups.committed(self.group) {
            Ok(committed) => committed,
            Err(error) => return self.take_later(error),
        };
        for ((topic, partition), committed) in committed {
            let partition = u32::try_from(partition).unwrap_or(u32::MAX);
            if topic == self.args.topic && partitions.contains(&partition) && !self.owned.contains(&partition) {
                from.insert(partition, committed.offset);
                self.committed.insert(partition, committed.offset);
            }
        }
        self.consumer = match partitions.is_empty() {
            true => None,
            false => {
                let options =
                    ConsumerOptions { partitions: Some(partitions.iter().copied().collect()), ..options(self.args) };
                let server = &self.args.server.bootstrap;
                let mut consumer = Consumer::connect(server, &self.args.topic, options).map_err(failed)?;
                for (partition, offset) in from {
                    consumer.seek(partition, offset).map_err(failed)?;
                }
                Some(consumer)
            }
        };
        self.written.retain(|partition, _| partitions.contains(partition));
        self.committed.retain(|partition, _| partitions.contains(partition));
        self.owned = partitions;
        // What it gave back is another's as soon as that is known.
        self.beat_at = Instant::now();
        Ok(())
    }

    /// Who does not read what it was told is told again.
    fn take_later(&mut self, error: KafkaError) -> Result<(), Failure> {
        self.beat_at = Instant::now() + ASK_AGAIN;
        self.bear(error)
    }

    /// Commits how far it has come, where that is news.
    fn commit(&mut self) -> Result<(), KafkaError> {
        // What the consumer handed over and could not be written is not among it.
        let written = self.written.iter().map(|(partition, offset)| (*partition, *offset));
        let news: BTreeMap<u32, i64> =
            written.filter(|(partition, offset)| self.committed.get(partition) != Some(offset)).collect();
        if !news.is_empty() {
            self.membership.commit(&news)?;
            self.committed.extend(news);
        }
        Ok(())
    }
}
