//! The native protocol as a dialect of connections: which bytes are a frame, and what becomes of it.

use super::refusal::Refusal;
use super::server::Own;
use super::state::State;
use crate::limits::Limits;
use crate::transport::{self, Compression, Dialect, Flow, Framing, Goodbye, Head, Looked, NATIVE, Phase};
use corelog_engine::shard::count;
use corelog_wire::{FLAG_RESPONSE, Frame, FrameError, FrameTooLarge, HEADER_BYTES, Header, Operation, Request, Status};
use std::rc::Rc;

pub(super) type Connection = transport::Connection<State>;
pub(super) type Shared = transport::Shared<State>;

impl Framing for State {
    const HEADER_BYTES: usize = HEADER_BYTES;

    fn frame_bytes(first: &[u8]) -> usize {
        HEADER_BYTES + header(first).length as usize
    }
}

impl Dialect for State {
    type Shared = Own;

    const NAME: &str = NATIVE;

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
        HEADER_BYTES + body_bytes_max(self.flow.phase, limits) as usize
    }

    fn is_produce(first: &[u8]) -> bool {
        header(first).operation == Operation::Produce as u8
    }

    fn sections(frame: &[u8]) -> impl Iterator<Item = &[u8]> {
        Self::is_produce(frame).then_some(&frame[HEADER_BYTES..]).into_iter()
    }

    fn admits(&mut self, connection: &Connection, frame: &[u8]) -> bool {
        self.flow.admits(&connection.shared, frame.len() - HEADER_BYTES)
    }

    fn may_produce(&mut self, frame: &[u8]) -> bool {
        self.takes_produces(header(frame).handle)
    }

    fn compressions(&mut self, connection: &Connection, frame: &[u8]) -> Vec<Option<Compression>> {
        vec![self.compression(connection, header(frame).handle)]
    }

    fn take(&mut self, connection: &Rc<Connection>, frame: &[u8], looked: &[Looked]) {
        let frame = Frame { header: header(frame), body: &frame[HEADER_BYTES..] };
        match looked.first().map(|looked| &looked.found) {
            Some(Err(error)) => self.fail(frame.header.response(), &error.clone().into()),
            Some(Ok(batches)) => self.take_frame(connection, &Frame { body: batches, ..frame }),
            None => self.take_frame(connection, &frame),
        }
    }

    fn skipped(&mut self, _: &Connection, head: &Head) {
        let refusal = Refusal::busy("no memory for a frame that arrives in parts");
        self.fail(Header::parse(head).response(), &refusal);
    }

    fn too_large(&mut self, connection: &Connection, head: &Head) {
        let header = Header::parse(head);
        let max = body_bytes_max(self.flow.phase, &connection.shared.limits);
        self.fail(header.response(), &FrameError::TooLarge(FrameTooLarge { header, max }).into());
    }

    fn say_goodbye(&mut self, _: &Connection, why: Goodbye) {
        let header = Header { flags: FLAG_RESPONSE, ..Header::request(Operation::Goodbye, 0, 0) };
        self.fail(header, &why.into());
    }

    fn work(&mut self, connection: &Rc<Connection>) {
        State::work(self, connection);
    }

    fn has_readers(&self) -> bool {
        !self.runnable.is_empty()
    }

    fn drain(&mut self, connection: &Connection) {
        State::drain(self, connection);
    }

    fn close(&mut self, connection: &Connection) {
        State::close(self, connection);
    }

    fn tidy(&mut self, is_stalled: bool) {
        self.release_idle_cursors();
        if is_stalled {
            self.release_subscriptions();
        }
    }
}

impl State {
    fn take_frame(&mut self, connection: &Rc<Connection>, frame: &Frame<'_>) {
        let header = frame.header;
        match (self.flow.phase, Request::decode(frame)) {
            (Phase::Greeting, Ok(Request::Hello(hello))) => self.greet(connection, header, &hello),
            (Phase::Greeting, Ok(_) | Err(FrameError::UnknownOperation(_) | FrameError::Unexpected { .. })) => {
                self.violate(
                    connection,
                    header,
                    Refusal::new(Status::HelloRequired, "the first frame must be a hello"),
                );
            }
            (Phase::Serving, Ok(Request::Hello(_))) => {
                self.violate(connection, header, Refusal::new(Status::UnexpectedOperation, "hello was said before"));
            }
            (Phase::Serving, Ok(request)) => {
                count(&connection.shard().counters().requests, 1);
                self.serve(connection, header, request);
            }
            (Phase::Serving, Err(error @ FrameError::UnknownOperation(_))) => {
                self.fail(header.response(), &error.into());
            }
            (_, Err(error)) => self.violate(connection, header, error.into()),
            (Phase::Draining, Ok(_)) => {}
        }
    }
}

impl From<Goodbye> for Refusal {
    fn from(why: Goodbye) -> Refusal {
        match why {
            Goodbye::Unknown => Refusal::new(Status::HelloTimeout, "no hello came in time"),
            Goodbye::Idle => Refusal::new(Status::IdleTimeout, "nothing came for too long; send pings"),
            Goodbye::Unfinished => Refusal::new(Status::IdleTimeout, "a frame was begun and not finished in time"),
            Goodbye::Stopping => Refusal::new(Status::ShuttingDown, "the server stops"),
        }
    }
}

fn header(first: &[u8]) -> Header {
    match first.first_chunk() {
        Some(first) => Header::parse(first),
        None => unreachable!("connections ask about frames whose first bytes are there"),
    }
}

fn body_bytes_max(phase: Phase, limits: &Limits) -> u32 {
    match phase {
        Phase::Greeting => corelog_wire::HELLO_BODY_BYTES_MAX,
        Phase::Serving | Phase::Draining => limits.body_bytes_max,
    }
}
