//! Kafka's protocol as a dialect of connections: which bytes are a frame, and what becomes of it.

use super::server::Own;
use super::state::State;
use super::topics::compression;
use crate::limits::Limits;
use crate::transport::{self, Compression, Dialect, Flow, Framing, Goodbye, Head, KAFKA, Looked, Phase};
use corelog_engine::shard::count;
use corelog_kafka::api::Api;
use corelog_kafka::header::{self, FIXED_BYTES, Request};
use corelog_kafka::produce::{Produce, Section};
use std::rc::Rc;

pub(super) type Connection = transport::Connection<State>;
pub(super) type Shared = transport::Shared<State>;

impl Framing for State {
    const HEADER_BYTES: usize = FIXED_BYTES;

    fn frame_bytes(first: &[u8]) -> usize {
        header::frame_bytes(first).unwrap_or(usize::MAX)
    }
}

/// What a produce has for each partition; nothing of another request.
fn sections(frame: &[u8]) -> impl Iterator<Item = Section<'_>> {
    let request = State::is_produce(frame).then(|| Request::parse(Api::Produce, frame).ok()).flatten();
    let produce = request.and_then(|request| Produce::parse(&request).ok());
    produce.into_iter().flat_map(|produce| produce.sections())
}

impl Dialect for State {
    type Shared = Own;

    const NAME: &str = KAFKA;

    fn new(shared: &Rc<Shared>) -> State {
        State::new(shared)
    }

    fn flow(&self) -> &Flow {
        &self.flow
    }

    fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }

    fn frame_bytes_max(&self, limits: &Limits) -> usize {
        FIXED_BYTES + limits.body_bytes_max as usize
    }

    fn is_produce(first: &[u8]) -> bool {
        header::Head::of(first).key == Api::Produce as i16
    }

    fn sections(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
        sections(frame).map(|section| section.records)
    }

    fn compressions(&mut self, connection: &Connection, frame: &[u8]) -> Vec<Option<Compression>> {
        sections(frame).map(|section| compression(connection.shard(), section.topic)).collect()
    }

    fn admits(&mut self, connection: &Connection, frame: &[u8]) -> bool {
        // Any other request is alone, so that responses go out in the order of requests.
        let is_its_turn = match Self::is_produce(frame) {
            true => self.flow.requests == self.produces.len(),
            false => self.flow.requests == 0,
        };
        is_its_turn && self.flow.admits(&connection.shared, frame.len())
    }

    fn may_produce(&mut self, _: &[u8]) -> bool {
        true
    }

    fn take(&mut self, connection: &Rc<Connection>, frame: &[u8], looked: &[Looked]) {
        if self.flow.phase == Phase::Draining {
            return;
        }
        let head = header::Head::of(frame);
        let Some(api) = Api::of_key(head.key) else {
            return self.refuse(connection, &format!("request {} is not served", head.key));
        };
        if api == Api::ApiVersions && !api.versions().contains(head.version) {
            self.flow.phase = Phase::Serving;
            return self.refuse_api_versions(head.correlation);
        }
        let request = match Request::parse(api, frame) {
            Ok(request) => request,
            Err(error) => return self.refuse(connection, &format!("{}: {error}", api.name())),
        };
        self.flow.phase = Phase::Serving;
        count(&connection.shard().counters().requests, 1);
        if let Err(error) = self.serve(connection, &request, looked) {
            self.refuse(connection, &format!("{} version {}: {error}", api.name(), request.version));
        }
    }

    fn skipped(&mut self, connection: &Connection, _: &Head) {
        // No response says "try again" to every request; clients do when they are cut off.
        self.refuse(connection, "no memory for a frame that arrives in parts");
    }

    fn too_large(&mut self, connection: &Connection, head: &Head) {
        let length = i32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let max = self.frame_bytes_max(&connection.shared.limits) - 4;
        self.refuse(connection, &format!("a frame of {length} bytes; from 8 to {max} are allowed"));
    }

    fn say_goodbye(&mut self, _: &Connection, _: Goodbye) {}

    fn work(&mut self, connection: &Rc<Connection>) {
        State::work(self, connection);
    }

    fn has_readers(&self) -> bool {
        self.has_fetch_to_run()
    }

    fn drain(&mut self, connection: &Connection) {
        self.flow.phase = Phase::Draining;
        self.end_fetch_wait(connection);
    }

    fn close(&mut self, connection: &Connection) {
        self.forget_fetch(connection);
        self.flow.broken = true;
    }

    fn tidy(&mut self, _: bool) {
        self.release_idle_cursors();
    }
}
