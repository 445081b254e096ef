//! The simulated network: byte streams with delay, pieces of any size, bounded buffers, resets and links that are cut.
//!
//! A connection is two sockets. Each holds what is on its way to it (`wire`) and what has arrived (`ready`); both count
//! against its buffer, and a sender waits while that is full. Pieces of one direction never overtake each other. A cut
//! link holds pieces back, as retransmission does, until it heals; a node that lost its power is silent.

use super::event::{Event, ReactorKey, Schedule, Trace};
use super::random::Random;
use crate::reactor::ops::OpId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll, Waker};

/// How the network behaves. Chances are per million.
#[derive(Debug, Clone)]
pub struct NetOptions {
    /// Shortest and longest time one way, nanoseconds.
    pub delay_ns: (u64, u64),
    /// Bytes under way or unread in one direction before the sender waits.
    pub buffer_bytes: usize,
    /// How often a piece is cut down to a few bytes, when it is sent and when it is read.
    pub small_piece: u32,
    /// How often a piece that is sent breaks its connection instead.
    pub reset: u32,
    /// How long a connect waits for a node that does not answer, nanoseconds.
    pub connect_timeout_ns: u64,
    /// Connections a listener holds that nobody accepted yet; more are refused.
    pub backlog: usize,
}

impl Default for NetOptions {
    fn default() -> NetOptions {
        NetOptions {
            delay_ns: (20_000, 200_000),
            buffer_bytes: 128 << 10,
            small_piece: 20_000,
            reset: 0,
            connect_timeout_ns: 3_000_000_000,
            backlog: 1024,
        }
    }
}

/// Index of a node in its world.
pub(super) type NodeIndex = usize;

/// Largest piece that travels as one.
const PIECE_MAX: usize = 64 << 10;
const EPHEMERAL_FIRST: u16 = 32768;

#[derive(Debug)]
pub(super) struct Net {
    random: Random,
    pub(super) options: NetOptions,
    listeners: BTreeMap<u64, Listener>,
    listeners_made: u64,
    sockets: Vec<Option<Socket>>,
    cut: BTreeSet<(NodeIndex, NodeIndex)>,
    dark: BTreeSet<NodeIndex>,
    ports_given: u16,
    pub(super) resets: u64,
}

#[derive(Debug)]
struct Listener {
    owner: ReactorKey,
    node: NodeIndex,
    address: SocketAddr,
    queue: VecDeque<(u64, SocketAddr)>,
    accepter: Option<Waker>,
}

#[derive(Debug)]
struct Socket {
    owner: ReactorKey,
    node: NodeIndex,
    peer_node: NodeIndex,
    peer: Option<u64>,
    address: SocketAddr,
    /// Waits for the other side to answer, or for the news that it did.
    connecting: Option<(OpId, Result<(), i32>)>,
    wire: VecDeque<(u64, Piece)>,
    ready: VecDeque<Vec<u8>>,
    /// Bytes in `wire` and `ready`.
    held_bytes: usize,
    /// Nothing sent later arrives before this.
    last_arrival: u64,
    /// The peer ended its direction.
    ended: bool,
    /// This side ended both.
    shut: bool,
    broken: Option<i32>,
    reader: Option<Waker>,
    sender: Option<OpId>,
    /// Bytes sent to a node that is dark.
    unanswered: usize,
}

#[derive(Debug)]
enum Piece {
    Data(Vec<u8>),
    End,
    Reset,
}

/// What happens on the network at a certain time.
#[derive(Debug, Clone, Copy)]
pub(super) enum NetEvent {
    /// A connection request reaches the address.
    Knock { socket: u64, address: SocketAddr },
    /// The next piece on the wire of a socket is due.
    Arrive { socket: u64 },
    /// Nobody is there any more for what this socket sent.
    Rejected { socket: u64 },
}

/// A node's address in the world.
pub(super) fn address_of(node: NodeIndex) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 0, (node >> 8) as u8, (node & 255) as u8))
}

fn node_of(ip: IpAddr, own: NodeIndex) -> Option<NodeIndex> {
    match ip {
        IpAddr::V4(ip) if ip.is_loopback() || ip.is_unspecified() => Some(own),
        IpAddr::V4(ip) => match ip.octets() {
            [10, 0, high, low] => Some(usize::from(high) << 8 | usize::from(low)),
            _ => None,
        },
        IpAddr::V6(ip) => (ip.is_loopback() || ip.is_unspecified()).then_some(own),
    }
}

impl Net {
    pub(super) fn new(random: Random, options: NetOptions) -> Net {
        Net {
            random,
            options,
            listeners: BTreeMap::new(),
            listeners_made: 0,
            sockets: Vec::new(),
            cut: BTreeSet::new(),
            dark: BTreeSet::new(),
            ports_given: 0,
            resets: 0,
        }
    }

    // Connections --------------------------------------------------------------------------------------------------

    /// Listeners of one node may share an address; each connection goes to one of them by chance.
    pub(super) fn listen(
        &mut self,
        owner: ReactorKey,
        node: NodeIndex,
        at: SocketAddr,
    ) -> io::Result<(u64, SocketAddr)> {
        if node_of(at.ip(), node) != Some(node) {
            return Err(io::Error::from_raw_os_error(libc::EADDRNOTAVAIL));
        }
        let port = if at.port() == 0 { self.free_port() } else { at.port() };
        let address = SocketAddr::new(at.ip(), port);
        self.listeners_made += 1;
        let listener = Listener { owner, node, address, queue: VecDeque::new(), accepter: None };
        self.listeners.insert(self.listeners_made, listener);
        Ok((self.listeners_made, address))
    }

    pub(super) fn connect(
        &mut self,
        s: &mut Schedule,
        owner: ReactorKey,
        node: NodeIndex,
        op: OpId,
        to: SocketAddr,
    ) -> u64 {
        // As on Linux: who connects over loopback comes from there.
        let from = if to.ip().is_loopback() { to.ip() } else { address_of(node) };
        let address = SocketAddr::new(from, self.free_port());
        let peer_node = node_of(to.ip(), node);
        let mut socket = Socket::new(owner, node, peer_node.unwrap_or(node), address);
        socket.connecting = Some((op, Err(libc::ETIMEDOUT)));
        let number = self.add(socket);
        if peer_node.is_some() && !self.is_cut(node, peer_node.unwrap_or(node)) {
            let at = s.now + self.delay();
            s.push(at, Event::Net(NetEvent::Knock { socket: number, address: to }));
        } else {
            s.push(s.now + self.options.connect_timeout_ns, Event::Land { reactor: owner, op });
        }
        number
    }

    /// How a connect ended, when its operation lands.
    pub(super) fn connected(&mut self, socket: u64) -> io::Result<u64> {
        let Some(open) = self.get(socket) else { return Err(io::Error::from_raw_os_error(libc::ECONNABORTED)) };
        match open.connecting.take() {
            Some((_, Err(code))) => {
                self.sockets[socket as usize] = None;
                Err(io::Error::from_raw_os_error(code))
            }
            _ => Ok(socket),
        }
    }

    pub(super) fn poll_accept(&mut self, listener: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        let Some(listener) = self.listeners.get_mut(&listener) else {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EBADF)));
        };
        match listener.queue.pop_front() {
            Some(connection) => Poll::Ready(Ok(connection)),
            None => {
                listener.accepter = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    // Bytes --------------------------------------------------------------------------------------------------------

    /// Puts as many of the bytes on the wire as there is room for. Returns how many; an error if the connection is
    /// over. When not all went, `op` lands again once there may be room.
    pub(super) fn send(
        &mut self,
        s: &mut Schedule,
        trace: &mut Trace,
        socket: u64,
        op: OpId,
        pieces: &mut dyn Iterator<Item = &[u8]>,
    ) -> io::Result<usize> {
        let mut sent = 0;
        for bytes in pieces {
            let mut left = bytes;
            while !left.is_empty() {
                let taken = self.send_piece(s, socket, left)?;
                if taken == 0 {
                    if let Some(from) = self.get(socket) {
                        from.sender = Some(op);
                    }
                    return Ok(sent);
                }
                trace.add_bytes(&left[..taken]);
                sent += taken;
                left = &left[taken..];
            }
        }
        Ok(sent)
    }

    fn send_piece(&mut self, s: &mut Schedule, socket: u64, bytes: &[u8]) -> io::Result<usize> {
        let reset = self.random.chance(self.options.reset);
        let size = self.piece(bytes.len());
        let buffer = self.options.buffer_bytes;
        let Some(from) = self.get(socket) else { return Err(io::Error::from_raw_os_error(libc::EBADF)) };
        match from.broken {
            Some(code) => return Err(io::Error::from_raw_os_error(code)),
            None if from.shut => return Err(io::Error::from_raw_os_error(libc::EPIPE)),
            None => {}
        }
        let peer = from.peer;
        if reset {
            self.break_connection(s, socket);
            return Err(io::Error::from_raw_os_error(libc::ECONNRESET));
        }
        let Some(to) = peer.filter(|peer| self.get(*peer).is_some()) else {
            return Ok(self.send_to_nobody(s, socket, size));
        };
        let room = buffer - self.get(to).map_or(0, |to| to.held_bytes).min(buffer);
        let size = size.min(room);
        if size > 0 {
            self.put_on_wire(s, to, Piece::Data(bytes[..size].to_vec()));
        }
        Ok(size)
    }

    /// The peer's socket is closed: its node says so, unless it is dark or cannot be reached.
    fn send_to_nobody(&mut self, s: &mut Schedule, socket: u64, size: usize) -> usize {
        let at = s.now + self.delay();
        let buffer = self.options.buffer_bytes;
        let Some((node, peer_node)) = self.get(socket).map(|from| (from.node, from.peer_node)) else { return 0 };
        if !self.dark.contains(&peer_node) && !self.is_cut(node, peer_node) {
            s.push(at, Event::Net(NetEvent::Rejected { socket }));
        }
        let Some(from) = self.get(socket) else { return 0 };
        let size = size.min(buffer - from.unanswered);
        from.unanswered += size;
        size
    }

    pub(super) fn poll_receive(
        &mut self,
        s: &mut Schedule,
        socket: u64,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Vec<u8>>>> {
        let Some(length) = self.get(socket).map(|to| to.ready.front().map(Vec::len)) else {
            return Poll::Ready(Err(io::Error::from_raw_os_error(libc::EBADF)));
        };
        let size = length.map(|length| self.piece(length));
        let Some(to) = self.get(socket) else { return Poll::Pending };
        match size {
            Some(size) => {
                let bytes = to.take(size);
                self.wake_sender(s, socket);
                Poll::Ready(Ok(Some(bytes)))
            }
            None if to.broken.is_some() => {
                Poll::Ready(Err(io::Error::from_raw_os_error(to.broken.unwrap_or(libc::ECONNRESET))))
            }
            None if to.ended || to.shut => Poll::Ready(Ok(None)),
            None => {
                to.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Ends both directions of a socket.
    pub(super) fn shutdown(&mut self, s: &mut Schedule, socket: u64) {
        let Some(from) = self.get(socket) else { return };
        if std::mem::replace(&mut from.shut, true) {
            return;
        }
        from.wake_reader(s);
        let (owner, sender, peer) = (from.owner, from.sender.take(), from.peer);
        if let Some(op) = sender {
            s.push(s.now, Event::Land { reactor: owner, op });
        }
        if let Some(peer) = peer.filter(|peer| self.get(*peer).is_some()) {
            self.put_on_wire(s, peer, Piece::End);
        }
    }

    /// The socket is gone. What was not read by then breaks the connection, as it does in Linux.
    pub(super) fn close(&mut self, s: &mut Schedule, socket: u64) {
        let Some(mut closed) = self.sockets.get_mut(socket as usize).and_then(Option::take) else { return };
        let Some(peer) = closed.peer.take().filter(|peer| self.get(*peer).is_some()) else { return };
        if closed.held_bytes > 0 {
            self.put_on_wire(s, peer, Piece::Reset);
        } else if !closed.shut {
            self.put_on_wire(s, peer, Piece::End);
        }
        self.wake_peer_sender(s, peer);
    }

    pub(super) fn close_listener(&mut self, s: &mut Schedule, listener: u64) {
        let Some(closed) = self.listeners.remove(&listener) else { return };
        for (socket, _) in closed.queue {
            self.break_connection(s, socket);
            self.sockets[socket as usize] = None;
        }
    }

    // Events and faults --------------------------------------------------------------------------------------------

    pub(super) fn handle(&mut self, s: &mut Schedule, event: NetEvent) {
        match event {
            NetEvent::Knock { socket, address } => self.knock(s, socket, address),
            NetEvent::Arrive { socket } => self.arrive(s, socket),
            NetEvent::Rejected { socket } => self.broke(s, socket, libc::ECONNRESET),
        }
    }

    /// All sockets and listeners of a reactor that ended are closed.
    pub(super) fn close_all_of(&mut self, s: &mut Schedule, owner: ReactorKey) {
        for listener in self.listeners.iter().filter(|(_, l)| l.owner == owner).map(|(n, _)| *n).collect::<Vec<_>>() {
            self.close_listener(s, listener);
        }
        for socket in self.sockets_where(|socket| socket.owner == owner) {
            self.close(s, socket);
        }
    }

    /// A node loses its power: nobody is told.
    pub(super) fn power_cut(&mut self, node: NodeIndex) {
        self.dark.insert(node);
        self.listeners.retain(|_, listener| listener.node != node);
        for socket in self.sockets_where(|socket| socket.node == node) {
            self.sockets[socket as usize] = None;
        }
    }

    /// A node has power again: it answers those who still talk to it that it knows nothing of them.
    pub(super) fn power_on(&mut self, s: &mut Schedule, node: NodeIndex) {
        if !self.dark.remove(&node) {
            return;
        }
        for socket in self.sockets_where(|socket| socket.peer_node == node && socket.unanswered > 0) {
            let at = s.now + self.delay();
            s.push(at, Event::Net(NetEvent::Rejected { socket }));
        }
    }

    pub(super) fn cut_link(&mut self, a: NodeIndex, b: NodeIndex) {
        self.cut.insert((a.min(b), a.max(b)));
    }

    /// What was held back travels on.
    pub(super) fn heal_link(&mut self, s: &mut Schedule, a: NodeIndex, b: NodeIndex) {
        self.cut.remove(&(a.min(b), a.max(b)));
        let across = |socket: &Socket| [(a, b), (b, a)].contains(&(socket.node, socket.peer_node));
        for socket in self.sockets_where(|socket| across(socket) && !socket.wire.is_empty()) {
            let at = s.now + self.delay();
            s.push(at, Event::Net(NetEvent::Arrive { socket }));
        }
    }

    /// Breaks every connection between two nodes.
    pub(super) fn reset_link(&mut self, s: &mut Schedule, a: NodeIndex, b: NodeIndex) {
        for socket in self.sockets_where(|socket| (socket.node, socket.peer_node) == (a, b)) {
            self.break_connection(s, socket);
        }
    }

    fn knock(&mut self, s: &mut Schedule, socket: u64, to: SocketAddr) {
        let Some(from) = self.get(socket) else { return };
        let (owner, node, peer_node) = (from.owner, from.node, from.peer_node);
        let Some((op, _)) = from.connecting else { return };
        let (answer, at) = if self.dark.contains(&peer_node) || self.is_cut(node, peer_node) {
            (Err(libc::ETIMEDOUT), s.now + self.options.connect_timeout_ns)
        } else {
            (self.admit(s, socket, peer_node, to), s.now + self.delay())
        };
        if let Some(from) = self.get(socket) {
            from.connecting = Some((op, answer));
        }
        s.push(at, Event::Land { reactor: owner, op });
    }

    /// Gives the connection to one of those who listen there.
    fn admit(&mut self, s: &mut Schedule, socket: u64, node: NodeIndex, to: SocketAddr) -> Result<(), i32> {
        let Some((from_node, from)) = self.get(socket).map(|from| (from.node, from.address)) else {
            return Err(libc::ECONNABORTED);
        };
        let own = from_node == node;
        let hears =
            |l: &Listener| l.node == node && l.address.port() == to.port() && (own || !l.address.ip().is_loopback());
        let candidates: Vec<u64> = self.listeners.iter().filter(|(_, l)| hears(l)).map(|(n, _)| *n).collect();
        let pick = self.random.below(candidates.len() as u64) as usize;
        let Some(number) = candidates.get(pick) else { return Err(libc::ECONNREFUSED) };
        let Some(listener) = self.listeners.get(number).filter(|l| l.queue.len() < self.options.backlog) else {
            return Err(libc::ECONNREFUSED);
        };
        let mut accepted = Socket::new(listener.owner, node, from_node, to);
        accepted.peer = Some(socket);
        let accepted = self.add(accepted);
        if let Some(socket) = self.get(socket) {
            socket.peer = Some(accepted);
        }
        if let Some(listener) = self.listeners.get_mut(number) {
            listener.queue.push_back((accepted, from));
            if let Some(accepter) = listener.accepter.take() {
                accepter.wake();
                s.woken.push(listener.owner);
            }
        }
        Ok(())
    }

    fn arrive(&mut self, s: &mut Schedule, socket: u64) {
        let Some((node, peer_node)) = self.get(socket).map(|to| (to.node, to.peer_node)) else { return };
        if self.is_cut(node, peer_node) {
            return;
        }
        let drops_unread = self.random.coin();
        loop {
            let Some(to) = self.get(socket) else { return };
            match to.wire.front() {
                Some((at, _)) if *at <= s.now => {}
                _ => return,
            }
            match to.wire.pop_front() {
                Some((_, Piece::Data(bytes))) => to.ready.push_back(bytes),
                Some((_, Piece::End)) => to.ended = true,
                Some((_, Piece::Reset)) => {
                    if drops_unread {
                        to.ready.clear();
                    }
                    self.broke(s, socket, libc::ECONNRESET);
                }
                None => return,
            }
            if let Some(to) = self.get(socket) {
                to.wake_reader(s);
            }
        }
    }

    /// Both sides lose the connection: this one now, the other when the news arrives.
    fn break_connection(&mut self, s: &mut Schedule, socket: u64) {
        self.resets += 1;
        let peer = self.get(socket).and_then(|socket| socket.peer);
        self.broke(s, socket, libc::ECONNRESET);
        if let Some(peer) = peer.filter(|peer| self.get(*peer).is_some()) {
            self.put_on_wire(s, peer, Piece::Reset);
        }
    }

    fn broke(&mut self, s: &mut Schedule, socket: u64, code: i32) {
        let Some(socket) = self.get(socket) else { return };
        socket.broken = Some(code);
        socket.wake_reader(s);
        if let Some(op) = socket.sender.take() {
            s.push(s.now, Event::Land { reactor: socket.owner, op });
        }
    }

    fn put_on_wire(&mut self, s: &mut Schedule, to: u64, piece: Piece) {
        let delay = self.delay();
        let Some(socket) = self.get(to) else { return };
        let at = (s.now + delay).max(socket.last_arrival + 1);
        socket.last_arrival = at;
        if let Piece::Data(bytes) = &piece {
            socket.held_bytes += bytes.len();
        }
        socket.wire.push_back((at, piece));
        s.push(at, Event::Net(NetEvent::Arrive { socket: to }));
    }

    /// There is room again in what `socket` holds: whoever sends to it goes on.
    fn wake_sender(&mut self, s: &mut Schedule, socket: u64) {
        if let Some(peer) = self.get(socket).and_then(|socket| socket.peer) {
            self.wake_peer_sender(s, peer);
        }
    }

    fn wake_peer_sender(&mut self, s: &mut Schedule, peer: u64) {
        let at = s.now + self.options.delay_ns.0;
        let Some(peer) = self.get(peer) else { return };
        if let Some(op) = peer.sender.take() {
            s.push(at, Event::Land { reactor: peer.owner, op });
        }
    }

    // Helpers ------------------------------------------------------------------------------------------------------

    fn get(&mut self, socket: u64) -> Option<&mut Socket> {
        self.sockets.get_mut(socket as usize).and_then(Option::as_mut)
    }

    fn add(&mut self, socket: Socket) -> u64 {
        self.sockets.push(Some(socket));
        self.sockets.len() as u64 - 1
    }

    fn sockets_where(&self, wanted: impl Fn(&Socket) -> bool) -> Vec<u64> {
        let numbered = self.sockets.iter().enumerate();
        numbered.filter(|(_, s)| s.as_ref().is_some_and(&wanted)).map(|(number, _)| number as u64).collect()
    }

    fn is_cut(&self, a: NodeIndex, b: NodeIndex) -> bool {
        !self.cut.is_empty() && self.cut.contains(&(a.min(b), a.max(b)))
    }

    fn delay(&mut self) -> u64 {
        let (shortest, longest) = self.options.delay_ns;
        self.random.between(shortest, longest)
    }

    fn piece(&mut self, length: usize) -> usize {
        let small = self.random.chance(self.options.small_piece);
        let most = if small { 1 + self.random.below(16) as usize } else { PIECE_MAX };
        length.min(most)
    }

    fn free_port(&mut self) -> u16 {
        self.ports_given = (self.ports_given + 1) % (u16::MAX - EPHEMERAL_FIRST);
        EPHEMERAL_FIRST + self.ports_given
    }
}

impl Socket {
    fn new(owner: ReactorKey, node: NodeIndex, peer_node: NodeIndex, address: SocketAddr) -> Socket {
        Socket {
            owner,
            node,
            peer_node,
            peer: None,
            address,
            connecting: None,
            wire: VecDeque::new(),
            ready: VecDeque::new(),
            held_bytes: 0,
            last_arrival: 0,
            ended: false,
            shut: false,
            broken: None,
            reader: None,
            sender: None,
            unanswered: 0,
        }
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = self.ready.pop_front().unwrap_or_default();
        if size < bytes.len() {
            self.ready.push_front(bytes.split_off(size));
        }
        self.held_bytes -= bytes.len();
        bytes
    }

    fn wake_reader(&mut self, s: &mut Schedule) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
            s.woken.push(self.owner);
        }
    }
}
