//! The classic protocol: members join, a leader among them assigns what each reads, all are told, and heartbeats hold them
//! together.
//!
//! ```text
//! Empty -> Preparing -> Completing -> Stable
//!             ^  |          |           |
//!             |  v          v           v      a member comes, goes, or wants something else
//!           Empty <---- Preparing <-----+
//! ```
//!
//! States and rules are those of Kafka's group coordinator, so that its clients find what they expect.

use super::GroupError;
use crate::reactor::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a new member may wait for the others. Its client would be gone before.
const NEW_MEMBER_WAIT: Duration = Duration::from_secs(300);

/// Of an entry of a map or a list, beside what is in it.
const ENTRY_BYTES: usize = 64;

/// The protocol type of groups that read topics.
const CONSUMER: &str = "consumer";

/// A group as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStatus {
    /// Where it stands, in Kafka's words.
    pub state: &'static str,
    /// What it is for; nothing if it only keeps offsets.
    pub protocol_type: String,
    /// The protocol in force.
    pub protocol: String,
    /// Its members.
    pub members: Vec<MemberStatus>,
}

/// A member as others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its id.
    pub member: String,
    /// The name under which it comes back.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where that is.
    pub client_host: String,
    /// What it says under the protocol in force.
    pub metadata: Vec<u8>,
    /// What it reads.
    pub assignment: Vec<u8>,
}

/// Who waits for an answer: a number of the caller's.
pub type Waiter = u64;

/// A wish to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The id that the member has; none if it is new.
    pub member: String,
    /// The name under which it comes back after a restart, if it has one.
    pub instance: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// It is out when nothing was heard of it for so long.
    pub session: Duration,
    /// How long the others wait for it when they rebalance.
    pub rebalance: Duration,
    /// What the group is for: `consumer`, as a rule.
    pub protocol_type: String,
    /// Protocols that it knows, the dearest first, each with what it says under it.
    pub protocols: Vec<(String, Vec<u8>)>,
    /// A new member first gets an id and joins again with it, so that one that never does leaves nothing behind.
    pub needs_id: bool,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// What the group is for.
    pub protocol_type: Option<String>,
    /// The protocol that all know.
    pub protocol: Option<String>,
    /// Who assigns.
    pub leader: String,
    /// Who this is.
    pub member: String,
    /// For the leader: all members, their instances, and what they say under the protocol.
    pub members: Vec<(String, Option<String>, Vec<u8>)>,
}

/// What a member is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// What the group is for.
    pub protocol_type: Option<String>,
    /// The protocol in force.
    pub protocol: Option<String>,
    /// In the words of the leader.
    pub assignment: Vec<u8>,
}

/// What a member says of itself in every request.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// Its id.
    pub member: &'a str,
    /// Its instance, if it has one.
    pub instance: Option<&'a str>,
    /// The generation that it believes in.
    pub generation: i32,
}

/// What was decided for who waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// To a join; an error comes with the id that the member is to use.
    Join(Waiter, Result<Joined, (GroupError, String)>),
    /// To a sync.
    Sync(Waiter, Result<Synced, GroupError>),
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Without members.
    Empty,
    /// Waits for its members to join.
    Preparing,
    /// Waits for its leader to assign.
    Completing,
    /// All know what they read.
    Stable,
}

impl State {
    /// Its name in Kafka's protocol.
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::Preparing => "PreparingRebalance",
            State::Completing => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// See [`Join`].
    pub instance: Option<String>,
    /// See [`Join`].
    pub client_id: String,
    /// See [`Join`].
    pub client_host: String,
    /// See [`Join`].
    pub session: Duration,
    /// See [`Join`].
    pub rebalance: Duration,
    /// See [`Join`].
    pub protocols: Vec<(String, Vec<u8>)>,
    /// What it reads.
    pub assignment: Vec<u8>,
    /// It is out then, unless it is heard of.
    deadline: Instant,
    joining: Option<Waiter>,
    syncing: Option<Waiter>,
}

impl Member {
    fn new(join: &Join, now: Instant) -> Member {
        Member {
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session: join.session,
            rebalance: join.rebalance,
            protocols: join.protocols.clone(),
            assignment: Vec::new(),
            deadline: now.plus(NEW_MEMBER_WAIT),
            joining: None,
            syncing: None,
        }
    }

    /// A member as the log of groups has it: what it joined with, and what it is to read.
    pub(super) fn restored(join: &Join, assignment: Vec<u8>, now: Instant) -> Member {
        Member { assignment, deadline: now.plus(join.session), ..Member::new(join, now) }
    }

    fn renew(&mut self, join: &Join) {
        (self.protocols, self.session, self.rebalance) = (join.protocols.clone(), join.session, join.rebalance);
        (self.client_id, self.client_host) = (join.client_id.clone(), join.client_host.clone());
    }

    /// What it says under a protocol.
    pub fn metadata(&self, protocol: &str) -> &[u8] {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or(&[], |(_, metadata)| metadata)
    }

    /// About what it takes of memory, in bytes.
    pub fn bytes(&self) -> usize {
        let said: usize = self.protocols.iter().map(|(name, metadata)| name.len() + metadata.len() + ENTRY_BYTES).sum();
        let names = self.client_id.len() + self.client_host.len() + self.instance.as_ref().map_or(0, String::len);
        size_of::<Member>() + ENTRY_BYTES + said + names + self.assignment.len()
    }

    fn is_waiting(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }
}

/// The first members of a group come one after another: it waits for more before it begins.
#[derive(Debug, Clone, Copy)]
struct Gathering {
    until: Instant,
    delay: Duration,
    had_more: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Group {
    state: State,
    generation: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<String>,
    members: BTreeMap<String, Member>,
    /// Ids given out to members that have not joined with them, and until when they may.
    pending: BTreeMap<String, Instant>,
    /// While preparing: when those that have not joined are out. While completing: those that have not synced.
    deadline: Instant,
    gathering: Option<Gathering>,
    /// The assignment of this generation is on its way to the log.
    is_assigning: bool,
    answers: Vec<Answer>,
    has_changed: bool,
}

impl Default for Group {
    fn default() -> Group {
        Group {
            state: State::Empty,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            deadline: Instant::from_nanos(0),
            gathering: None,
            is_assigning: false,
            answers: Vec::new(),
            has_changed: false,
        }
    }
}

/// What a group is, for who describes it or writes it down.
impl Group {
    /// A group as its last record has it.
    pub(super) fn restored(
        generation: i32,
        protocol_type: Option<String>,
        protocol: Option<String>,
        leader: Option<String>,
        members: BTreeMap<String, Member>,
    ) -> Group {
        let state = if members.is_empty() { State::Empty } else { State::Stable };
        Group { state, generation, protocol_type, protocol, leader, members, ..Group::default() }
    }

    /// Where it stands.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often its members have been assigned anew.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// What it is for.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    /// The protocol in force.
    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Who assigns.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// Its members by their ids.
    pub fn members(&self) -> &BTreeMap<String, Member> {
        &self.members
    }

    /// Whether there are answers to give, or something to write down.
    pub fn has_news(&self) -> bool {
        self.has_changed || !self.answers.is_empty()
    }

    /// About what it takes of memory, in bytes.
    pub fn bytes(&self) -> usize {
        let ids = self.pending.keys().map(|id| id.len() + ENTRY_BYTES);
        let members = self.members.iter().map(|(id, member)| id.len() + member.bytes());
        ids.chain(members).sum()
    }

    /// Whether nobody is in it, or on the way.
    pub fn is_idle(&self) -> bool {
        self.members.is_empty() && self.pending.is_empty()
    }

    /// What was decided since the last call.
    pub fn take_answers(&mut self) -> Vec<Answer> {
        std::mem::take(&mut self.answers)
    }

    /// Whether it is to be written down: the generation, if so. [`Group::written`] is to follow.
    pub fn take_change(&mut self) -> Option<i32> {
        std::mem::take(&mut self.has_changed).then_some(self.generation)
    }
}

impl Join {
    /// The texts of it that are kept.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let who = [&self.member, &self.client_id, &self.client_host, &self.protocol_type].into_iter();
        let names = self.protocols.iter().map(|(name, _)| name);
        who.chain(&self.instance).chain(names).map(String::as_str)
    }

    /// About what a member takes of memory who joins so, in bytes.
    pub fn bytes(&self) -> usize {
        Member::new(self, Instant::from_nanos(0)).bytes() + self.member.len()
    }
}

impl Group {
    /// A member joins. `fresh` is an id that nobody has; `initial_delay` is how long the first one waits for others.
    pub fn join(&mut self, now: Instant, join: &Join, fresh: String, initial_delay: Duration, waiter: Waiter) {
        let outcome = match join.member.is_empty() {
            true => self.join_new(now, join, fresh, initial_delay, waiter),
            false => self.join_known(now, join, initial_delay, waiter),
        };
        if let Err(refused) = outcome {
            self.answers.push(Answer::Join(waiter, Err(refused)));
        }
    }

    fn join_new(
        &mut self,
        now: Instant,
        join: &Join,
        fresh: String,
        initial_delay: Duration,
        waiter: Waiter,
    ) -> Result<(), (GroupError, String)> {
        if !self.supports(join) {
            return Err((GroupError::InconsistentProtocol, String::new()));
        }
        let of_instance = join.instance.as_deref().and_then(|instance| self.of_instance(instance));
        match of_instance {
            Some(old) => self.take_place(now, join, &old, fresh, initial_delay, waiter),
            None if join.instance.is_none() && join.needs_id => {
                self.pending.insert(fresh.clone(), now.plus(join.session));
                return Err((GroupError::MemberIdRequired, fresh));
            }
            None => self.add(now, join, fresh, initial_delay, waiter),
        }
        Ok(())
    }

    fn join_known(
        &mut self,
        now: Instant,
        join: &Join,
        initial_delay: Duration,
        waiter: Waiter,
    ) -> Result<(), (GroupError, String)> {
        let refused = |error| (error, join.member.clone());
        if self.pending.contains_key(&join.member) {
            if !self.supports(join) {
                return Err(refused(GroupError::InconsistentProtocol));
            }
            self.pending.remove(&join.member);
            self.add(now, join, join.member.clone(), initial_delay, waiter);
            return Ok(());
        }
        self.check(&join.member, join.instance.as_deref()).map_err(refused)?;
        if !self.supports(join) {
            return Err(refused(GroupError::InconsistentProtocol));
        }
        let has_changed = self.members.get(&join.member).is_some_and(|member| member.protocols != join.protocols);
        let is_leader = self.leader.as_deref() == Some(&join.member);
        match self.state {
            State::Empty => return Err(refused(GroupError::UnknownMember)),
            State::Completing if !has_changed => self.tell_again(now, &join.member, waiter),
            State::Stable if !has_changed && !is_leader => self.tell_again(now, &join.member, waiter),
            State::Preparing | State::Completing | State::Stable => {
                self.rejoin(now, join, waiter);
                self.prepare(now, initial_delay);
            }
        }
        Ok(())
    }

    /// A member that did not hear what the others know already.
    fn tell_again(&mut self, now: Instant, id: &str, waiter: Waiter) {
        self.heard(now, id);
        let joined = self.joined(id);
        self.answers.push(Answer::Join(waiter, Ok(joined)));
    }

    fn rejoin(&mut self, now: Instant, join: &Join, waiter: Waiter) {
        if let Some(member) = self.members.get_mut(&join.member) {
            member.renew(join);
            member.deadline = now.plus(NEW_MEMBER_WAIT);
            // Who waits already has sent a second request, and reads no answer to the first.
            if let Some(before) = member.joining.replace(waiter) {
                self.answers.push(Answer::Join(before, Err((GroupError::Rebalancing, join.member.clone()))));
            }
        }
    }

    fn add(&mut self, now: Instant, join: &Join, id: String, initial_delay: Duration, waiter: Waiter) {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.members.insert(id, Member { joining: Some(waiter), ..Member::new(join, now) });
        if let Some(gathering) = &mut self.gathering {
            gathering.had_more = true;
        }
        self.prepare(now, initial_delay);
    }

    /// A member that comes back under its instance's name takes over what it had.
    fn take_place(
        &mut self,
        now: Instant,
        join: &Join,
        old: &str,
        fresh: String,
        initial_delay: Duration,
        waiter: Waiter,
    ) {
        let Some(mut member) = self.members.remove(old) else { return };
        let fenced = GroupError::FencedInstance;
        if let Some(waiter) = member.joining.take() {
            self.answers.push(Answer::Join(waiter, Err((fenced, old.to_owned()))));
        }
        if let Some(waiter) = member.syncing.take() {
            self.answers.push(Answer::Sync(waiter, Err(fenced)));
        }
        let says_the_same = self.protocol.as_deref().is_some_and(|protocol| {
            let said = join.protocols.iter().find(|(name, _)| name == protocol);
            said.is_some_and(|(_, metadata)| metadata == member.metadata(protocol))
        });
        member.renew(join);
        member.deadline = now.plus(join.session);
        let was_leader = self.leader.as_deref() == Some(old);
        if was_leader {
            self.leader = Some(fresh.clone());
        }
        self.members.insert(fresh.clone(), member);
        if self.state == State::Stable && says_the_same {
            self.has_changed = true;
            // The old id as leader: the member is to ask for what it had, not to assign anew.
            let leader = if was_leader { old.to_owned() } else { self.leader.clone().unwrap_or_default() };
            let joined = Joined { leader, members: Vec::new(), ..self.joined(&fresh) };
            self.answers.push(Answer::Join(waiter, Ok(joined)));
            return;
        }
        if let Some(member) = self.members.get_mut(&fresh) {
            member.joining = Some(waiter);
        }
        self.prepare(now, initial_delay);
    }

    /// Begins to wait for all members to join, unless that goes on already; done at once if all have.
    fn prepare(&mut self, now: Instant, initial_delay: Duration) {
        if self.state == State::Completing {
            self.drop_assignments(now, GroupError::Rebalancing);
        }
        if self.state == State::Empty && !initial_delay.is_zero() {
            let until = now.plus(self.longest_rebalance());
            self.gathering = Some(Gathering { until, delay: initial_delay, had_more: false });
            self.deadline = now.plus(initial_delay.min(self.longest_rebalance()));
        } else if self.state != State::Preparing {
            self.deadline = now.plus(self.longest_rebalance());
        }
        self.state = State::Preparing;
        self.begin_if_all_joined(now);
    }

    fn drop_assignments(&mut self, now: Instant, error: GroupError) {
        self.is_assigning = false;
        for member in self.members.values_mut() {
            member.assignment.clear();
            if let Some(waiter) = member.syncing.take() {
                // Who waits for an answer sends no heartbeats.
                member.deadline = now.plus(member.session);
                self.answers.push(Answer::Sync(waiter, Err(error)));
            }
        }
    }

    fn begin_if_all_joined(&mut self, now: Instant) {
        let all_joined = self.pending.is_empty() && self.members.values().all(|member| member.joining.is_some());
        if self.state == State::Preparing && self.gathering.is_none() && all_joined {
            self.begin(now);
        }
    }

    /// Begins a generation of those that have joined. Members with an instance keep their place while they are away.
    fn begin(&mut self, now: Instant) {
        self.gathering = None;
        self.members.retain(|_, member| member.joining.is_some() || member.instance.is_some());
        let first_joined = self.members.iter().find(|(_, member)| member.joining.is_some()).map(|(id, _)| id.clone());
        if first_joined.is_none() && !self.members.is_empty() {
            // All are away and may come back.
            self.deadline = now.plus(self.longest_rebalance());
            return;
        }
        let leads = |id: &String| self.members.get(id).is_some_and(|member| member.joining.is_some());
        if !self.leader.as_ref().is_some_and(leads) {
            self.leader = first_joined;
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        self.is_assigning = false;
        if self.members.is_empty() {
            (self.state, self.protocol, self.has_changed) = (State::Empty, None, true);
            return;
        }
        self.protocol = self.vote();
        self.state = State::Completing;
        self.deadline = now.plus(self.longest_rebalance());
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.heard(now, &id);
            let Some(waiter) = self.members.get_mut(&id).and_then(|member| member.joining.take()) else { continue };
            let joined = self.joined(&id);
            self.answers.push(Answer::Join(waiter, Ok(joined)));
        }
    }

    /// The protocol that most members hold dearest, of those that all know.
    fn vote(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let dearest = member.protocols.iter().find(|(name, _)| self.all_know(name));
            if let Some((name, _)) = dearest {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.into_iter().max_by_key(|(_, votes)| *votes);
        most.map(|(name, _)| name.to_owned())
    }

    fn all_know(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.protocols.iter().any(|(name, _)| name == protocol))
    }

    /// Whether whoever joins so has something in common with all.
    fn supports(&self, join: &Join) -> bool {
        if self.members.is_empty() {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| self.all_know(name))
    }

    fn joined(&self, id: &str) -> Joined {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let of = |(id, member): (&String, &Member)| {
            (id.clone(), member.instance.clone(), member.metadata(protocol).to_vec())
        };
        let leads = self.leader.as_deref() == Some(id);
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member: id.to_owned(),
            members: if leads { self.members.iter().map(of).collect() } else { Vec::new() },
        }
    }

    fn longest_rebalance(&self) -> Duration {
        self.members.values().map(|member| member.rebalance).max().unwrap_or_default()
    }

    fn of_instance(&self, instance: &str) -> Option<String> {
        let is_its = |(_, member): &(&String, &Member)| member.instance.as_deref() == Some(instance);
        self.members.iter().find(is_its).map(|(id, _)| id.clone())
    }

    fn heard(&mut self, now: Instant, id: &str) {
        if let Some(member) = self.members.get_mut(id) {
            member.deadline = now.plus(member.session);
        }
    }

    fn check(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.of_instance(instance) {
                None => return Err(GroupError::UnknownMember),
                Some(known) if known != id => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        if self.members.contains_key(id) { Ok(()) } else { Err(GroupError::UnknownMember) }
    }

    fn check_said(&self, said: &Said<'_>) -> Result<(), GroupError> {
        self.check(said.member, said.instance)?;
        if said.generation == self.generation { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }
}

impl Group {
    /// A member asks what it is to read; the leader says what each is. Protocol type and name are compared if they are given.
    pub fn sync(
        &mut self,
        now: Instant,
        said: &Said<'_>,
        protocol: (Option<&str>, Option<&str>),
        assignments: Vec<(String, Vec<u8>)>,
        waiter: Waiter,
    ) {
        if let Err(error) = self.try_sync(now, said, protocol, assignments, waiter) {
            self.answers.push(Answer::Sync(waiter, Err(error)));
        }
    }

    fn try_sync(
        &mut self,
        now: Instant,
        said: &Said<'_>,
        (protocol_type, protocol): (Option<&str>, Option<&str>),
        assignments: Vec<(String, Vec<u8>)>,
        waiter: Waiter,
    ) -> Result<(), GroupError> {
        self.check_said(said)?;
        let differs = |said: Option<&str>, is: &Option<String>| said.is_some() && said != is.as_deref();
        if differs(protocol_type, &self.protocol_type) || differs(protocol, &self.protocol) {
            return Err(GroupError::InconsistentProtocol);
        }
        match self.state {
            State::Empty => return Err(GroupError::UnknownMember),
            State::Preparing => return Err(GroupError::Rebalancing),
            State::Stable => {
                self.heard(now, said.member);
                self.answer_sync(said.member, waiter);
            }
            State::Completing => {
                self.heard(now, said.member);
                if let Some(member) = self.members.get_mut(said.member)
                    && let Some(before) = member.syncing.replace(waiter)
                {
                    self.answers.push(Answer::Sync(before, Err(GroupError::Rebalancing)));
                }
                if self.leader.as_deref() == Some(said.member) && !self.is_assigning {
                    self.assign(assignments);
                }
            }
        }
        Ok(())
    }

    /// Takes the leader's word; it counts when it is written down.
    fn assign(&mut self, assignments: Vec<(String, Vec<u8>)>) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        (self.is_assigning, self.has_changed) = (true, true);
    }

    fn answer_sync(&mut self, id: &str, waiter: Waiter) {
        let assignment = self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default();
        let (protocol_type, protocol) = (self.protocol_type.clone(), self.protocol.clone());
        self.answers.push(Answer::Sync(waiter, Ok(Synced { protocol_type, protocol, assignment })));
    }

    /// What was written down of a generation is durable; or could not be written.
    pub fn written(&mut self, now: Instant, generation: i32, is_durable: bool) {
        if self.state != State::Completing || generation != self.generation || !self.is_assigning {
            return;
        }
        if !is_durable {
            self.drop_assignments(now, GroupError::Unavailable);
            return self.prepare(now, Duration::ZERO);
        }
        (self.state, self.is_assigning) = (State::Stable, false);
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            self.heard(now, &id);
            if let Some(waiter) = self.members.get_mut(&id).and_then(|member| member.syncing.take()) {
                self.answer_sync(&id, waiter);
            }
        }
    }

    /// A member is alive.
    ///
    /// # Errors
    /// It is to join again, as itself or as a new one.
    pub fn heartbeat(&mut self, now: Instant, said: &Said<'_>) -> Result<(), GroupError> {
        self.check_said(said)?;
        self.heard(now, said.member);
        if self.state == State::Preparing { Err(GroupError::Rebalancing) } else { Ok(()) }
    }

    /// Whether a member may commit offsets; one that says no generation stands alone, and may while nobody else is there.
    ///
    /// # Errors
    /// Why not.
    pub fn may_commit(&mut self, now: Instant, said: &Said<'_>) -> Result<(), GroupError> {
        if said.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        self.check_said(said)?;
        self.heard(now, said.member);
        if self.state == State::Completing { Err(GroupError::Rebalancing) } else { Ok(()) }
    }

    /// A member goes. One with an instance may be named by that alone.
    ///
    /// # Errors
    /// There is no such member.
    pub fn leave(&mut self, now: Instant, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if self.pending.remove(id).is_some() {
            self.begin_if_all_joined(now);
            return Ok(());
        }
        let id = match instance.filter(|_| id.is_empty()) {
            Some(instance) => self.of_instance(instance).ok_or(GroupError::UnknownMember)?,
            None => id.to_owned(),
        };
        self.check(&id, instance)?;
        self.remove(now, &id);
        Ok(())
    }

    fn remove(&mut self, now: Instant, id: &str) {
        let Some(mut member) = self.members.remove(id) else { return };
        if let Some(waiter) = member.joining.take() {
            self.answers.push(Answer::Join(waiter, Err((GroupError::UnknownMember, id.to_owned()))));
        }
        if let Some(waiter) = member.syncing.take() {
            self.answers.push(Answer::Sync(waiter, Err(GroupError::UnknownMember)));
        }
        if self.leader.as_deref() == Some(id) {
            self.leader = self.members.keys().next().cloned();
        }
        match self.state {
            State::Stable | State::Completing => self.prepare(now, Duration::ZERO),
            State::Preparing => self.begin_if_all_joined(now),
            State::Empty => {}
        }
    }

    /// Looks what is over at this time.
    pub fn tick(&mut self, now: Instant) {
        self.pending.retain(|_, until| *until > now);
        let is_out = |member: &Member| member.deadline <= now && (!member.is_waiting() || member.joining.is_some());
        let out: Vec<String> =
            self.members.iter().filter(|(_, member)| is_out(member)).map(|(id, _)| id.clone()).collect();
        for id in out {
            self.remove(now, &id);
        }
        match self.state {
            State::Preparing if self.deadline <= now => self.end_waiting(now),
            State::Preparing => self.begin_if_all_joined(now),
            State::Completing if self.deadline <= now && !self.is_assigning => self.drop_silent(now),
            _ => {}
        }
    }

    fn end_waiting(&mut self, now: Instant) {
        match &mut self.gathering {
            Some(gathering) if gathering.had_more && now < gathering.until => {
                gathering.had_more = false;
                self.deadline = now.plus(gathering.delay).min(gathering.until);
            }
            _ => self.begin(now),
        }
    }

    /// Members that never asked what they are to read, the leader perhaps, are out.
    fn drop_silent(&mut self, now: Instant) {
        let silent = |(_, member): &(&String, &Member)| member.syncing.is_none();
        let silent: Vec<String> = self.members.iter().filter(silent).map(|(id, _)| id.clone()).collect();
        for id in silent {
            self.remove(now, &id);
        }
        if self.state == State::Completing {
            self.prepare(now, Duration::ZERO);
        }
    }

    /// Sends everybody who waits away: the shard stops.
    pub fn close(&mut self) {
        for (id, member) in &mut self.members {
            if let Some(waiter) = member.joining.take() {
                self.answers.push(Answer::Join(waiter, Err((GroupError::NotCoordinator, id.clone()))));
            }
            if let Some(waiter) = member.syncing.take() {
                self.answers.push(Answer::Sync(waiter, Err(GroupError::NotCoordinator)));
            }
        }
    }
}

impl Group {
    /// The group as others see it.
    pub fn status(&self) -> GroupStatus {
        let protocol = self.protocol.clone().unwrap_or_default();
        let of = |(id, member): (&String, &Member)| MemberStatus {
            member: id.clone(),
            instance: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if self.state == State::Stable { member.metadata(&protocol).to_vec() } else { Vec::new() },
            assignment: member.assignment.clone(),
        };
        let members = self.members.iter().map(of).collect();
        let protocol_type = self.protocol_type.clone().unwrap_or_default();
        GroupStatus { state: self.state.name(), protocol_type, protocol, members }
    }

    /// Whether offsets in a topic may be forgotten: not while members read it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_forget(&self, topic: &str) -> Result<(), GroupError> {
        if self.members.is_empty() {
            return Ok(());
        }
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return Err(GroupError::NotEmpty);
        }
        let protocol = self.protocol.as_deref().unwrap_or_default();
        // What cannot be understood may name any topic.
        let reads = |member: &Member| topics_of(member.metadata(protocol)).is_none_or(|topics| topics.contains(&topic));
        if self.members.values().any(reads) { Err(GroupError::Subscribed) } else { Ok(()) }
    }
}

/// The topics of a consumer's subscription: a version, and an array of names.
fn topics_of(metadata: &[u8]) -> Option<Vec<&str>> {
    let (count, mut rest) = metadata.get(2..)?.split_first_chunk::<4>()?;
    let mut topics = Vec::new();
    for _ in 0..i32::from_be_bytes(*count) {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        let (name, behind) = behind.split_at_checked(usize::try_from(i16::from_be_bytes(*length)).ok()?)?;
        topics.push(std::str::from_utf8(name).ok()?);
        rest = behind;
    }
    Some(topics)
}

#[cfg(test)]
mod tests;
