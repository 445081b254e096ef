//! A machine, a pretend server, a pretend network and a pretend clock: properties of the client, and what it does in
//! situations that are hard to bring about with sockets.

use crate::cluster::{Action, Address, Cluster, LinkId};
use crate::error::Ended;
use crate::machine::{self, Machine};
use crate::options::ConnectOptions;
use crate::pretend::{Chance, Server};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Everything but the machine.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) server: Server,
    pub(crate) chance: Chance,
    /// Once in so many steps a connection is lost; 0 is never.
    pub(crate) losses: usize,
    /// Whether the server can be connected to.
    pub(crate) reachable: bool,
    /// A port that cannot, as behind a firewall.
    pub(crate) unreachable_port: Option<u16>,
    pub(crate) lost: usize,
    pipes: BTreeMap<LinkId, Pipe>,
}

/// A connection: the server's side, and what is under way in both directions.
#[derive(Debug)]
struct Pipe {
    connection: u64,
    to_server: Vec<u8>,
    to_client: Vec<u8>,
}

impl World {
    pub(crate) fn new(seed: u64, shards: u16) -> World {
        let (server, chance) = (Server::new(seed, shards), Chance(seed ^ 0x5555));
        let (now, pipes) = (Instant::now(), BTreeMap::new());
        World { now, server, chance, losses: 0, reachable: true, unreachable_port: None, lost: 0, pipes }
    }

    pub(crate) fn cluster(&self, options: &ConnectOptions) -> Cluster {
        Cluster::new(vec![Address { host: "pretend".to_owned(), port: 7100 }], options, 1, self.now)
    }

    /// Something happens: time passes, and a part of what is under way arrives.
    pub(crate) fn step(&mut self, machine: &mut impl Machine) {
        self.now += Duration::from_micros(self.chance.below(2000) as u64);
        machine::advance(machine, self.now);
        self.act(machine);
        self.send(machine);
        let links = self.pipes.keys().copied().collect::<Vec<_>>();
        for link in links {
            if self.chance.one_in(self.losses) {
                self.lose(machine, link);
            } else {
                self.carry(machine, link);
            }
        }
    }

    /// Steps until nothing goes wrong any more and `done` says so; panics after long.
    pub(crate) fn calm<M: Machine>(&mut self, machine: &mut M, mut done: impl FnMut(&mut World, &mut M) -> bool) {
        self.losses = 0;
        self.server.mood =
            crate::pretend::Mood { forgets_refusals: self.server.mood.forgets_refusals, ..Default::default() };
        for _ in 0..200_000 {
            if done(self, machine) {
                return;
            }
            self.now += Duration::from_millis(1);
            self.step(machine);
        }
        panic!("it never came to an end: {machine:?}", machine = std::any::type_name::<M>());
    }

    fn act(&mut self, machine: &mut impl Machine) {
        while let Some(action) = machine.cluster().action() {
            match action {
                Action::Connect(link, address) if self.reachable && self.unreachable_port != Some(address.port) => {
                    let shard = self.server.ports.iter().position(|&port| port == address.port).unwrap();
                    let connection = self.server.connect(shard as u16);
                    self.pipes.insert(link, Pipe { connection, to_server: Vec::new(), to_client: Vec::new() });
                    machine.cluster().connected(link, self.now);
                }
                Action::Connect(link, _) => machine::lose(machine, link, &Ended::Io("refused".to_owned()), self.now),
                Action::Close(link) => {
                    if let Some(pipe) = self.pipes.remove(&link) {
                        self.server.disconnect(pipe.connection);
                    }
                }
            }
        }
    }

    fn send(&mut self, machine: &mut impl Machine) {
        for (&link, pipe) in &mut self.pipes {
            let Some(connection) = machine.cluster().connection(link) else { continue };
            // The socket's buffer takes so much at a time.
            let length = connection.transmit().len().min(self.chance.below(20_000));
            pipe.to_server.extend_from_slice(&connection.transmit()[..length]);
            connection.transmitted(length);
        }
    }

    fn carry(&mut self, machine: &mut impl Machine, link: LinkId) {
        let Some(pipe) = self.pipes.get_mut(&link) else { return };
        let count = self.chance.below(pipe.to_server.len() + 1);
        let bytes = pipe.to_server.drain(..count).collect::<Vec<_>>();
        self.server.receive(pipe.connection, &bytes);
        if self.chance.one_in(2) || self.losses == 0 {
            self.server.release(pipe.connection);
        }
        pipe.to_client.extend(self.server.output(pipe.connection));
        let count = self.chance.below(pipe.to_client.len() + 1);
        let bytes = pipe.to_client.drain(..count).collect::<Vec<_>>();
        if !bytes.is_empty() {
            machine::receive(machine, link, &bytes, self.now);
        }
    }

    /// A connection is lost: a part of what is under way still arrives at the server, nothing more at the client.
    pub(crate) fn lose(&mut self, machine: &mut impl Machine, link: LinkId) {
        let Some(mut pipe) = self.pipes.remove(&link) else { return };
        let count = self.chance.below(pipe.to_server.len() + 1);
        pipe.to_server.truncate(count);
        self.server.receive(pipe.connection, &pipe.to_server);
        self.server.disconnect(pipe.connection);
        self.lost += 1;
        machine::lose(machine, link, &Ended::Io("lost".to_owned()), self.now);
    }

    /// The server stops: all connections are lost.
    pub(crate) fn stop_server(&mut self, machine: &mut impl Machine) {
        self.reachable = false;
        for link in self.pipes.keys().copied().collect::<Vec<_>>() {
            self.lose(machine, link);
        }
    }

    pub(crate) fn links(&self) -> Vec<LinkId> {
        self.pipes.keys().copied().collect()
    }
}
