//! The consumer protocol of KIP-848: members say what they want in heartbeats, the coordinator assigns, and tells each what it
//! may read now. Nobody waits for anybody: a partition goes to its next member when the one before has given it back.
//!
//! Three epochs only go forward. The *group's* rises when members or topics change. The *assignment's* follows when it was
//! assigned anew: that is the target. A *member's* follows when it has given back what is no longer its own.
//!
//! ```text
//!                 has to give something back             gave it back, something is still another's
//!        Stable ---------------------------> Unrevoked ------------------------------> Unreleased
//!          ^  ^------------------------------------+                                        |
//!          +----------------------------------- the other gave it back ---------------------+
//! ```
//!
//! Every change is noted, and what is noted is written to the log of groups before a member is told.

mod assign;
mod member;
mod records;
mod status;

use super::GroupError;
use super::classic::Said;
use crate::metadata::{Catalog, TopicName};
use crate::model::TopicId;
use crate::reactor::Instant;
use member::{Member, Pattern, State};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use assign::Assignor;
pub use records::Key;
pub use status::{MemberStatus, Status};

/// The epoch with which a member joins.
const JOIN: i32 = 0;
/// The epoch with which it goes.
const LEAVE: i32 = -1;
/// The epoch with which one that has an instance's name goes, to come back soon.
const LEAVE_FOR_A_WHILE: i32 = -2;
/// While something is under way, members are to ask so often.
const SOON: Duration = Duration::from_millis(500);
/// A group of more members and partitions than this is not assigned at every change, for that takes milliseconds.
const SMALL: usize = 2000;
/// It is then once in this time.
const ASSIGN_EVERY: Duration = Duration::from_millis(100);
/// Bytes that a pattern of topics may take once it is compiled, and again to match with. Members share what is the same.
const PATTERN_BYTES_MAX: usize = 32 << 10;
/// Bytes of its text.
const PATTERN_TEXT_MAX: usize = 4 << 10;
/// Patterns of a group: each is held against all topics when these change.
const PATTERNS_MAX: usize = 32;
/// Of an entry of a map or a list, beside what is in it.
const ENTRY_BYTES: usize = 64;

/// Partitions of topics.
pub type Partitions = BTreeMap<TopicId, BTreeSet<u32>>;

/// Times that members are held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Times {
    /// A member that is not heard of for so long is out.
    pub session: Duration,
    /// How often members are to be heard of.
    pub heartbeat: Duration,
}

/// What a member says in a heartbeat. What it leaves out is as it was.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heartbeat {
    /// Its id; nothing if it is to be given one.
    pub member: String,
    /// The epoch that it is at; 0 joins, -1 leaves, -2 leaves for a while.
    pub epoch: i32,
    /// The name under which it comes back after a restart, if it has one.
    pub instance: Option<String>,
    /// Where its reads are dearest.
    pub rack: Option<String>,
    /// What its client calls itself.
    pub client_id: String,
    /// Where it is.
    pub client_host: String,
    /// How long it may take to give partitions back.
    pub rebalance: Option<Duration>,
    /// Topics that it wants.
    pub names: Option<Vec<String>>,
    /// And those whose whole names match this; an empty one takes that back.
    pub pattern: Option<String>,
    /// How it wants partitions to be assigned.
    pub assignor: Option<String>,
    /// What it reads.
    pub owned: Option<Partitions>,
}

impl Heartbeat {
    /// About what it takes of memory as a member, in bytes.
    pub fn bytes(&self) -> usize {
        let names: usize = self.names.iter().flatten().map(|name| name.len() + ENTRY_BYTES).sum();
        let pattern = if self.pattern.is_some() { 2 * PATTERN_BYTES_MAX } else { 0 };
        let texts = [&self.instance, &self.rack, &self.assignor, &self.pattern];
        let texts: usize = texts.into_iter().flatten().map(String::len).sum();
        let who = self.member.len() + self.client_id.len() + self.client_host.len();
        size_of::<Member>() + ENTRY_BYTES + names + pattern + texts + who
    }

    /// The texts of it that are kept.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        let some = [&self.instance, &self.rack, &self.assignor, &self.pattern].into_iter().flatten();
        let all = [&self.member, &self.client_id, &self.client_host].into_iter().chain(some);
        all.chain(self.names.iter().flatten()).map(String::as_str)
    }
}

/// What a member is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// Its id.
    pub member: String,
    /// The epoch that it is at.
    pub epoch: i32,
    /// When it is to be heard of again.
    pub heartbeat: Duration,
    /// What it may read, unless it knows.
    pub assignment: Option<Partitions>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Group {
    epoch: i32,
    assignment_epoch: i32,
    members: BTreeMap<String, Member>,
    targets: BTreeMap<String, Partitions>,
    /// What members may read, or have yet to give back.
    taken: BTreeSet<(TopicId, u32)>,
    /// Topics that some member wants, with their partitions.
    topics: BTreeMap<TopicId, Topic>,
    /// Of each pattern the topics that match it, as of the last look.
    matching: BTreeMap<String, BTreeSet<TopicId>>,
    /// When it was assigned last.
    assigned_at: Option<Instant>,
    /// What is not as it was last written.
    dirty: BTreeSet<Key>,
}

/// A topic that some member wants.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Topic {
    name: String,
    partitions: u32,
}

fn count(partitions: &Partitions) -> usize {
    partitions.values().map(BTreeSet::len).sum()
}

fn each(partitions: &Partitions) -> impl Iterator<Item = (TopicId, u32)> + '_ {
    partitions.iter().flat_map(|(topic, of)| of.iter().map(|partition| (*topic, *partition)))
}

fn has(partitions: &Partitions, (topic, partition): (TopicId, u32)) -> bool {
    partitions.get(&topic).is_some_and(|of| of.contains(&partition))
}

/// Others may have them.
fn give_back<const N: usize>(taken: &mut BTreeSet<(TopicId, u32)>, partitions: [&Partitions; N]) {
    for one in partitions.into_iter().flat_map(each) {
        taken.remove(&one);
    }
}

fn collected(partitions: impl Iterator<Item = (TopicId, u32)>) -> Partitions {
    let mut all = Partitions::new();
    for (topic, partition) in partitions {
        all.entry(topic).or_default().insert(partition);
    }
    all
}

impl Group {
    /// Takes what a member says. `fresh` is an id that nobody has. What comes of it is not to be told before what
    /// [`Group::take_changes`] gives is durable.
    ///
    /// # Errors
    /// What the member is to do instead.
    pub fn heartbeat(
        &mut self,
        now: Instant,
        times: &Times,
        said: &Heartbeat,
        fresh: String,
        catalog: &Catalog,
    ) -> Result<Told, GroupError> {
        match said.epoch {
            LEAVE => self.leave(said),
            LEAVE_FOR_A_WHILE => self.leave_for_a_while(now, times, said),
            JOIN.. => self.go_on(now, times, said, fresh, catalog),
            _ => Err(GroupError::InvalidRequest("a member's epoch is -2 or more")),
        }
    }

    fn go_on(
        &mut self,
        now: Instant,
        times: &Times,
        said: &Heartbeat,
        fresh: String,
        catalog: &Catalog,
    ) -> Result<Told, GroupError> {
        let pattern = said.pattern.as_deref().filter(|text| !text.is_empty());
        let pattern = pattern.map(|text| self.pattern(text)).transpose()?;
        if said.assignor.as_deref().is_some_and(|name| Assignor::of(name).is_none()) {
            return Err(GroupError::UnsupportedAssignor);
        }
        let id = self.admit(now, said, fresh)?;
        if self.update(&id, said, pattern) {
            self.raise();
            self.look_up(catalog);
        }
        self.assign_if_due(now);
        let Some(before) = self.members.get(&id).map(|member| member.assigned.clone()) else {
            return Err(GroupError::UnknownMember);
        };
        let nothing = Partitions::new();
        let owned = if said.epoch == JOIN { Some(&nothing) } else { said.owned.as_ref() };
        self.reconcile(&id, owned);
        let Some(member) = self.members.get_mut(&id) else { return Err(GroupError::UnknownMember) };
        member.deadline = now.plus(times.session);
        let is_giving_back = member.state == State::Unrevoked;
        let revoke_by = member.revoke_by.unwrap_or_else(|| now.plus(member.rebalance));
        member.revoke_by = is_giving_back.then_some(revoke_by);
        let says_all =
            said.rebalance.is_some() && said.owned.is_some() && (said.names.is_some() || said.pattern.is_some());
        // It may have missed what it was told before.
        let reads_other = said.owned.as_ref().is_some_and(|owned| *owned != member.assigned);
        let is_told = said.epoch == JOIN || says_all || reads_other || member.assigned != before;
        let is_settled = member.state == State::Stable && member.epoch == self.epoch;
        Ok(Told {
            epoch: member.epoch,
            heartbeat: if is_settled { times.heartbeat } else { SOON.min(times.heartbeat) },
            assignment: is_told.then(|| member.assigned.clone()),
            member: id,
        })
    }

    fn known_pattern(&self, text: &str) -> Option<Pattern> {
        let mut members = self.members.values();
        members.find(|member| member.pattern_text() == Some(text)).and_then(|member| member.pattern.clone())
    }

    fn pattern(&self, text: &str) -> Result<Pattern, GroupError> {
        if let Some(known) = self.known_pattern(text) {
            return Ok(known);
        }
        let texts: BTreeSet<&str> = self.members.values().filter_map(Member::pattern_text).collect();
        if texts.len() < PATTERNS_MAX { Pattern::new(text) } else { Err(GroupError::Full) }
    }

    /// The member that speaks; a new one, or one that takes its instance's place, is made.
    fn admit(&mut self, now: Instant, said: &Heartbeat, fresh: String) -> Result<String, GroupError> {
        let of_instance = said.instance.as_deref().and_then(|instance| self.of_instance(instance));
        if said.epoch > JOIN {
            return self.check_known(said, of_instance.as_deref());
        }
        if said.rebalance.is_none() || said.names.is_none() && said.pattern.is_none() {
            return Err(GroupError::InvalidRequest(
                "who joins says its topics and how long it may take to give them back",
            ));
        }
        if said.owned.as_ref().is_some_and(|owned| !owned.is_empty()) {
            return Err(GroupError::InvalidRequest("who joins owns nothing"));
        }
        let id = if said.member.is_empty() { fresh } else { said.member.clone() };
        match of_instance {
            Some(old) if old != id => {
                self.check_is_away(&old)?;
                // It may have been a member under this id without the name.
                self.remove(&id);
                self.take_place(&old, &id);
            }
            _ if self.members.contains_key(&id) => {}
            _ => {
                self.members.insert(id.clone(), Member::new(now));
                self.note_member(&id);
            }
        }
        Ok(id)
    }

    fn check_known(&self, said: &Heartbeat, of_instance: Option<&str>) -> Result<String, GroupError> {
        if said.instance.is_some() {
            match of_instance {
                None => return Err(GroupError::UnknownMember),
                Some(id) if id != said.member => return Err(GroupError::FencedInstance),
                Some(_) => {}
            }
        }
        let member = self.members.get(&said.member).ok_or(GroupError::UnknownMember)?;
        // One that did not hear of its new epoch speaks of the one before, and reads no more than it may.
        let missed_one = said.epoch == member.previous_epoch
            && said.owned.as_ref().is_some_and(|owned| each(owned).all(|one| has(&member.assigned, one)));
        if said.epoch == member.epoch || said.epoch < member.epoch && missed_one {
            Ok(said.member.clone())
        } else {
            Err(GroupError::FencedMember)
        }
    }

    fn check_is_away(&self, member: &str) -> Result<(), GroupError> {
        let is_away = self.members.get(member).is_some_and(|member| member.epoch == LEAVE_FOR_A_WHILE);
        if is_away { Ok(()) } else { Err(GroupError::UnreleasedInstance) }
    }

    /// A member that comes back under its instance's name takes over what it had.
    fn take_place(&mut self, old: &str, id: &str) {
        let Some(mut member) = self.members.remove(old) else { return };
        (member.epoch, member.previous_epoch, member.state) = (JOIN, JOIN, State::Stable);
        self.members.insert(id.to_owned(), member);
        if let Some(target) = self.targets.remove(old) {
            self.targets.insert(id.to_owned(), target);
        }
        self.note_member(old);
        self.note_member(id);
    }

    fn of_instance(&self, instance: &str) -> Option<String> {
        let is_its = |(_, member): &(&String, &Member)| member.instance.as_deref() == Some(instance);
        self.members.iter().find(is_its).map(|(id, _)| id.clone())
    }

    /// Takes over what a member says of itself; whether that changes what anybody is to read.
    fn update(&mut self, id: &str, said: &Heartbeat, pattern: Option<Pattern>) -> bool {
        let Some(member) = self.members.get_mut(id) else { return false };
        let before = member.clone();
        if said.epoch == JOIN {
            (member.instance, member.rack) = (said.instance.clone(), said.rack.clone());
            member.assignor = said.assignor.clone();
        }
        (member.client_id, member.client_host) = (said.client_id.clone(), said.client_host.clone());
        member.rack = said.rack.clone().or(member.rack.take());
        member.assignor = said.assignor.clone().or(member.assignor.take());
        member.rebalance = said.rebalance.unwrap_or(member.rebalance);
        if let Some(names) = &said.names {
            member.names = names.iter().cloned().collect();
        }
        if said.pattern.is_some() {
            member.pattern = pattern;
        }
        let wants_other = member.names != before.names
            || member.pattern_text() != before.pattern_text()
            || member.assignor != before.assignor;
        let says_other = member.client_id != before.client_id
            || member.client_host != before.client_host
            || member.rack != before.rack
            || member.instance != before.instance
            || member.rebalance != before.rebalance;
        if wants_other || says_other {
            self.dirty.insert(Key::Member(id.to_owned()));
        }
        // A new one is to have its share, whatever it wants.
        wants_other || !self.targets.contains_key(id)
    }

    fn raise(&mut self) {
        self.epoch = self.epoch.checked_add(1).unwrap_or(1);
        self.dirty.insert(Key::Group);
    }

    fn note_member(&mut self, id: &str) {
        self.dirty.extend([Key::Member(id.to_owned()), Key::Target(id.to_owned()), Key::Current(id.to_owned())]);
    }

    /// The epoch that a member of `epoch` may commit offsets with.
    ///
    /// # Errors
    /// It is not a member, or its epoch is over.
    pub fn may_commit(&self, said: &Said<'_>) -> Result<(), GroupError> {
        if said.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let member = self.members.get(said.member).ok_or(GroupError::UnknownMember)?;
        if member.epoch == said.generation { Ok(()) } else { Err(GroupError::StaleMember) }
    }

    /// Whether offsets in a topic may be forgotten: not while members read it.
    ///
    /// # Errors
    /// Why not.
    pub fn may_forget(&self, topic: &str) -> Result<(), GroupError> {
        if self.members.values().any(|member| member.wants(topic)) { Err(GroupError::Subscribed) } else { Ok(()) }
    }
}

/// What members go through.
impl Group {
    fn leave(&mut self, said: &Heartbeat) -> Result<Told, GroupError> {
        let id = match said.instance.as_deref().filter(|_| said.member.is_empty()) {
            Some(instance) => self.of_instance(instance).ok_or(GroupError::UnknownMember)?,
            None => said.member.clone(),
        };
        if !self.members.contains_key(&id) {
            return Err(GroupError::UnknownMember);
        }
        self.remove(&id);
        Ok(Told { member: id, epoch: LEAVE, heartbeat: Duration::ZERO, assignment: None })
    }

    fn leave_for_a_while(&mut self, now: Instant, times: &Times, said: &Heartbeat) -> Result<Told, GroupError> {
        let instance = said.instance.as_deref();
        let instance = instance.ok_or(GroupError::InvalidRequest("only who has an instance leaves for a while"))?;
        let id = self.of_instance(instance).ok_or(GroupError::UnknownMember)?;
        if id != said.member {
            return Err(GroupError::FencedInstance);
        }
        if let Some(member) = self.members.get_mut(&id) {
            (member.epoch, member.previous_epoch) = (LEAVE_FOR_A_WHILE, LEAVE_FOR_A_WHILE);
            member.state = State::Stable;
            // It reads nothing now.
            let given_back = std::mem::take(&mut member.revoking);
            member.revoke_by = None;
            member.deadline = now.plus(times.session);
            give_back(&mut self.taken, [&given_back]);
        }
        self.dirty.insert(Key::Current(id.clone()));
        Ok(Told { member: id, epoch: LEAVE_FOR_A_WHILE, heartbeat: Duration::ZERO, assignment: None })
    }

    fn remove(&mut self, id: &str) {
        if let Some(member) = self.members.remove(id) {
            give_back(&mut self.taken, [&member.assigned, &member.revoking]);
            self.targets.remove(id);
            self.note_member(id);
            self.raise();
        }
    }

    /// Leads a member on to its target, as far as it can be now. `owned` is what it reads, if it says so.
    fn reconcile(&mut self, id: &str, owned: Option<&Partitions>) {
        let none = Partitions::new();
        let Group { members, targets, taken, dirty, assignment_epoch, .. } = self;
        let Some(member) = members.get_mut(id) else { return };
        let target = targets.get(id).unwrap_or(&none);
        let reads_any = |of: &Partitions| owned.is_none_or(|owned| each(of).any(|one| has(owned, one)));
        let goes_on = match member.state {
            State::Stable => member.epoch != *assignment_epoch,
            State::Unrevoked => !reads_any(&member.revoking),
            State::Unreleased => true,
        };
        if !goes_on {
            return;
        }
        let before = (member.epoch, member.state, member.assigned.clone(), member.revoking.clone());
        give_back(taken, [&member.assigned, &member.revoking]);
        let kept = collected(each(&member.assigned).filter(|one| has(target, *one)));
        let revoking = collected(each(&member.assigned).filter(|one| !has(target, *one)));
        if !revoking.is_empty() && reads_any(&revoking) {
            (member.assigned, member.revoking, member.state) = (kept, revoking, State::Unrevoked);
        } else {
            let free: Vec<_> = each(target).filter(|one| !has(&kept, *one) && !taken.contains(one)).collect();
            member.assigned = collected(each(&kept).chain(free));
            member.revoking = Partitions::new();
            let has_all = count(&member.assigned) == count(target);
            member.state = if has_all { State::Stable } else { State::Unreleased };
            if member.epoch != *assignment_epoch {
                (member.previous_epoch, member.epoch) = (member.epoch, *assignment_epoch);
            }
        }
        taken.extend(each(&member.assigned).chain(each(&member.revoking)));
        if before != (member.epoch, member.state, member.assigned.clone(), member.revoking.clone()) {
            dirty.insert(Key::Current(id.to_owned()));
        }
    }

    /// Looks what is over at this time.
    pub fn tick(&mut self, now: Instant) {
        let is_out = |member: &Member| member.deadline <= now || member.revoke_by.is_some_and(|by| by <= now);
        let out = self.members.iter().filter(|(_, member)| is_out(member)).map(|(id, _)| id.clone());
        for id in out.collect::<Vec<_>>() {
            self.remove(&id);
        }
        self.assign_if_due(now);
    }

    /// Takes over what has become of topics.
    pub fn topics_changed(&mut self, now: Instant, catalog: &Catalog) {
        let before = std::mem::take(&mut self.topics);
        self.look_up(catalog);
        if self.topics != before && !self.members.is_empty() {
            self.raise();
            self.assign_if_due(now);
        }
    }

    fn look_up(&mut self, catalog: &Catalog) {
        let names: BTreeSet<&String> = self.members.values().flat_map(|member| &member.names).collect();
        let named = names.iter().filter_map(|name| catalog.named(&TopicName::parse(name).ok()?));
        let patterns: BTreeMap<&str, &Pattern> = self
            .members
            .values()
            .filter_map(|member| Some((member.pattern_text()?, member.pattern.as_ref()?)))
            .collect();
        let matched = |pattern: &Pattern| {
            let own = catalog.topics().filter(|topic| !topic.is_internal());
            own.filter(|topic| pattern.compiled.is_match(topic.name.as_str())).map(|topic| topic.id).collect()
        };
        self.matching = patterns.into_iter().map(|(text, pattern)| (text.to_owned(), matched(pattern))).collect();
        let matching = self.matching.values().flatten().filter_map(|id| catalog.topic(*id));
        let all = named.chain(matching);
        self.topics = all
            .map(|topic| (topic.id, Topic { name: topic.name.as_str().to_owned(), partitions: topic.partitions }))
            .collect();
    }

    fn assign_if_due(&mut self, now: Instant) {
        if self.assignment_epoch == self.epoch {
            return;
        }
        let partitions: usize = self.topics.values().map(|topic| topic.partitions as usize).sum();
        let is_early = self.assigned_at.is_some_and(|at| now < at.plus(ASSIGN_EVERY));
        if is_early && self.members.len() + partitions > SMALL {
            return;
        }
        self.assigned_at = Some(now);
        let wanted = self.wanted();
        let targets = self.assignor().assign(&self.members, &self.topics, &wanted, &self.targets);
        for id in self.members.keys() {
            if targets.get(id) != self.targets.get(id) {
                self.dirty.insert(Key::Target(id.clone()));
            }
        }
        self.targets = targets;
        self.assignment_epoch = self.epoch;
        self.dirty.insert(Key::Assignment);
    }

    /// Of each topic who wants it, as places in the order of members.
    fn wanted(&self) -> assign::Wanted {
        let mut wanted: assign::Wanted = self.topics.keys().map(|id| (*id, BTreeSet::new())).collect();
        let by_name: BTreeMap<&str, TopicId> =
            self.topics.iter().map(|(id, topic)| (topic.name.as_str(), *id)).collect();
        for (at, member) in self.members.values().enumerate() {
            let named = member.names.iter().filter_map(|name| by_name.get(name.as_str()));
            let matching = member.pattern_text().and_then(|text| self.matching.get(text));
            for id in named.chain(matching.into_iter().flatten()) {
                if let Some(who) = wanted.get_mut(id) {
                    who.insert(at);
                }
            }
        }
        wanted
    }

    /// The one that most members want.
    fn assignor(&self) -> Assignor {
        let mut votes = BTreeMap::new();
        for assignor in self.members.values().filter_map(|member| Assignor::of(member.assignor.as_deref()?)) {
            *votes.entry(assignor).or_insert(0) += 1;
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map_or(Assignor::Uniform, |(assignor, _)| assignor)
    }
}

#[cfg(test)]
mod tests;
