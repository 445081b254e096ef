//! What is written down of groups of the consumer protocol, after Kafka's schemas: a record for the group, one for its assignment, and
//! three for each member.

use super::member::{Member, Pattern, State};
use super::{Group, Partitions, Times, each};
use crate::group::bytes::{In, Out, RecordError};
use crate::group::records;
use crate::metadata::Catalog;
use crate::model::TopicId;
use crate::reactor::Instant;
use std::collections::BTreeSet;
use std::time::Duration;
use uuid::Uuid;

const GROUP_KEY: i16 = 3;
const MEMBER_KEY: i16 = 5;
const ASSIGNMENT_KEY: i16 = 6;
const TARGET_KEY: i16 = 7;
const CURRENT_KEY: i16 = 8;
/// The version of all values.
const VALUE: i16 = 0;

/// What a record of a group is about. They are written in this order.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// Its epoch.
    Group,
    /// What a member wants.
    Member(String),
    /// The epoch of the assignment.
    Assignment,
    /// What a member is to read in the end.
    Target(String),
    /// What a member may read now.
    Current(String),
}

impl Key {
    pub(in crate::group) fn put(&self, group: &str, out: Out) -> Out {
        match self {
            Key::Group => out.i16(GROUP_KEY).text(group),
            Key::Member(member) => out.i16(MEMBER_KEY).text(group).text(member),
            Key::Assignment => out.i16(ASSIGNMENT_KEY).text(group),
            Key::Target(member) => out.i16(TARGET_KEY).text(group).text(member),
            Key::Current(member) => out.i16(CURRENT_KEY).text(group).text(member),
        }
    }

    /// What lies behind the version and the group's name.
    pub(in crate::group) fn take(version: i16, input: &mut In<'_>) -> Result<Key, RecordError> {
        Ok(match version {
            GROUP_KEY => Key::Group,
            MEMBER_KEY => Key::Member(input.text()?),
            ASSIGNMENT_KEY => Key::Assignment,
            TARGET_KEY => Key::Target(input.text()?),
            CURRENT_KEY => Key::Current(input.text()?),
            version => return Err(RecordError::UnknownVersion(version)),
        })
    }
}

/// A key and a value, as they are written; without a value, what the key said is taken back.
type RecordBytes = (Vec<u8>, Option<Vec<u8>>);

impl Group {
    /// Whether something is not as it was last written.
    pub fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// What has changed since the last call, to be written in this order.
    pub fn take_changes(&mut self, group: &str) -> Vec<RecordBytes> {
        std::mem::take(&mut self.dirty).iter().map(|key| self.record(group, key)).collect()
    }

    /// All that is known.
    pub fn records(&self, group: &str) -> Vec<RecordBytes> {
        let of = |id: &String| [Key::Member(id.clone()), Key::Target(id.clone()), Key::Current(id.clone())];
        let keys = [Key::Group, Key::Assignment].into_iter().chain(self.members.keys().flat_map(of));
        keys.map(|key| self.record(group, &key)).collect()
    }

    /// What takes everything back that is known of a group without members; that of members that went may not be written yet.
    pub fn farewell(&mut self, group: &str) -> Vec<RecordBytes> {
        let members = self.take_changes(group);
        let rest = [Key::Group, Key::Assignment];
        let rest = rest.map(|key| (records::Key::Consumer(group.to_owned(), key).encode(), None));
        members.into_iter().chain(rest).collect()
    }

    fn record(&self, group: &str, key: &Key) -> RecordBytes {
        let value = match key {
            Key::Group => Some(epoch(self.epoch)),
            Key::Assignment => Some(epoch(self.assignment_epoch)),
            Key::Member(id) => self.members.get(id).map(wants),
            Key::Current(id) => self.members.get(id).map(current),
            Key::Target(id) => {
                let target = self.targets.get(id).filter(|_| self.members.contains_key(id));
                target.map(|target| partitions(Out(Vec::new()).i16(VALUE), target).no_tags().0)
            }
        };
        (records::Key::Consumer(group.to_owned(), key.clone()).encode(), value)
    }

    /// Takes over what was written.
    ///
    /// # Errors
    /// It was not by this program.
    pub fn take(&mut self, key: Key, value: Option<&[u8]>, now: Instant) -> Result<(), RecordError> {
        let Some(value) = value else {
            match key {
                Key::Member(id) => drop(self.members.remove(&id)),
                Key::Target(id) => drop(self.targets.remove(&id)),
                Key::Group => self.epoch = 0,
                Key::Assignment => self.assignment_epoch = 0,
                // It goes with its member.
                Key::Current(_) => {}
            }
            return Ok(());
        };
        let mut input = In(value);
        input.version(VALUE)?;
        match key {
            Key::Group => self.epoch = input.i32()?,
            Key::Assignment => self.assignment_epoch = input.i32()?,
            Key::Member(id) => {
                let known = |text: &str| self.known_pattern(text);
                let wants = take_wants(&mut input, known)?;
                wants.put_in(self.members.entry(id).or_insert_with(|| Member::new(now)));
            }
            Key::Target(id) => drop(self.targets.insert(id, take_partitions(&mut input)?)),
            Key::Current(id) => {
                let member = self.members.get_mut(&id).ok_or(RecordError::Malformed)?;
                take_current(member, &mut input)?;
            }
        }
        input.tags()?;
        input.end()
    }

    /// All was read: members are as if they had just been heard of. Topics may have changed meanwhile.
    pub fn loaded(&mut self, now: Instant, times: &Times, catalog: &Catalog) {
        for member in self.members.values_mut() {
            member.deadline = now.plus(times.session);
            member.revoke_by = (member.state == State::Unrevoked).then(|| now.plus(member.rebalance));
            self.taken.extend(each(&member.assigned).chain(each(&member.revoking)));
        }
        self.look_up(catalog);
        let assigned: BTreeSet<_> = self.targets.values().flat_map(each).collect();
        let there = self.topics.iter().flat_map(|(id, topic)| (0..topic.partitions).map(|partition| (*id, partition)));
        if !self.members.is_empty() && assigned != there.collect() {
            self.raise();
        }
    }

    /// Whether nothing was ever written of it.
    pub fn is_nothing(&self) -> bool {
        self.members.is_empty() && self.epoch == 0 && self.dirty.is_empty()
    }
}

fn epoch(epoch: i32) -> Vec<u8> {
    Out(Vec::new()).i16(VALUE).i32(epoch).no_tags().0
}

fn wants(member: &Member) -> Vec<u8> {
    let out = Out(Vec::new()).i16(VALUE);
    let out = out.compact_nullable(member.instance.as_deref()).compact_nullable(member.rack.as_deref());
    let out = out.compact(&member.client_id).compact(&member.client_host).count(member.names.len());
    let out = member.names.iter().fold(out, |out, name| out.compact(name)).compact_nullable(member.pattern_text());
    let millis = i32::try_from(member.rebalance.as_millis()).unwrap_or(i32::MAX);
    out.i32(millis).compact_nullable(member.assignor.as_deref()).no_tags().0
}

/// What a record says that a member wants.
struct Wants {
    instance: Option<String>,
    rack: Option<String>,
    client_id: String,
    client_host: String,
    names: BTreeSet<String>,
    pattern: Option<Pattern>,
    rebalance: Duration,
    assignor: Option<String>,
}

impl Wants {
    fn put_in(self, member: &mut Member) {
        (member.instance, member.rack, member.assignor) = (self.instance, self.rack, self.assignor);
        (member.client_id, member.client_host) = (self.client_id, self.client_host);
        (member.names, member.pattern, member.rebalance) = (self.names, self.pattern, self.rebalance);
    }
}

/// `known` has patterns that other members have too: each is made once.
fn take_wants(input: &mut In<'_>, known: impl Fn(&str) -> Option<Pattern>) -> Result<Wants, RecordError> {
    let pattern = |text: String| known(&text).map_or_else(|| Pattern::new(&text), Ok);
    Ok(Wants {
        instance: input.compact_nullable()?,
        rack: input.compact_nullable()?,
        client_id: input.compact()?,
        client_host: input.compact()?,
        names: (0..input.count()?).map(|_| input.compact()).collect::<Result<_, _>>()?,
        pattern: input.compact_nullable()?.map(pattern).transpose().map_err(|_| RecordError::Malformed)?,
        rebalance: Duration::from_millis(u64::try_from(input.i32()?).map_err(|_| RecordError::Malformed)?),
        assignor: input.compact_nullable()?,
    })
}

fn current(member: &Member) -> Vec<u8> {
    let state = match member.state {
        State::Stable => 0,
        State::Unrevoked => 1,
        State::Unreleased => 2,
    };
    let out = Out(Vec::new()).i16(VALUE).i32(member.epoch).i32(member.previous_epoch).i8(state);
    partitions(partitions(out, &member.assigned), &member.revoking).no_tags().0
}

fn take_current(member: &mut Member, input: &mut In<'_>) -> Result<(), RecordError> {
    (member.epoch, member.previous_epoch) = (input.i32()?, input.i32()?);
    member.state = match input.i8()? {
        0 => State::Stable,
        1 => State::Unrevoked,
        2 => State::Unreleased,
        _ => return Err(RecordError::Malformed),
    };
    (member.assigned, member.revoking) = (take_partitions(input)?, take_partitions(input)?);
    Ok(())
}

fn partitions(out: Out, partitions: &Partitions) -> Out {
    let put = |out: Out, (topic, of): (&TopicId, &BTreeSet<u32>)| {
        let out = out.uuid(topic.0.as_u128()).count(of.len());
        of.iter().fold(out, |out, partition| out.i32(*partition as i32)).no_tags()
    };
    partitions.iter().fold(out.count(partitions.len()), put)
}

fn take_partitions(input: &mut In<'_>) -> Result<Partitions, RecordError> {
    let mut all = Partitions::new();
    for _ in 0..input.count()? {
        let topic = TopicId(Uuid::from_u128(input.uuid()?));
        let of = (0..input.count()?).map(|_| u32::try_from(input.i32()?).map_err(|_| RecordError::Malformed));
        let of = of.collect::<Result<_, _>>()?;
        input.tags()?;
        all.insert(topic, of);
    }
    Ok(all)
}
