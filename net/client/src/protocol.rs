//! One connection as a state machine: bytes in, bytes and events out. It is told the time and never asks for it.
//!
//! ```
//! use corelog_client::protocol::{Connection, Settings};
//! use corelog_client::{ConnectOptions, Operation};
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let mut connection = Connection::new(&Settings::from(&ConnectOptions::default()), now);
//! let hello = connection.transmit().to_vec();
//! // ... write it to a socket, then:
//! connection.transmitted(hello.len());
//! // ... read what comes back, then:
//! let answer: &[u8] = &[];
//! let input = connection.gather(answer);
//! let mut rest = &*input;
//! while let Some(event) = connection.accept(&mut rest, now)? {
//!     // `Event::Welcomed` is the first; from then on there may be requests.
//!     connection.request(Operation::Ping, 0, &(), &[], Duration::ZERO, "my ping", now);
//!     # let _ = event;
//! }
//! let left = rest.len();
//! connection.keep(input, left);
//! # Ok::<(), corelog_client::Ended>(())
//! ```

use crate::error::{Ended, Refusal};
use crate::options::ConnectOptions;
use ahash::AHashMap;
use corelog_wire::{
    Batches, Frame, Header, Hello, Magic, Operation, Response, Text, VERSION_MAX, VERSION_MIN, Welcome, Wire,
};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Past so many encoded bytes that are not transmitted yet, [`Connection::has_room`] says no.
pub const OUTPUT_BYTES_MAX: usize = 1 << 20;

const SOFTWARE: &str = concat!("corelog-client/", env!("CARGO_PKG_VERSION"));

/// What a connection needs to know beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What the user calls this client.
    pub client_id: String,
    /// How long a request may stay unanswered, beyond the wait it asks for.
    pub request_timeout: Duration,
    /// Longest body taken from the server, bytes.
    pub frame_bytes_max: u32,
}

impl From<&ConnectOptions> for Settings {
    fn from(options: &ConnectOptions) -> Settings {
        Settings {
            client_id: options.client_id.clone(),
            request_timeout: options.request_timeout,
            frame_bytes_max: options.frame_bytes_max,
        }
    }
}

/// What the server said when it accepted the connection. Fields as in [`Welcome`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described in the wire's Welcome")]
pub struct Welcomed {
    pub node: u32,
    pub shard: u16,
    pub body_bytes_max: u32,
    pub requests_max: u32,
    pub request_bytes_max: u32,
    pub idle_timeout: Duration,
}

/// What came from the server.
#[derive(Debug)]
pub enum Event<'a, T> {
    /// The connection is open: requests may follow.
    Welcomed(Welcomed),
    /// The answer to a request; its handle is in the header.
    Answered {
        /// What the request was given.
        token: T,
        /// The answer's header.
        header: Header,
        /// The answer, or the server's no.
        outcome: Result<Response<'a>, Refusal>,
    },
    /// Records of a subscription, or why it ended.
    Pushed {
        /// What the subscribe was given.
        token: T,
        /// The subscription.
        subscription: u32,
        /// The records, or the end.
        outcome: Result<Batches<'a>, Refusal>,
    },
}

/// A connection from its hello to its end. `T` is whatever tells the caller's requests apart.
#[derive(Debug)]
pub struct Connection<T> {
    settings: Settings,
    welcomed: Option<Welcomed>,
    /// The beginning of a frame whose end has not come.
    input: Vec<u8>,
    output: Vec<u8>,
    /// Bytes of `output` that were transmitted.
    output_done: usize,
    /// Bytes before `output`, over the connection's life.
    output_base: u64,
    pending: AHashMap<u32, Pending<T>>,
    deadlines: BTreeSet<(Instant, u32)>,
    correlation: u32,
    produce_bytes: usize,
    received_at: Instant,
    pinging: bool,
}

#[derive(Debug)]
struct Pending<T> {
    operation: Operation,
    /// None: the connection's own hello or ping.
    token: Option<T>,
    /// None: a subscribe that was answered and stays for its pushes.
    deadline: Option<Instant>,
    /// The subscription, of a subscribe that was answered.
    subscription: u32,
    body_bytes: usize,
    /// Where its frame ends in the connection's output.
    end: u64,
}

impl<T: Copy> Connection<T> {
    /// A connection just made; its hello waits to be transmitted.
    pub fn new(settings: &Settings, now: Instant) -> Connection<T> {
        let mut connection = Connection {
            settings: settings.clone(),
            welcomed: None,
            input: Vec::new(),
            output: Vec::new(),
            output_done: 0,
            output_base: 0,
            pending: AHashMap::new(),
            deadlines: BTreeSet::new(),
            correlation: 0,
            produce_bytes: 0,
            received_at: now,
            pinging: false,
        };
        let hello = Hello {
            magic: Magic,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: corelog_wire::FEATURES,
            software: Text::truncated(SOFTWARE),
            client_id: Text::truncated(&settings.client_id),
        };
        connection.put(Operation::Hello, 0, &hello, &[], Duration::ZERO, None, now);
        connection
    }

    /// What the server said, once it accepted the connection.
    pub fn welcomed(&self) -> Option<Welcomed> {
        self.welcomed
    }

    /// Whether a request with so many bytes of batches may be sent now: the server's limits and our own output allow it.
    pub fn has_room(&self, batches: usize) -> bool {
        let Some(limits) = self.welcomed else { return false };
        let (requests_max, bytes_max) = (limits.requests_max as usize, limits.request_bytes_max as usize);
        // One place is left for the ping. A lone request always goes, whatever it weighs.
        self.deadlines.len() + 1 < requests_max.max(3)
            && (self.produce_bytes == 0 || self.produce_bytes + batches <= bytes_max)
            && self.output.len() - self.output_done < OUTPUT_BYTES_MAX
    }

    /// Encodes a request. `batches` follow the body as part of it; `wait` is how long the request asks the server to wait.
    /// See [`Connection::has_room`].
    #[expect(clippy::too_many_arguments, reason = "they are the parts of a frame, and none has a default")]
    pub fn request<'w>(
        &mut self,
        operation: Operation,
        handle: u32,
        body: &impl Wire<'w>,
        batches: &[u8],
        wait: Duration,
        token: T,
        now: Instant,
    ) {
        self.put(operation, handle, body, batches, wait, Some(token), now);
    }

    /// Encodes a request that is answered only if it fails, and whose failure does not matter: a credit.
    pub fn tell<'w>(&mut self, operation: Operation, handle: u32, body: &impl Wire<'w>) {
        self.make_room_in_output();
        Header::request(operation, self.next_correlation(), handle).put(body, 0, &mut self.output);
    }

    /// What is to be written to the socket.
    pub fn transmit(&self) -> &[u8] {
        &self.output[self.output_done..]
    }

    /// The first `bytes` of [`Connection::transmit`] were written.
    pub fn transmitted(&mut self, bytes: usize) {
        self.output_done += bytes;
        if self.output_done == self.output.len() {
            self.output_base += self.output.len() as u64;
            self.output.clear();
            self.output_done = 0;
        }
    }

    /// What is to be accepted: `bytes`, just read, behind the beginning of a frame that was kept.
    pub fn gather<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.input.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut input = std::mem::take(&mut self.input);
        input.extend_from_slice(bytes);
        Cow::Owned(input)
    }

    /// Takes one frame off the front of `rest` and says what it means; None when none is whole.
    ///
    /// # Errors
    /// The connection is of no use any more: see [`Connection::end`].
    pub fn accept<'a>(&mut self, rest: &mut &'a [u8], now: Instant) -> Result<Option<Event<'a, T>>, Ended> {
        self.received_at = now;
        loop {
            let first = Frame::first(rest, self.settings.frame_bytes_max);
            let Some(frame) = first.map_err(|error| Ended::Protocol(error.to_string()))? else { return Ok(None) };
            *rest = &rest[frame.size()..];
            if let Some(event) = self.frame(&frame)? {
                return Ok(Some(event));
            }
        }
    }

    /// Keeps the last `left` bytes of `input` until the rest of their frame comes.
    pub fn keep(&mut self, input: Cow<'_, [u8]>, left: usize) {
        let done = input.len() - left;
        self.input = match input {
            Cow::Borrowed(bytes) => bytes[done..].to_vec(),
            Cow::Owned(mut bytes) => {
                bytes.drain(..done);
                bytes
            }
        };
    }

    /// When [`Connection::tick`] is to be called at the latest.
    pub fn deadline(&self) -> Instant {
        let ping_at = self.received_at + self.ping_interval();
        let first = self.deadlines.first().map_or(ping_at, |&(at, _)| at);
        if self.pinging || self.welcomed.is_none() { first } else { first.min(ping_at) }
    }

    /// Lets time pass: pings a silent server, gives up one that does not answer.
    ///
    /// # Errors
    /// `TimedOut`.
    pub fn tick(&mut self, now: Instant) -> Result<(), Ended> {
        if let Some(&(_, correlation)) = self.deadlines.first().filter(|&&(at, _)| at <= now) {
            let late = self.pending.get(&correlation).map_or(Operation::Ping, |pending| pending.operation);
            return Err(Ended::TimedOut(late));
        }
        if self.welcomed.is_some() && !self.pinging && self.received_at + self.ping_interval() <= now {
            self.pinging = true;
            self.put(Operation::Ping, 0, &(), &[], Duration::ZERO, None, now);
        }
        Ok(())
    }

    /// What was unanswered when the connection ended, oldest first, and of each whether all of it had been transmitted.
    /// The server cannot have done what it did not get whole.
    pub fn end(self) -> Vec<(T, bool)> {
        let transmitted = self.output_base + self.output_done as u64;
        let unanswered = self.pending.into_values().filter(|pending| pending.deadline.is_some());
        let mut left = unanswered
            .filter_map(|pending| Some((pending.end, pending.token?)))
            .map(|(end, token)| (end, token, end <= transmitted))
            .collect::<Vec<_>>();
        left.sort_by_key(|&(end, ..)| end);
        left.into_iter().map(|(_, token, whole)| (token, whole)).collect()
    }

    #[expect(clippy::too_many_arguments, reason = "as in `request`")]
    fn put<'w>(
        &mut self,
        operation: Operation,
        handle: u32,
        body: &impl Wire<'w>,
        batches: &[u8],
        wait: Duration,
        token: Option<T>,
        now: Instant,
    ) {
        self.make_room_in_output();
        let correlation = self.next_correlation();
        Header::request(operation, correlation, handle).put(body, batches.len(), &mut self.output);
        self.output.extend_from_slice(batches);
        let deadline = now + wait + self.settings.request_timeout;
        let end = self.output_base + self.output.len() as u64;
        let body_bytes = batches.len();
        self.produce_bytes += body_bytes;
        self.deadlines.insert((deadline, correlation));
        let deadline = Some(deadline);
        self.pending.insert(correlation, Pending { operation, token, deadline, subscription: 0, body_bytes, end });
    }

    /// Drops what was transmitted once it is the larger part, so that moving the rest costs little.
    fn make_room_in_output(&mut self) {
        if self.output_done > self.output.len() / 2 {
            self.output.drain(..self.output_done);
            self.output_base += self.output_done as u64;
            self.output_done = 0;
        }
    }

    fn next_correlation(&mut self) -> u32 {
        // Numbers that still await something (a subscription may for long) are passed over.
        loop {
            self.correlation = self.correlation.wrapping_add(1);
            if !self.pending.contains_key(&self.correlation) {
                return self.correlation;
            }
        }
    }

    fn ping_interval(&self) -> Duration {
        let idle = self.welcomed.map_or(Duration::MAX, |welcomed| welcomed.idle_timeout / 3);
        idle.min(self.settings.request_timeout / 2).max(Duration::from_millis(10))
    }

    fn frame<'a>(&mut self, frame: &Frame<'a>) -> Result<Option<Event<'a, T>>, Ended> {
        let header = frame.header;
        let outcome = match Response::decode(frame)? {
            Response::Failed(failure) => Err(refusal(&header, &failure)?),
            response => Ok(response),
        };
        match Operation::from_code(header.operation) {
            Some(Operation::Goodbye) => match outcome {
                Err(refusal) => Err(Ended::Goodbye(refusal)),
                Ok(_) => Err(Ended::Closed),
            },
            Some(Operation::Push) => self.pushed(&header, outcome).map(Some),
            Some(Operation::Credit) => Ok(None),
            _ => self.answered(&header, outcome),
        }
    }

    fn pushed<'a>(&mut self, header: &Header, outcome: Result<Response<'a>, Refusal>) -> Result<Event<'a, T>, Ended> {
        let subscribed = self.pending.get(&header.correlation).filter(|pending| pending.deadline.is_none());
        let token = subscribed.and_then(|pending| pending.token).ok_or_else(|| stray(header))?;
        let outcome = match outcome {
            Ok(Response::Push(batches)) => Ok(batches),
            Ok(_) => return Err(stray(header)),
            Err(refusal) => {
                self.pending.remove(&header.correlation);
                Err(refusal)
            }
        };
        Ok(Event::Pushed { token, subscription: header.handle, outcome })
    }

    fn answered<'a>(
        &mut self,
        header: &Header,
        outcome: Result<Response<'a>, Refusal>,
    ) -> Result<Option<Event<'a, T>>, Ended> {
        let pending = self.pending.remove(&header.correlation).ok_or_else(|| stray(header))?;
        let expected = pending.operation as u8 == header.operation;
        let deadline = pending.deadline.filter(|_| expected).ok_or_else(|| stray(header))?;
        self.deadlines.remove(&(deadline, header.correlation));
        self.produce_bytes -= pending.body_bytes;
        match (pending.operation, &outcome) {
            (Operation::Hello, _) => return self.greeted(outcome).map(Some),
            (Operation::Ping, _) if pending.token.is_none() => {
                self.pinging = false;
                return Ok(None);
            }
            (Operation::Subscribe, Ok(_)) => {
                let stays = Pending { deadline: None, subscription: header.handle, ..pending };
                let token = stays.token;
                self.pending.insert(header.correlation, stays);
                return Ok(token.map(|token| Event::Answered { token, header: *header, outcome }));
            }
            (Operation::Unsubscribe, Ok(_)) => self.forget_subscription(header.handle),
            _ => {}
        }
        Ok(pending.token.map(|token| Event::Answered { token, header: *header, outcome }))
    }

    fn greeted<'a>(&mut self, outcome: Result<Response<'a>, Refusal>) -> Result<Event<'a, T>, Ended> {
        let welcome: Welcome<'_> = match outcome {
            Ok(Response::Hello(welcome)) => welcome,
            Ok(_) => return Err(Ended::Protocol("another answer to the hello".to_owned())),
            Err(refusal) => return Err(Ended::Goodbye(refusal)),
        };
        if !(VERSION_MIN..=VERSION_MAX).contains(&welcome.version) {
            return Err(Ended::Protocol(format!("version {} was not offered", welcome.version)));
        }
        let welcomed = Welcomed {
            node: welcome.node,
            shard: welcome.shard,
            body_bytes_max: welcome.body_bytes_max,
            requests_max: welcome.requests_max,
            request_bytes_max: welcome.request_bytes_max,
            idle_timeout: Duration::from_millis(welcome.idle_timeout_ms.into()),
        };
        self.welcomed = Some(welcomed);
        Ok(Event::Welcomed(welcomed))
    }

    fn forget_subscription(&mut self, subscription: u32) {
        self.pending.retain(|_, pending| pending.deadline.is_some() || pending.subscription != subscription);
    }
}

fn refusal(header: &Header, failure: &corelog_wire::Failure<'_>) -> Result<Refusal, Ended> {
    let operation = Operation::from_code(header.operation).ok_or_else(|| stray(header))?;
    Ok(Refusal::new(operation, header.status, failure))
}

fn stray(header: &Header) -> Ended {
    let name = Operation::from_code(header.operation).map_or("unknown operation", Operation::name);
    Ended::Protocol(format!("an answer ({name}, correlation {}) to what was not asked", header.correlation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pretend::Server;
    use corelog_wire::Status;
    use proptest::prelude::*;

    fn connection(now: Instant) -> Connection<u32> {
        let settings = Settings { client_id: "app".to_owned(), ..Settings::from(&ConnectOptions::default()) };
        Connection::new(&settings, now)
    }

    /// The worked example of docs/protocol.md.
    #[test]
    fn golden_hello() {
        let hex = "2b000000 01000000 01000000 00000000 434c4f47 01000100 0000000000000000 \
                   1400636f72656c6f672d636c69656e742f302e312e30 0300617070";
        let digits = hex.chars().filter(|digit| !digit.is_whitespace()).collect::<Vec<_>>();
        let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
        let hello = digits.chunks(2).map(byte).collect::<Vec<_>>();
        assert_eq!(connection(Instant::now()).transmit(), hello);
    }

    /// Hands bytes over in pieces of this size and returns what came of them.
    fn feed(connection: &mut Connection<u32>, bytes: &[u8], piece: usize, now: Instant) -> Result<Vec<String>, Ended> {
        let mut events = Vec::new();
        for piece in bytes.chunks(piece) {
            let input = connection.gather(piece);
            let mut rest = &*input;
            while let Some(event) = connection.accept(&mut rest, now)? {
                events.push(format!("{event:?}"));
            }
            let left = rest.len();
            connection.keep(input, left);
        }
        Ok(events)
    }

    /// A connection that was welcomed and has asked for two things, and the server's answers to them.
    fn asked(now: Instant) -> (Connection<u32>, Vec<u8>) {
        let mut server = Server::new(1, 1);
        server.create("clicks", 2);
        let (mut connection, id) = (connection(now), server.connect(0));
        server.receive(id, connection.transmit());
        connection.transmitted(connection.transmit().len());
        let welcome = server.output(id);
        let events = feed(&mut connection, &welcome, 7, now).unwrap();
        assert!(events[0].starts_with("Welcomed") && connection.has_room(100), "{events:?}");
        let open = corelog_wire::Open { topic: corelog_wire::Topic::Name(Text::truncated("clicks")), partition: 1 };
        connection.request(Operation::Open, 0, &open, &[], Duration::ZERO, 11, now);
        connection.request(Operation::Open, 0, &open, &[], Duration::ZERO, 12, now);
        server.receive(id, connection.transmit());
        connection.transmitted(connection.transmit().len());
        (connection, server.output(id))
    }

    #[test]
    fn answers_find_their_requests_however_they_are_cut() {
        for piece in [1, 2, 15, 16, 17, 1000] {
            let now = Instant::now();
            let (mut connection, answers) = asked(now);
            let events = feed(&mut connection, &answers, piece, now).unwrap();
            assert_eq!(events.len(), 2);
            assert!(events[0].contains("token: 11") && events[1].contains("token: 12"));
            assert!(connection.end().is_empty());
        }
    }

    #[test]
    fn what_is_unanswered_at_the_end_is_told_in_order() {
        let now = Instant::now();
        let (mut connection, answers) = asked(now);
        connection.request(Operation::Ping, 0, &(), &[], Duration::ZERO, 13, now);
        connection.transmitted(15);
        feed(&mut connection, &answers[..answers.len() / 2], 1000, now).unwrap();
        assert_eq!(connection.end(), [(12, true), (13, false)]);
    }

    #[test]
    fn what_was_not_asked_for_ends_the_connection() {
        let now = Instant::now();
        let (mut connection, answers) = asked(now);
        feed(&mut connection, &answers, 1000, now).unwrap();
        let again = feed(&mut connection, &answers, 1000, now).unwrap_err();
        assert!(matches!(again, Ended::Protocol(_)), "{again:?}");
        let (mut connection, mut answers) = asked(now);
        answers[8] = Operation::Close as u8;
        assert!(feed(&mut connection, &answers, 1000, now).is_err());
        let (mut connection, _) = asked(now);
        let huge = Header { length: 1 << 30, ..Header::request(Operation::Fetch, 2, 0) }.to_bytes();
        assert!(matches!(feed(&mut connection, &huge, 16, now), Err(Ended::Protocol(_))));
    }

    #[test]
    fn a_goodbye_says_why() {
        let now = Instant::now();
        let (mut connection, _) = asked(now);
        let failure = corelog_wire::Failure { detail: corelog_wire::Detail::None, message: Text::truncated("silent") };
        let header =
            Header { status: Status::IdleTimeout as u16, ..Header::request(Operation::Goodbye, 0, 0).response() };
        let mut goodbye = Vec::new();
        header.put(&failure, 0, &mut goodbye);
        let Err(Ended::Goodbye(refusal)) = feed(&mut connection, &goodbye, 3, now) else { panic!("no goodbye") };
        assert_eq!(refusal.to_string(), "the server ended the connection: idle_timeout (107): silent");
    }

    #[test]
    fn time_passes() {
        let mut now = Instant::now();
        let (mut connection, answers) = asked(now);
        feed(&mut connection, &answers, 1000, now).unwrap();
        now = connection.deadline();
        connection.tick(now).unwrap();
        assert_eq!(connection.transmit()[8], Operation::Ping as u8);
        assert!(connection.deadline() > now);
        now = connection.deadline();
        assert_eq!(connection.tick(now), Err(Ended::TimedOut(Operation::Ping)));
    }

    proptest! {
        #[test]
        fn bytes_that_are_not_the_protocol_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), at in 0..60_usize) {
            let now = Instant::now();
            let _ = feed(&mut connection(now), &bytes, 9, now);
            let (mut connection, mut answers) = asked(now);
            let length = bytes.len().min(answers.len().saturating_sub(at));
            answers[at..at + length].copy_from_slice(&bytes[..length]);
            let _ = feed(&mut connection, &answers, 9, now);
        }
    }
}
