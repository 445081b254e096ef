//! Produce: batches to append, a section for each partition.

use crate::ErrorCode;
use crate::api::Api;
use crate::codec::{Malformed, Reader, Sink, Writer};
use crate::header::Request;

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Nothing: there is no response.
    None,
    /// The leader has it.
    Leader,
    /// All replicas in sync have it.
    All,
}

impl Acks {
    /// What a number on the wire means, if anything.
    pub fn of_code(code: i16) -> Option<Acks> {
        match code {
            0 => Some(Acks::None),
            1 => Some(Acks::Leader),
            -1 => Some(Acks::All),
            _ => None,
        }
    }
}

/// A request of any version.
#[derive(Debug, Clone, Copy)]
pub struct Produce<'a> {
    /// The transaction that it is a part of.
    pub transactional_id: Option<&'a str>,
    /// As it came; see [`Acks::of_code`].
    pub acks: i16,
    topics: Reader<'a>,
    topic_count: usize,
    partition_count: usize,
}

/// The batches for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// Of which topic.
    pub topic: &'a str,
    /// It is the first of its topic in the request, which has so many of it.
    pub first_of: Option<usize>,
    /// Which partition.
    pub partition: i32,
    /// As they came; nothing was looked at.
    pub records: &'a [u8],
}

impl<'a> Produce<'a> {
    /// Parses a request whole, so that its sections can be taken without an error.
    ///
    /// # Errors
    /// If a length is more than there is, or bytes are left.
    pub fn parse(request: &Request<'a>) -> Result<Produce<'a>, Malformed> {
        let mut reader = request.reader();
        let transactional_id = if request.version >= 3 { reader.nullable_text()? } else { None };
        let acks = reader.i16()?;
        // The time within which replicas must have it.
        reader.i32()?;
        let topic_count = reader.count()?.ok_or(Malformed::Null)?;
        let topics = reader;
        let mut partition_count = 0;
        for _ in 0..topic_count {
            reader.text()?;
            let partitions = reader.count()?.ok_or(Malformed::Null)?;
            for _ in 0..partitions {
                take_partition(&mut reader)?;
            }
            reader.tags()?;
            partition_count += partitions;
        }
        reader.tags()?;
        reader.end()?;
        Ok(Produce { transactional_id, acks, topics, topic_count, partition_count })
    }

    /// Topics in it.
    pub fn topics(&self) -> usize {
        self.topic_count
    }

    /// Sections in it.
    pub fn partitions(&self) -> usize {
        self.partition_count
    }

    /// What is to be appended where, in the order of the request. Topics without a partition are passed over.
    pub fn sections(&self) -> Sections<'a> {
        Sections { reader: self.topics, topics: self.topic_count, topic: "", partitions: 0, left: 0 }
    }
}

fn take_partition<'a>(reader: &mut Reader<'a>) -> Result<(i32, &'a [u8]), Malformed> {
    let partition = reader.i32()?;
    let records = reader.bytes()?.unwrap_or_default();
    reader.tags()?;
    Ok((partition, records))
}

/// See [`Produce::sections`].
#[derive(Debug, Clone)]
pub struct Sections<'a> {
    reader: Reader<'a>,
    /// Topics that have not begun.
    topics: usize,
    topic: &'a str,
    /// Partitions of the topic that has begun, and how many of them are left.
    partitions: usize,
    left: usize,
}

impl<'a> Sections<'a> {
    fn take(&mut self) -> Result<Option<Section<'a>>, Malformed> {
        while self.left == 0 {
            if self.topics == 0 {
                return Ok(None);
            }
            self.topics -= 1;
            self.topic = self.reader.text()?;
            self.partitions = self.reader.count()?.unwrap_or(0);
            self.left = self.partitions;
            if self.left == 0 {
                self.reader.tags()?;
            }
        }
        let first_of = (self.left == self.partitions).then_some(self.partitions);
        let (partition, records) = take_partition(&mut self.reader)?;
        self.left -= 1;
        if self.left == 0 {
            self.reader.tags()?;
        }
        Ok(Some(Section { topic: self.topic, first_of, partition, records }))
    }
}

impl<'a> Iterator for Sections<'a> {
    type Item = Section<'a>;

    fn next(&mut self) -> Option<Section<'a>> {
        // The request was parsed whole before.
        self.take().ok().flatten()
    }
}

/// What became of a section.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Produced<'a> {
    /// Which partition.
    pub partition: i32,
    /// Whether it is in the log.
    pub error: ErrorCode,
    /// The offset of the first record, or -1.
    pub base_offset: i64,
    /// The time of its records where the topic has them get it here, in milliseconds since 1970-01-01 UTC; else -1.
    pub timestamp: i64,
    /// The first offset of the log, or -1.
    pub first_offset: i64,
    /// For people.
    pub message: Option<&'a str>,
}

/// Puts the body of a response, piece by piece: this, then for each topic [`put_topic`] and as many [`put_partition`] as it
/// has, each topic's end, and [`put_end`].
pub fn put_begin(version: i16, topics: usize, out: &mut impl Sink) {
    writer(version, out).count(Some(topics));
}

/// The beginning of a topic.
pub fn put_topic(version: i16, topic: &str, partitions: usize, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    writer.text(topic);
    writer.count(Some(partitions));
}

/// A partition of it.
pub fn put_partition(version: i16, produced: &Produced<'_>, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    writer.i32(produced.partition);
    writer.i16(produced.error.code());
    writer.i64(produced.base_offset);
    if version >= 2 {
        writer.i64(produced.timestamp);
    }
    if version >= 5 {
        writer.i64(produced.first_offset);
    }
    if version >= 8 {
        writer.count(Some(0));
        writer.nullable_text(produced.message);
    }
    writer.tags();
}

/// The end of a topic.
pub fn put_topic_end(version: i16, out: &mut impl Sink) {
    writer(version, out).tags();
}

/// The end.
pub fn put_end(version: i16, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    if version >= 1 {
        writer.i32(0);
    }
    writer.tags();
}

fn writer<S: Sink>(version: i16, out: &mut S) -> Writer<'_, S> {
    Writer::new(out, Api::Produce.is_flexible(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header;
    use crate::testing::{cut_short, framed};
    use bytes::Bytes;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName, TransactionalId};
    use kafka_protocol::protocol::{Decodable, StrBytes};
    use proptest::prelude::*;

    type Topics = Vec<(String, Vec<(i32, Vec<u8>)>)>;

    fn topics() -> impl Strategy<Value = Topics> {
        let records = prop::collection::vec(any::<u8>(), 0..20);
        let partitions = prop::collection::vec((any::<i32>(), records), 0..4);
        prop::collection::vec(("[a-z]{1,9}", partitions), 0..4)
    }

    fn message(version: i16, topics: &Topics, transaction: Option<&str>) -> ProduceRequest {
        let partition = |(index, records): &(i32, Vec<u8>)| {
            let records = Some(Bytes::copy_from_slice(records));
            PartitionProduceData::default().with_index(*index).with_records(records)
        };
        let topic = |(name, partitions): &(String, Vec<_>)| {
            let name = TopicName(StrBytes::from_string(name.clone()));
            TopicProduceData::default().with_name(name).with_partition_data(partitions.iter().map(partition).collect())
        };
        let transaction = transaction.filter(|_| version >= 3);
        let transaction = transaction.map(|id| TransactionalId(StrBytes::from_string(id.to_owned())));
        let message =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_transactional_id(transaction);
        message.with_topic_data(topics.iter().map(topic).collect())
    }

    proptest! {
        #[test]
        fn requests_of_others_are_understood(version in 3i16..=11, topics in topics(), transaction: Option<u8>) {
            let transaction = transaction.map(|id| id.to_string());
            let frame = framed(Api::Produce, version, &message(version, &topics, transaction.as_deref()));
            prop_assert_eq!(header::frame_bytes(&frame), Some(frame.len()));
            let request = Request::parse(Api::Produce, &frame).unwrap();
            let produce = Produce::parse(&request).unwrap();
            prop_assert_eq!((request.correlation, request.client_id), (7, Some("someone")));
            prop_assert_eq!(produce.transactional_id, transaction.as_deref());
            prop_assert_eq!((Acks::of_code(produce.acks), produce.topics()), (Some(Acks::All), topics.len()));
            let all = topics.iter().flat_map(|(name, partitions)| {
                let section = |(at, (partition, records)): (usize, &'_ (i32, Vec<u8>))| {
                    let first_of = (at == 0).then_some(partitions.len());
                    (name.clone(), first_of, *partition, records.clone())
                };
                partitions.iter().enumerate().map(section).collect::<Vec<_>>()
            });
            let expected: Vec<_> = all.collect();
            let own = |section: Section<'_>| {
                (section.topic.to_owned(), section.first_of, section.partition, section.records.to_vec())
            };
            prop_assert_eq!(produce.sections().map(own).collect::<Vec<_>>(), expected);
            prop_assert_eq!(produce.sections().count(), produce.partitions());
        }

        #[test]
        fn no_bytes_make_it_panic(version in 0i16..=11, topics in topics(), cut: prop::sample::Index, byte: u8) {
            let mut frame = framed(Api::Produce, version.max(3), &message(version.max(3), &topics, None));
            frame[6..8].copy_from_slice(&version.to_be_bytes());
            cut_short(&mut frame, cut, byte);
            let request = Request::parse(Api::Produce, &frame);
            let _ = request.and_then(|request| Produce::parse(&request)).map(|produce| produce.sections().count());
        }

        #[test]
        fn others_understand_responses(version in 3i16..=11, offsets in prop::collection::vec(any::<i64>(), 1..5)) {
            let mut body = Vec::new();
            let message = (version >= 8).then_some("a reason");
            put_begin(version, 1, &mut body);
            put_topic(version, "clicks", offsets.len(), &mut body);
            for (partition, offset) in (0..).zip(&offsets) {
                let error = ErrorCode::InvalidRecord;
                let produced = Produced { partition, error, base_offset: *offset, timestamp: 7, first_offset: 3, message };
                put_partition(version, &produced, &mut body);
            }
            put_topic_end(version, &mut body);
            put_end(version, &mut body);
            let mut rest = &body[..];
            let response = ProduceResponse::decode(&mut rest, version).unwrap();
            prop_assert!(rest.is_empty());
            let [topic] = response.responses.as_slice() else { panic!("{response:?}") };
            prop_assert_eq!(topic.name.as_str(), "clicks");
            for ((partition, offset), found) in (0..).zip(&offsets).zip(&topic.partition_responses) {
                prop_assert_eq!((found.index, found.error_code, found.base_offset), (partition, 87, *offset));
                prop_assert_eq!((found.log_append_time_ms, found.error_message.as_deref()), (7, message));
                prop_assert_eq!(found.log_start_offset, if version >= 5 { 3 } else { -1 });
            }
        }
    }
}
