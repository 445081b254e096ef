//! The connections to a cluster's shards: made on demand, kept, made again after a pause that grows.

use crate::error::Ended;
use crate::options::ConnectOptions;
use crate::protocol::{Connection, Event, Settings};
use ahash::AHashMap;
use corelog_wire::{Metadata, Operation, Wire};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host:port`, with brackets around an IPv6 address.
    pub(crate) fn parse(text: &str) -> Option<Address> {
        let (host, port) = text.trim().rsplit_once(':')?;
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        (!host.is_empty()).then_some(())?;
        Some(Address { host: host.to_owned(), port: port.parse().ok()? })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A place in the cluster's table of connections; one for each address, for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) usize);

/// What the driver is to do. Links that are closed give no more bytes and need no report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    Connect(LinkId, Address),
    Close(LinkId),
}

/// What tells requests apart; the machines above share one list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Token {
    Metadata,
    Open { partition: u32 },
    Close,
    Produce { partition: u32, serial: u64 },
    Locate { partition: u32, generation: u32 },
    Fetch { partition: u32, generation: u32 },
    Subscribe { partition: u32, generation: u32 },
    Unsubscribe,
    Call,
}

#[derive(Debug)]
struct Link {
    address: Address,
    state: State,
    /// Pause after the next failure.
    backoff: Duration,
    /// Failures since it was last welcomed.
    failures: u32,
}

#[derive(Debug)]
enum State {
    Idle { not_before: Instant },
    Connecting { until: Instant },
    Up(Box<Connection<Token>>),
}

/// All links, and which shard is behind which.
#[derive(Debug)]
pub(crate) struct Cluster {
    options: ConnectOptions,
    settings: Settings,
    links: Vec<Link>,
    /// The first so many links are those that the user named.
    bootstrap: usize,
    endpoints: AHashMap<(u32, u16), LinkId>,
    actions: VecDeque<Action>,
    last_trouble: Option<Ended>,
    jitter: u64,
}

impl Cluster {
    /// `seed` varies the pauses, so that many clients do not come back in step.
    pub(crate) fn new(bootstrap: Vec<Address>, options: &ConnectOptions, seed: u64, now: Instant) -> Cluster {
        let mut cluster = Cluster {
            options: options.clone(),
            settings: Settings::from(options),
            links: Vec::new(),
            bootstrap: bootstrap.len(),
            endpoints: AHashMap::new(),
            actions: VecDeque::new(),
            last_trouble: None,
            jitter: seed | 1,
        };
        for address in bootstrap {
            cluster.add_link(address, now);
        }
        cluster
    }

    pub(crate) fn action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..self.links.len()).map(LinkId)
    }

    pub(crate) fn address(&self, link: LinkId) -> &Address {
        &self.links[link.0].address
    }

    /// What the last connection that ended, ended with.
    pub(crate) fn trouble(&self) -> String {
        self.last_trouble.as_ref().map_or_else(|| "no answer in time".to_owned(), Ended::to_string)
    }

    pub(crate) fn connection(&mut self, link: LinkId) -> Option<&mut Connection<Token>> {
        match &mut self.links[link.0].state {
            State::Up(connection) => Some(connection),
            _ => None,
        }
    }

    /// Whether requests may be sent by this link.
    pub(crate) fn is_up(&self, link: LinkId) -> bool {
        matches!(&self.links[link.0].state, State::Up(connection) if connection.welcomed().is_some())
    }

    pub(crate) fn has_room(&self, link: LinkId, batches: usize) -> bool {
        matches!(&self.links[link.0].state, State::Up(connection) if connection.has_room(batches))
    }

    pub(crate) fn body_bytes_max(&self, link: LinkId) -> usize {
        match &self.links[link.0].state {
            State::Up(connection) => connection.welcomed().map_or(0, |welcomed| welcomed.body_bytes_max as usize),
            _ => 0,
        }
    }

    /// Encodes a request; without effect where the link is not up.
    pub(crate) fn request<'w>(
        &mut self,
        (link, handle): (LinkId, u32),
        operation: Operation,
        body: &impl Wire<'w>,
        token: Token,
        now: Instant,
    ) {
        self.request_waiting((link, handle), operation, body, Duration::ZERO, token, now);
    }

    /// The same for a request that asks the server to wait.
    pub(crate) fn request_waiting<'w>(
        &mut self,
        (link, handle): (LinkId, u32),
        operation: Operation,
        body: &impl Wire<'w>,
        wait: Duration,
        token: Token,
        now: Instant,
    ) {
        if let Some(connection) = self.connection(link) {
            connection.request(operation, handle, body, &[], wait, token, now);
        }
    }

    /// The link to a shard, where metadata has told of it.
    pub(crate) fn endpoint(&self, node: u32, shard: u16) -> Option<LinkId> {
        self.endpoints.get(&(node, shard)).copied()
    }

    /// Has the link made, unless it is there, under way, or in its pause. True when it is up.
    pub(crate) fn want(&mut self, link: LinkId, now: Instant) -> bool {
        let State::Idle { not_before } = self.links[link.0].state else { return self.is_up(link) };
        if not_before <= now {
            let until = now + self.options.connect_timeout;
            self.links[link.0].state = State::Connecting { until };
            self.actions.push_back(Action::Connect(link, self.links[link.0].address.clone()));
        }
        false
    }

    /// A link that is up, whichever. Where there is none, the links that the user named are tried, then all others.
    pub(crate) fn any(&mut self, now: Instant) -> Option<LinkId> {
        if let Some(up) = self.links().find(|&link| self.is_up(link)) {
            return Some(up);
        }
        if self.links.iter().any(|link| !matches!(link.state, State::Idle { .. })) {
            return None;
        }
        // Links differ in their pauses, so the one whose pause ends first is tried, and all get their turn.
        let ready = |link: &LinkId| match self.links[link.0].state {
            State::Idle { not_before } => (not_before, link.0),
            _ => (now, link.0),
        };
        let next =
            self.links().filter(|link| link.0 < self.bootstrap || self.links[link.0].failures < 3).min_by_key(ready);
        if let Some(next) = next {
            self.want(next, now);
        }
        None
    }

    /// The owner's link if it is up. Where it cannot be made, any other: a request there works by one crossing.
    pub(crate) fn near(&mut self, owner: Option<LinkId>, now: Instant) -> Option<LinkId> {
        let Some(owner) = owner else { return self.any(now) };
        if self.want(owner, now) {
            return Some(owner);
        }
        if self.links[owner.0].failures < 2 { None } else { self.any(now) }
    }

    /// Takes in who listens where. `via` is the link that the answer came by.
    pub(crate) fn learn(&mut self, metadata: &Metadata<'_>, via: LinkId, now: Instant) {
        self.endpoints.clear();
        for endpoint in metadata.endpoints.iter() {
            let host = endpoint.host.as_str();
            let host = if host.is_empty() { &self.links[via.0].address.host } else { host };
            let address = Address { host: host.to_owned(), port: endpoint.port };
            let link = self.add_link(address, now);
            self.endpoints.insert((endpoint.node, endpoint.shard), link);
        }
    }

    /// The driver made the connection.
    pub(crate) fn connected(&mut self, link: LinkId, now: Instant) {
        if matches!(self.links[link.0].state, State::Connecting { .. }) {
            self.links[link.0].state = State::Up(Box::new(Connection::new(&self.settings, now)));
        }
    }

    pub(crate) fn gather<'a>(&mut self, link: LinkId, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        self.connection(link).map_or(Cow::Borrowed(bytes), |connection| connection.gather(bytes))
    }

    pub(crate) fn accept<'a>(
        &mut self,
        link: LinkId,
        rest: &mut &'a [u8],
        now: Instant,
    ) -> Result<Option<Event<'a, Token>>, Ended> {
        let Some(connection) = self.connection(link) else { return Ok(None) };
        let event = connection.accept(rest, now)?;
        if let Some(Event::Welcomed(_)) = event {
            self.links[link.0].failures = 0;
            self.links[link.0].backoff = self.options.backoff;
        }
        Ok(event)
    }

    pub(crate) fn keep(&mut self, link: LinkId, input: Cow<'_, [u8]>, left: usize) {
        if let Some(connection) = self.connection(link) {
            connection.keep(input, left);
        }
    }

    /// The connection, or the attempt at one, is over. What was unanswered on it, and whether it was sent whole.
    pub(crate) fn lost(&mut self, link: LinkId, why: &Ended, now: Instant) -> Vec<(Token, bool)> {
        let pause = self.pause(link);
        let link = &mut self.links[link.0];
        link.failures = link.failures.saturating_add(1);
        link.backoff = (link.backoff * 2).min(self.options.backoff_max);
        self.last_trouble = Some(why.clone());
        match std::mem::replace(&mut link.state, State::Idle { not_before: now + pause }) {
            State::Up(connection) => connection.end(),
            _ => Vec::new(),
        }
    }

    /// Has the driver close the link's socket.
    pub(crate) fn close(&mut self, link: LinkId) {
        self.actions.push_back(Action::Close(link));
    }

    /// Links whose time is up.
    pub(crate) fn tick(&mut self, now: Instant) -> Vec<(LinkId, Ended)> {
        let mut over = Vec::new();
        for (index, link) in self.links.iter_mut().enumerate() {
            let ended = match &mut link.state {
                State::Idle { .. } => Ok(()),
                State::Connecting { until } if *until <= now => Err(Ended::ConnectTimedOut),
                State::Connecting { .. } => Ok(()),
                State::Up(connection) => connection.tick(now),
            };
            if let Err(ended) = ended {
                self.actions.push_back(Action::Close(LinkId(index)));
                over.push((LinkId(index), ended));
            }
        }
        over
    }

    /// When something is due at the latest: a pause ends, an answer is late, a ping is to be sent.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = |link: &Link| match &link.state {
            State::Idle { not_before } => Some(*not_before).filter(|&at| at > now),
            State::Connecting { until } => Some(*until),
            State::Up(connection) => Some(connection.deadline()),
        };
        self.links.iter().filter_map(due).min()
    }

    fn add_link(&mut self, address: Address, now: Instant) -> LinkId {
        if let Some(known) = self.links.iter().position(|link| link.address == address) {
            return LinkId(known);
        }
        let state = State::Idle { not_before: now };
        self.links.push(Link { address, state, backoff: self.options.backoff, failures: 0 });
        LinkId(self.links.len() - 1)
    }

    /// Half to the whole of the link's present pause.
    fn pause(&mut self, link: LinkId) -> Duration {
        self.jitter ^= self.jitter << 13;
        self.jitter ^= self.jitter >> 7;
        self.jitter ^= self.jitter << 17;
        self.links[link.0].backoff.mul_f64(0.5 + (self.jitter % 1024) as f64 / 2048.0)
    }
}
