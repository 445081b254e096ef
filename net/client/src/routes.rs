//! One topic: who owns its partitions, and which handles are open where.

use crate::cluster::{Cluster, LinkId, Token};
use crate::error::Refusal;
use crate::protocol::Event;
use corelog_wire::{
    Detail, List, Metadata, MetadataRequest, Open, Opened, Operation, Response, Retry, Selection, Status, Text, Topic,
};
use std::time::{Duration, Instant};
use uuid::Uuid;

/// How old the owners may be before they are asked for again.
const AGE_MAX: Duration = Duration::from_secs(60);

/// A link and an open handle on it.
pub(crate) type Lane = (LinkId, u32);

/// The topic's partitions and the way to each. A partition keeps its lane until that is lost or given up: changing it with
/// requests under way would change their order.
#[derive(Debug)]
pub(crate) struct Routes {
    topic: String,
    id: Option<Uuid>,
    routes: Vec<Route>,
    /// The link that the owners are being asked for by.
    asking: Option<LinkId>,
    /// Owners may have changed: lanes wait for the answer.
    stale: bool,
    ask_after: Instant,
    asked_at: Instant,
    pause: Duration,
    trouble: Option<Refusal>,
    waiting_for: String,
}

#[derive(Debug)]
struct Route {
    owner: (u32, u16),
    lane: State,
    opened: Option<Opened>,
    /// Its owner did not know it at the last try.
    unknown: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Shut { not_before: Instant },
    Opening(LinkId),
    Open(LinkId, u32),
}

impl Routes {
    pub(crate) fn new(topic: &str, pause: Duration, now: Instant) -> Routes {
        Routes {
            topic: topic.to_owned(),
            id: None,
            routes: Vec::new(),
            asking: None,
            stale: true,
            ask_after: now,
            asked_at: now,
            pause,
            trouble: None,
            waiting_for: String::new(),
        }
    }

    /// Number of partitions, once it is known.
    pub(crate) fn partitions(&self) -> Option<u32> {
        self.id.map(|_| self.routes.len() as u32)
    }

    /// Why there is no use in waiting: the topic is not there, or not the one it was.
    pub(crate) fn trouble(&self) -> Option<&Refusal> {
        self.trouble.as_ref()
    }

    /// The latest reason to wait, for messages.
    pub(crate) fn waiting_for(&self) -> &str {
        &self.waiting_for
    }

    /// Facts from when the partition was opened last.
    pub(crate) fn opened(&self, partition: u32) -> Option<Opened> {
        self.routes.get(partition as usize)?.opened
    }

    /// When `pump` has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asks = (self.asking.is_none() && self.trouble.is_none()).then_some(());
        let ask = asks.map(|()| if self.stale { self.ask_after } else { self.asked_at + AGE_MAX });
        let shut = self.routes.iter().filter_map(|route| match route.lane {
            State::Shut { not_before } => Some(not_before),
            _ => None,
        });
        // Partitions that were never wanted have a time long past; what is wanted now is opened without a timer.
        ask.into_iter().chain(shut.filter(|&at| at > self.asked_at)).min()
    }

    /// Asks for the owners where they are unknown or may have changed.
    pub(crate) fn pump(&mut self, cluster: &mut Cluster, now: Instant) {
        if self.asked_at + AGE_MAX <= now && self.asking.is_none() {
            self.stale = true;
            self.asked_at = now;
        }
        if !self.stale || self.asking.is_some() || self.trouble.is_some() || self.ask_after > now {
            return;
        }
        let Some(link) = cluster.any(now) else { return };
        let name = [Text::truncated(&self.topic)];
        let request = MetadataRequest { topics: Selection::Named(List::of(&name)) };
        cluster.request((link, 0), Operation::Metadata, &request, Token::Metadata, now);
        self.asking = Some(link);
    }

    /// The way to a partition. Where there is none yet, has it made and says None; events lead on.
    pub(crate) fn lane(&mut self, partition: u32, cluster: &mut Cluster, now: Instant) -> Option<Lane> {
        let route = self.routes.get_mut(partition as usize)?;
        match route.lane {
            State::Open(link, handle) => return Some((link, handle)),
            State::Opening(_) => return None,
            State::Shut { not_before } if not_before > now || self.stale => return None,
            State::Shut { .. } => {}
        }
        let owner = cluster.endpoint(route.owner.0, route.owner.1);
        let link = cluster.near(owner, now).filter(|&link| cluster.has_room(link, 0))?;
        let topic = self.id.map_or(Topic::Name(Text::truncated(&self.topic)), Topic::Id);
        cluster.request((link, 0), Operation::Open, &Open { topic, partition }, Token::Open { partition }, now);
        route.lane = State::Opening(link);
        None
    }

    /// Gives the partition's lane up, to be opened again after the pause.
    pub(crate) fn shut(&mut self, partition: u32, cluster: &mut Cluster, now: Instant) {
        let Some(route) = self.routes.get_mut(partition as usize) else { return };
        if let State::Open(link, handle) = route.lane {
            cluster.request((link, handle), Operation::Close, &(), Token::Close, now);
            route.lane = State::Shut { not_before: now };
        }
    }

    /// An answer to `Token::Metadata` or `Token::Open` came.
    ///
    /// # Errors
    /// The partition that cannot be opened, and why; there is no use in trying again.
    pub(crate) fn answered(
        &mut self,
        link: LinkId,
        event: Event<'_, Token>,
        cluster: &mut Cluster,
        now: Instant,
    ) -> Result<(), (u32, Refusal)> {
        match event {
            Event::Answered { token: Token::Metadata, outcome: Ok(Response::Metadata(metadata)), .. } => {
                self.learned(&metadata, link, cluster, now);
                Ok(())
            }
            Event::Answered { token: Token::Metadata, outcome: Err(refusal), .. } => {
                self.asking = None;
                self.ask_after = now + refusal.retry_after().unwrap_or(self.pause);
                self.trouble = self.refused(refusal, now).err();
                Ok(())
            }
            Event::Answered { token: Token::Open { partition }, header, outcome } => {
                let opened = match outcome {
                    Ok(Response::Open(opened)) => Ok((header.handle, opened)),
                    Ok(_) => return Ok(()),
                    Err(refusal) => Err(refusal),
                };
                self.opened_by(partition, link, opened, now).map_err(|refusal| (partition, refusal))
            }
            _ => Ok(()),
        }
    }

    fn opened_by(
        &mut self,
        partition: u32,
        link: LinkId,
        outcome: Result<(u32, Opened), Refusal>,
        now: Instant,
    ) -> Result<(), Refusal> {
        let Some(route) = self.routes.get_mut(partition as usize) else { return Ok(()) };
        if route.lane != State::Opening(link) {
            return Ok(());
        }
        match outcome {
            Ok((handle, opened)) => {
                route.lane = State::Open(link, handle);
                (route.opened, route.unknown) = (Some(opened), false);
                Ok(())
            }
            Err(refusal) => {
                let pause = refusal.retry_after().unwrap_or(self.pause);
                route.lane = State::Shut { not_before: now + pause };
                let absent = matches!(refusal.status(), Some(Status::UnknownTopic | Status::UnknownPartition));
                let first = absent && !std::mem::replace(&mut route.unknown, true);
                // The topic may be gone, or so new that this shard has not heard of it: the owners are asked for first.
                let refused = self.refused(refusal, now);
                if first { Ok(()) } else { refused }
            }
        }
    }

    fn learned(&mut self, metadata: &Metadata<'_>, link: LinkId, cluster: &mut Cluster, now: Instant) {
        self.asking = None;
        cluster.learn(metadata, link, now);
        let Some(entry) = metadata.topics.iter().find(|entry| entry.name.as_str() == self.topic) else {
            self.trouble = Some(self.gone(Status::UnknownTopic as u16));
            return;
        };
        if entry.status != 0 {
            self.trouble = Some(self.gone(entry.status));
            return;
        }
        if self.id.is_some_and(|id| id != entry.id) {
            self.trouble = Some(self.replaced());
            return;
        }
        self.id = Some(entry.id);
        (self.stale, self.asked_at) = (false, now);
        let shut = Route { owner: (0, 0), lane: State::Shut { not_before: now }, opened: None, unknown: false };
        for (partition, owner) in entry.owners.iter().enumerate() {
            if partition == self.routes.len() {
                self.routes.push(Route { owner: (0, 0), ..shut });
            }
            self.routes[partition].owner = (owner.node, owner.shard);
        }
    }

    /// A link is gone, and with it the lanes on it. Owners may have changed.
    pub(crate) fn lost(&mut self, link: LinkId, now: Instant) {
        let mut used = self.asking == Some(link);
        if used {
            self.asking = None;
        }
        for route in &mut self.routes {
            if matches!(route.lane, State::Opening(on) | State::Open(on, _) if on == link) {
                route.lane = State::Shut { not_before: now };
                used = true;
            }
        }
        if used {
            self.stale = true;
        }
    }

    /// What a refusal means for the way to a partition: an error where there is no use in trying again.
    fn refused(&mut self, refusal: Refusal, now: Instant) -> Result<(), Refusal> {
        self.waiting_for = refusal.to_string();
        match refusal.retry() {
            Retry::Yes | Retry::MayRepeat => Ok(()),
            Retry::No => {
                // It may have been deleted: the next answer about its owners tells.
                self.stale = true;
                self.ask_after = self.ask_after.max(now + self.pause);
                Err(refusal)
            }
        }
    }

    fn gone(&self, code: u16) -> Refusal {
        let topic = &self.topic;
        let deleted = self.id.is_some() && code == Status::UnknownTopic as u16;
        let message =
            if deleted { format!("topic {topic} was deleted") } else { format!("there is no topic {topic:?}") };
        Refusal { operation: Operation::Metadata, code, detail: Detail::None, message }
    }

    /// Going on with the new topic would mix its offsets with those of the old one: the caller has to decide.
    fn replaced(&self) -> Refusal {
        let message = format!("topic {} was deleted and created again; start again to use the new one", self.topic);
        let code = Status::UnknownTopic as u16;
        Refusal { operation: Operation::Metadata, code, detail: Detail::None, message }
    }
}
