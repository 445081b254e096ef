//! Produce: each section goes to the engine as it came; the response follows when all have an outcome, and those before it
//! were answered.

use super::dialect::Connection;
use super::errors;
use super::state::{Body, State, Waiting, queue};
use crate::transport::{Key, Looked, Place};
use corelog_engine::error::AppendError;
use corelog_engine::model::{Offset, Timestamp};
use corelog_engine::shard::{Appended, Remote, count};
use corelog_kafka::ErrorCode;
use corelog_kafka::api::Api;
use corelog_kafka::codec::{Malformed, Sink};
use corelog_kafka::header::Request;
use corelog_kafka::produce::{self, Acks, Produce, Produced, Section};
use std::rc::Rc;

/// The first version whose batches are the ones that are stored.
const FIRST_WITH_BATCHES: i16 = 3;
/// So many answered produces are kept for their memory.
const SPARE_MAX: usize = 16;

/// A produce that is not answered yet.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    version: i16,
    correlation: i32,
    /// Nobody waits for an answer.
    is_silent: bool,
    /// Of its frame.
    bytes: usize,
    /// Sections without an outcome.
    left: usize,
    names: String,
    topics: Vec<Named>,
    outcomes: Vec<Outcome>,
}

/// A topic of it: its name ends here, and so many sections are its.
#[derive(Debug, Clone, Copy)]
struct Named {
    name_end: usize,
    sections: usize,
}

/// What became of a section.
#[derive(Debug)]
struct Outcome {
    partition: i32,
    error: ErrorCode,
    appended: Appended,
    message: Option<Box<str>>,
}

impl State {
    pub(super) fn produce(
        &mut self,
        connection: &Rc<Connection>,
        request: &Request<'_>,
        looked: &[Looked],
    ) -> Result<(), Malformed> {
        let produce = Produce::parse(request)?;
        if self.waiting.total() + produce.partitions() > connection.shared.limits.shard_waits_max {
            self.refuse(connection, "the shard has as many waiting requests as it may");
            return Ok(());
        }
        let refused = refusal(request, &produce);
        let mut in_flight = self.spare.pop().unwrap_or_default();
        in_flight.begin(request, &produce);
        let number = self.produced + self.produces.len() as u64;
        for (index, section) in produce.sections().enumerate() {
            in_flight.add(&section);
            let looked = looked.iter().find(|looked| looked.section == index).map(|looked| &looked.found);
            let begun = match (refused, looked) {
                (Some((error, why)), _) => Err((error, Some(why.into()))),
                (None, Some(Err(error))) => Err(refused_because(error)),
                (None, Some(Ok(records))) => {
                    self.append(connection, number, index as u32, &Section { records, ..section })
                }
                (None, None) => self.append(connection, number, index as u32, &section),
            };
            match begun {
                Ok(()) => in_flight.left += 1,
                Err((error, message)) => in_flight.refuse(index, error, message),
            }
        }
        self.flow.requests += 1;
        self.flow.request_bytes += in_flight.bytes;
        self.produces.push_back(in_flight);
        self.answer_produces(connection);
        Ok(())
    }

    fn append(
        &mut self,
        connection: &Rc<Connection>,
        produce: u64,
        section: u32,
        Section { topic, partition, records, .. }: &Section<'_>,
    ) -> Result<(), (ErrorCode, Option<Box<str>>)> {
        let place = self.topics.place(connection, topic, *partition).map_err(|error| (error, None))?;
        let key = self.waiting.insert(Waiting::Produce { produce, section });
        let begun = match place {
            Place::Here(handle) => {
                connection.note_received();
                connection.shard().append(handle, records, &connection.session, key.ticket())
            }
            Place::There(shard, partition) => {
                let parcel = connection.shard().parcel(records);
                let append = parcel.map(|bytes| Remote::Append { partition, bytes });
                let forward =
                    |append| connection.shard().forward(shard, append, &connection.session, key.ticket()).ok();
                append.and_then(forward).ok_or(AppendError::Busy)
            }
        };
        if let Err(error) = &begun {
            self.waiting.remove(key);
            if *error == AppendError::UnknownPartition {
                self.topics.forget(topic);
            }
        }
        begun.map_err(|error| refused_because(&error))
    }

    pub(super) fn end_section(&mut self, connection: &Connection, key: Key, outcome: Result<Appended, AppendError>) {
        let Some(Waiting::Produce { produce, section }) = self.waiting.remove(key) else { return };
        let at = (produce - self.produced) as usize;
        let Some(in_flight) = self.produces.get_mut(at) else { return };
        in_flight.left -= 1;
        match outcome {
            Ok(appended) => {
                in_flight.outcomes[section as usize].appended = appended;
                self.flow.outbox.note_acknowledged(connection.now());
            }
            Err(error) => {
                if error == AppendError::UnknownPartition {
                    let topic = in_flight.topic_of(section as usize).to_owned();
                    self.topics.forget(&topic);
                }
                let (error, message) = refused_because(&error);
                in_flight.refuse(section as usize, error, message);
            }
        }
    }

    /// Answers the oldest produces that have all their outcomes.
    pub(super) fn answer_produces(&mut self, connection: &Connection) {
        while let Some(in_flight) = self.produces.front().filter(|in_flight| in_flight.left == 0) {
            let InFlight { version, correlation, .. } = *in_flight;
            let outbox = &mut self.flow.outbox;
            if !in_flight.is_silent && queue(outbox, Api::Produce, version, correlation, in_flight).is_err() {
                // It stays the first; there may be memory for it soon.
                return self.flow.wait_for_memory(connection.now());
            }
            let Some(mut answered) = self.produces.pop_front() else { return };
            self.produced += 1;
            self.flow.requests -= 1;
            self.flow.request_bytes -= answered.bytes;
            connection.room.notify();
            let refused = answered.outcomes.iter().filter(|outcome| outcome.error != ErrorCode::None).count();
            count(&connection.shard().counters().refusals, refused as u64);
            if answered.is_silent && refused > 0 {
                // Who gets no answer is told by the end of the connection that something is missing.
                self.refuse(connection, "a produce without an answer was refused");
            }
            answered.clear();
            if self.spare.len() < SPARE_MAX {
                self.spare.push(answered);
            }
        }
    }
}

/// Why none of it can be appended, if so.
fn refusal(request: &Request<'_>, produce: &Produce<'_>) -> Option<(ErrorCode, &'static str)> {
    if request.version < FIRST_WITH_BATCHES {
        let why = "message sets of Produce before version 3 are not taken: use a client that writes record batches";
        return Some((ErrorCode::UnsupportedForMessageFormat, why));
    }
    if produce.transactional_id.is_some() {
        return Some((ErrorCode::InvalidRequest, "there are no transactions"));
    }
    Acks::of_code(produce.acks).is_none().then_some((ErrorCode::InvalidRequiredAcks, "acks is 0, 1 or -1 (all)"))
}

fn refused_because(error: &AppendError) -> (ErrorCode, Option<Box<str>>) {
    (errors::of_append(error), Some(error.to_string().into()))
}

impl InFlight {
    fn begin(&mut self, request: &Request<'_>, produce: &Produce<'_>) {
        self.version = request.version;
        self.correlation = request.correlation;
        self.is_silent = Acks::of_code(produce.acks) == Some(Acks::None);
        self.bytes = request.body.len();
    }

    fn add(&mut self, section: &Section<'_>) {
        if let Some(sections) = section.first_of {
            self.names.push_str(section.topic);
            self.topics.push(Named { name_end: self.names.len(), sections });
        }
        let (partition, error, none) = (section.partition, ErrorCode::None, Offset(-1));
        let appended = Appended { base: none, last: none, at: Timestamp(-1), first: none };
        self.outcomes.push(Outcome { partition, error, appended, message: None });
    }

    fn refuse(&mut self, section: usize, error: ErrorCode, message: Option<Box<str>>) {
        let outcome = &mut self.outcomes[section];
        (outcome.error, outcome.message) = (error, message);
    }

    fn topic_of(&self, section: usize) -> &str {
        let mut before = 0;
        for (at, topic) in self.topics.iter().enumerate() {
            before += topic.sections;
            if section < before {
                return self.name(at);
            }
        }
        ""
    }

    fn name(&self, at: usize) -> &str {
        let begin = if at == 0 { 0 } else { self.topics[at - 1].name_end };
        &self.names[begin..self.topics[at].name_end]
    }

    fn clear(&mut self) {
        self.names.clear();
        self.topics.clear();
        self.outcomes.clear();
    }
}

impl Body for InFlight {
    fn put(&self, out: &mut impl Sink) {
        let version = self.version;
        produce::put_begin(version, self.topics.len(), out);
        let mut outcomes = self.outcomes.iter();
        for (at, topic) in self.topics.iter().enumerate() {
            produce::put_topic(version, self.name(at), topic.sections, out);
            for Outcome { partition, error, appended, message } in outcomes.by_ref().take(topic.sections) {
                let produced = Produced {
                    partition: *partition,
                    error: *error,
                    base_offset: appended.base.0,
                    timestamp: appended.at.0,
                    first_offset: appended.first.0,
                    message: message.as_deref(),
                };
                produce::put_partition(version, &produced, out);
            }
            produce::put_topic_end(version, out);
        }
        produce::put_end(version, out);
    }
}
