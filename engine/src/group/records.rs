//! What is written down of groups, in the bytes of Kafka's `__consumer_offsets`, so that its tools can read them: keys and
//! values are big-endian, each begins with the version of its form, a value of none takes back what its key said.

use super::bytes::{In, Out};
use super::classic::{Group, Join, Member};
use super::consumer;
use crate::model::{Offset, Timestamp};
use crate::reactor::Instant;
use std::collections::BTreeMap;
use std::time::Duration;

pub use super::bytes::RecordError;

/// How many partitions the topic gets that groups are written to. They stay as many: by them is known which shard coordinates
/// a group.
pub const PARTITIONS: u32 = 50;
/// Bytes of a text that is kept with an offset, as Kafka's `offset.metadata.max.bytes`.
pub const METADATA_BYTES_MAX: usize = 4096;

const OFFSET_KEY: i16 = 1;
const GROUP_KEY: i16 = 2;
const OFFSET_VALUE: i16 = 3;
const GROUP_VALUE: i16 = 3;

/// Which partition of the topic a group is written to: Kafka's choice, so that a log means the same to both.
pub fn partition_of(group: &str, partitions: u32) -> u32 {
    let hash = group.encode_utf16().fold(0i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    (hash as u32 & i32::MAX as u32) % partitions.max(1)
}

/// How far a group has come in a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The next record that it will read.
    pub offset: Offset,
    /// The leader epoch of the last one that it has read; -1 if it did not say.
    pub leader_epoch: i32,
    /// A text of its own.
    pub metadata: String,
    /// When it said so.
    pub at: Timestamp,
}

impl Committed {
    /// About what it takes of memory with its place, in bytes.
    pub fn bytes(&self, place: &Place) -> usize {
        size_of::<Committed>() + size_of::<Place>() + 64 + self.metadata.len() + place.topic.len()
    }
}

/// A partition as clients name it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
}

/// What a record is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// How far a group has come in a partition.
    Offset(String, Place),
    /// A group's members.
    Group(String),
    /// Something of a group of the consumer protocol.
    Consumer(String, consumer::Key),
}

impl Key {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let out = Out(Vec::new());
        let out = match self {
            Key::Offset(group, place) => out.i16(OFFSET_KEY).text(group).text(&place.topic).i32(place.partition as i32),
            Key::Group(group) => out.i16(GROUP_KEY).text(group),
            Key::Consumer(group, key) => key.put(group, out),
        };
        out.0
    }

    /// What the bytes of a key say.
    ///
    /// # Errors
    /// They are no key of this program's.
    pub fn decode(bytes: &[u8]) -> Result<Key, RecordError> {
        let mut input = In(bytes);
        let key = match input.i16()? {
            OFFSET_KEY => {
                let (group, topic) = (input.text()?, input.text()?);
                let partition = u32::try_from(input.i32()?).map_err(|_| RecordError::Malformed)?;
                Key::Offset(group, Place { topic, partition })
            }
            GROUP_KEY => Key::Group(input.text()?),
            version => {
                let group = input.text()?;
                Key::Consumer(group, consumer::Key::take(version, &mut input)?)
            }
        };
        input.end().map(|()| key)
    }
}

impl Committed {
    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let out = Out(Vec::new()).i16(OFFSET_VALUE).i64(self.offset.0).i32(self.leader_epoch);
        out.text(&self.metadata).i64(self.at.0).0
    }

    /// What the bytes of a value say.
    ///
    /// # Errors
    /// They are no value of this program's.
    pub fn decode(bytes: &[u8]) -> Result<Committed, RecordError> {
        let mut input = In(bytes);
        input.version(OFFSET_VALUE)?;
        let (offset, leader_epoch) = (Offset(input.i64()?), input.i32()?);
        let (metadata, at) = (input.text()?, Timestamp(input.i64()?));
        input.end().map(|()| Committed { offset, leader_epoch, metadata, at })
    }
}

/// The bytes of a group's value.
pub fn encode_group(group: &Group, now: Timestamp) -> Vec<u8> {
    let out = Out(Vec::new()).i16(GROUP_VALUE).text(group.protocol_type().unwrap_or_default());
    let out = out.i32(group.generation()).nullable(group.protocol()).nullable(group.leader()).i64(now.0);
    let protocol = group.protocol().unwrap_or_default();
    let put = |out: Out, (id, member): (&String, &Member)| {
        let out = out.text(id).nullable(member.instance.as_deref()).text(&member.client_id).text(&member.client_host);
        let out = out.i32(millis(member.rebalance)).i32(millis(member.session));
        out.bytes(member.metadata(protocol)).bytes(&member.assignment)
    };
    group.members().iter().fold(out.i32(group.members().len() as i32), put).0
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// The group of a value. Its members are as if they had just been heard of. Also when it was written.
///
/// # Errors
/// They are no value of this program's.
pub fn decode_group(bytes: &[u8], now: Instant) -> Result<(Group, Timestamp), RecordError> {
    let mut input = In(bytes);
    input.version(GROUP_VALUE)?;
    let protocol_type = Some(input.text()?).filter(|protocol_type| !protocol_type.is_empty());
    let (generation, protocol, leader) = (input.i32()?, input.nullable()?, input.nullable()?);
    let at = Timestamp(input.i64()?);
    let mut members = BTreeMap::new();
    for _ in 0..input.i32()? {
        let join = Join {
            member: input.text()?,
            instance: input.nullable()?,
            client_id: input.text()?,
            client_host: input.text()?,
            rebalance: time(input.i32()?)?,
            session: time(input.i32()?)?,
            protocol_type: protocol_type.clone().unwrap_or_default(),
            protocols: vec![(protocol.clone().unwrap_or_default(), input.bytes()?)],
            needs_id: false,
        };
        let member = Member::restored(&join, input.bytes()?, now);
        members.insert(join.member, member);
    }
    input.end()?;
    Ok((Group::restored(generation, protocol_type, protocol, leader, members), at))
}

fn time(millis: i32) -> Result<Duration, RecordError> {
    u64::try_from(millis).map(Duration::from_millis).map_err(|_| RecordError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::super::classic::Said;
    use super::*;
    use crate::log::testing::golden;

    fn place() -> Place {
        Place { topic: "clicks".to_owned(), partition: 7 }
    }

    /// A group with two members, as it stands when its assignment is written.
    fn group() -> Group {
        let (mut group, now) = (Group::default(), Instant::from_nanos(1));
        for (waiter, (id, instance)) in [("one", None), ("two", Some("second"))].into_iter().enumerate() {
            let join = Join {
                member: String::new(),
                instance: instance.map(str::to_owned),
                client_id: "client".to_owned(),
                client_host: "/127.0.0.1".to_owned(),
                session: Duration::from_secs(45),
                rebalance: Duration::from_secs(300),
                protocol_type: "consumer".to_owned(),
                protocols: vec![("range".to_owned(), vec![1, 2, 3])],
                needs_id: false,
            };
            group.join(now, &join, id.to_owned(), Duration::from_secs(3), waiter as u64);
        }
        let later = now.plus(Duration::from_secs(3));
        group.tick(later);
        group.tick(later.plus(Duration::from_secs(3)));
        let said = Said { member: "one", instance: None, generation: 1 };
        group.sync(later, &said, (None, None), vec![("one".to_owned(), vec![9]), ("two".to_owned(), vec![8, 7])], 5);
        group
    }

    #[test]
    fn records_are_written_as_they_always_were() {
        let offset = Key::Offset("readers".to_owned(), place());
        let committed =
            Committed { offset: Offset(4711), leader_epoch: 3, metadata: "half".to_owned(), at: Timestamp(1_700_000) };
        let (key, group) = (Key::Group("readers".to_owned()), group());
        let written = encode_group(&group, Timestamp(1_700_001));
        let all = [offset.encode(), committed.encode(), key.encode(), written.clone()];
        let lengths: Vec<u8> = all.iter().flat_map(|bytes| (bytes.len() as u32).to_be_bytes()).collect();
        golden("groups-v1.bin", &[lengths, all.concat()].concat());
        assert_eq!(Key::decode(&all[0]), Ok(offset));
        assert_eq!(Committed::decode(&all[1]), Ok(committed));
        assert_eq!(Key::decode(&all[2]), Ok(key));
        let (read, at) = decode_group(&written, Instant::from_nanos(1)).expect("it is one");
        assert_eq!(
            (read.generation(), read.leader(), read.protocol(), at),
            (1, Some("one"), Some("range"), Timestamp(1_700_001))
        );
        assert_eq!(encode_group(&read, at), written);
    }

    #[test]
    fn what_is_cut_short_or_goes_on_is_refused() {
        let keys = [Key::Offset("readers".to_owned(), place()).encode(), Key::Group("readers".to_owned()).encode()];
        for key in keys {
            for cut in 0..key.len() {
                assert!(Key::decode(&key[..cut]).is_err());
            }
            assert!(Key::decode(&[&key[..], &[0]].concat()).is_err());
        }
        let value = encode_group(&group(), Timestamp(5));
        for cut in 0..value.len() {
            assert!(decode_group(&value[..cut], Instant::from_nanos(1)).is_err());
        }
        assert_eq!(Key::decode(&[0, 4, 0, 0]), Err(RecordError::UnknownVersion(4)));
    }

    /// As Java's `String.hashCode` has it.
    #[test]
    fn a_group_has_the_partition_that_it_has_elsewhere() {
        assert_eq!(partition_of("", PARTITIONS), 0);
        assert_eq!(partition_of("a", PARTITIONS), 97 % PARTITIONS);
        assert_eq!(partition_of("hello", PARTITIONS), 99_162_322 % PARTITIONS);
        assert_eq!(partition_of("consumer-group-1", PARTITIONS), partition_of("consumer-group-1", PARTITIONS));
        assert!(partition_of("ein sehr langer Name, der mehrmals über den Rand läuft", PARTITIONS) < PARTITIONS);
    }
}
