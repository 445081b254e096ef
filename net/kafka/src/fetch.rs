//! Fetch: from which offsets to read, and the batches that were found there.

use crate::ErrorCode;
use crate::api::Api;
use crate::codec::{Malformed, Reader, Sink, Writer};
use crate::header::Request;
use uuid::Uuid;

/// A request of any version.
#[derive(Debug, Clone, Copy)]
pub struct Fetch<'a> {
    /// How long to wait for `bytes_min`, in milliseconds.
    pub wait_ms: i32,
    /// So many bytes are worth an answer.
    pub bytes_min: i32,
    /// Bytes of batches in the response; the first batch may go over it.
    pub bytes_max: i32,
    /// The session that it goes on with; 0 for none.
    pub session: i32,
    version: i16,
    topics: Reader<'a>,
    topic_count: usize,
    partition_count: usize,
}

/// How a request calls a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// By its name, before version 13.
    Name(&'a str),
    /// By its id.
    Id(Uuid),
}

/// What to read of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Of which topic.
    pub topic: Topic<'a>,
    /// It is the first of its topic in the request, which has so many of it.
    pub first_of: Option<usize>,
    /// Which partition.
    pub partition: i32,
    /// From where.
    pub offset: i64,
    /// At most so many bytes of it.
    pub bytes_max: i32,
}

impl<'a> Fetch<'a> {
    /// Parses a request whole, so that its parts can be taken without an error.
    ///
    /// # Errors
    /// If a length is more than there is, or bytes are left.
    pub fn parse(request: &Request<'a>) -> Result<Fetch<'a>, Malformed> {
        let (version, mut reader) = (request.version, request.reader());
        // A replica's number: followers do not read so here.
        reader.i32()?;
        let (wait_ms, bytes_min, bytes_max) = (reader.i32()?, reader.i32()?, reader.i32()?);
        // Nothing is in the log that a transaction could take back: both isolation levels are one.
        reader.i8()?;
        let session = if version >= 7 { reader.i32()? } else { 0 };
        if version >= 7 {
            reader.i32()?;
        }
        let topic_count = reader.count()?.ok_or(Malformed::Null)?;
        let topics = reader;
        let mut partition_count = 0;
        for _ in 0..topic_count {
            take_topic(&mut reader, version)?;
            let partitions = reader.count()?.ok_or(Malformed::Null)?;
            for _ in 0..partitions {
                take_partition(&mut reader, version)?;
            }
            reader.tags()?;
            partition_count += partitions;
        }
        if version >= 7 {
            skip_forgotten(&mut reader, version)?;
        }
        if version >= 11 {
            // The client's rack.
            reader.text()?;
        }
        reader.tags()?;
        reader.end()?;
        Ok(Fetch { wait_ms, bytes_min, bytes_max, session, version, topics, topic_count, partition_count })
    }

    /// Topics in it.
    pub fn topics(&self) -> usize {
        self.topic_count
    }

    /// Partitions in it.
    pub fn partitions(&self) -> usize {
        self.partition_count
    }

    /// What is to be read where, in the order of the request. Topics without a partition are passed over.
    pub fn parts(&self) -> Parts<'a> {
        Parts {
            reader: self.topics,
            version: self.version,
            topics: self.topic_count,
            topic: Topic::Name(""),
            partitions: 0,
            left: 0,
        }
    }
}

fn take_topic<'a>(reader: &mut Reader<'a>, version: i16) -> Result<Topic<'a>, Malformed> {
    if version >= 13 { reader.uuid().map(Topic::Id) } else { reader.text().map(Topic::Name) }
}

fn take_partition(reader: &mut Reader<'_>, version: i16) -> Result<(i32, i64, i32), Malformed> {
    let partition = reader.i32()?;
    if version >= 9 {
        // The leader epoch that the client knows.
        reader.i32()?;
    }
    let offset = reader.i64()?;
    if version >= 12 {
        // The epoch of what it read last.
        reader.i32()?;
    }
    if version >= 5 {
        // A follower's first offset.
        reader.i64()?;
    }
    let bytes_max = reader.i32()?;
    reader.tags()?;
    Ok((partition, offset, bytes_max))
}

/// What a session is not to read any more: there are no sessions, so that every request says all.
fn skip_forgotten(reader: &mut Reader<'_>, version: i16) -> Result<(), Malformed> {
    for _ in 0..reader.count()?.ok_or(Malformed::Null)? {
        take_topic(reader, version)?;
        for _ in 0..reader.count()?.ok_or(Malformed::Null)? {
            reader.i32()?;
        }
        reader.tags()?;
    }
    Ok(())
}

/// See [`Fetch::parts`].
#[derive(Debug, Clone)]
pub struct Parts<'a> {
    reader: Reader<'a>,
    version: i16,
    /// Topics that have not begun.
    topics: usize,
    topic: Topic<'a>,
    /// Partitions of the topic that has begun, and how many of them are left.
    partitions: usize,
    left: usize,
}

impl<'a> Parts<'a> {
    fn take(&mut self) -> Result<Option<Part<'a>>, Malformed> {
        while self.left == 0 {
            if self.topics == 0 {
                return Ok(None);
            }
            self.topics -= 1;
            self.topic = take_topic(&mut self.reader, self.version)?;
            self.partitions = self.reader.count()?.unwrap_or(0);
            self.left = self.partitions;
            if self.left == 0 {
                self.reader.tags()?;
            }
        }
        let first_of = (self.left == self.partitions).then_some(self.partitions);
        let (partition, offset, bytes_max) = take_partition(&mut self.reader, self.version)?;
        self.left -= 1;
        if self.left == 0 {
            self.reader.tags()?;
        }
        Ok(Some(Part { topic: self.topic, first_of, partition, offset, bytes_max }))
    }
}

impl<'a> Iterator for Parts<'a> {
    type Item = Part<'a>;

    fn next(&mut self) -> Option<Part<'a>> {
        // The request was parsed whole before.
        self.take().ok().flatten()
    }
}

/// What was found of one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Which partition.
    pub partition: i32,
    /// Whether it could be read.
    pub error: ErrorCode,
    /// Records below this are shown to readers; -1 if it is not known.
    pub high_watermark: i64,
    /// The first offset of the log; -1 if it is not known.
    pub first_offset: i64,
    /// Bytes of batches, which the caller puts between [`put_partition`] and [`put_partition_end`].
    pub records_bytes: usize,
}

/// Puts the body of a response, piece by piece: this, then for each topic [`put_topic`] and its partitions, its end by
/// [`put_topic_end`], and [`put_end`].
pub fn put_begin(version: i16, error: ErrorCode, topics: usize, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    writer.i32(0);
    if version >= 7 {
        writer.i16(error.code());
        // No session: the next request is to say all again.
        writer.i32(0);
    }
    writer.count(Some(topics));
}

/// The beginning of a topic.
pub fn put_topic(version: i16, topic: Topic<'_>, partitions: usize, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    match topic {
        Topic::Name(name) => writer.text(name),
        Topic::Id(id) => writer.uuid(id),
    }
    writer.count(Some(partitions));
}

/// A partition of it, up to its batches.
pub fn put_partition(version: i16, found: &Found, out: &mut impl Sink) {
    let mut writer = writer(version, out);
    writer.i32(found.partition);
    writer.i16(found.error.code());
    writer.i64(found.high_watermark);
    // Nothing is undecided: what is stable is what is shown.
    writer.i64(found.high_watermark);
    if version >= 5 {
        writer.i64(found.first_offset);
    }
    // Transactions that were taken back.
    writer.count(None);
    if version >= 11 {
        // No other replica is to be preferred.
        writer.i32(-1);
    }
    writer.bytes_length(found.records_bytes);
}

/// The end of a partition, behind its batches.
pub fn put_partition_end(version: i16, out: &mut impl Sink) {
    writer(version, out).tags();
}

/// The end of a topic.
pub fn put_topic_end(version: i16, out: &mut impl Sink) {
    writer(version, out).tags();
}

/// The end.
pub fn put_end(version: i16, out: &mut impl Sink) {
    writer(version, out).tags();
}

fn writer<S: Sink>(version: i16, out: &mut S) -> Writer<'_, S> {
    Writer::new(out, Api::Fetch.is_flexible(version))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{cut_short, framed};
    use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
    use kafka_protocol::messages::{FetchRequest, FetchResponse, TopicName};
    use kafka_protocol::protocol::{Decodable, StrBytes};
    use proptest::prelude::*;

    type Topics = Vec<(u32, Vec<(i32, i64, i32)>)>;

    fn topics() -> impl Strategy<Value = Topics> {
        prop::collection::vec((any::<u32>(), prop::collection::vec(any::<(i32, i64, i32)>(), 0..4)), 0..4)
    }

    fn name(number: u32) -> TopicName {
        TopicName(StrBytes::from_string(format!("topic-{number}")))
    }

    fn id(number: u32) -> Uuid {
        Uuid::from_u128(number.into())
    }

    fn message(version: i16, topics: &Topics) -> FetchRequest {
        let partition = |(index, offset, bytes): &(i32, i64, i32)| {
            FetchPartition::default().with_partition(*index).with_fetch_offset(*offset).with_partition_max_bytes(*bytes)
        };
        let topic = |(number, partitions): &(u32, Vec<_>)| {
            let topic = FetchTopic::default().with_partitions(partitions.iter().map(partition).collect());
            if version >= 13 { topic.with_topic_id(id(*number)) } else { topic.with_topic(name(*number)) }
        };
        let message = FetchRequest::default().with_max_wait_ms(500).with_min_bytes(1).with_max_bytes(1 << 20);
        let message = message.with_topics(topics.iter().map(topic).collect());
        if version < 7 {
            return message;
        }
        let forgotten = ForgottenTopic::default().with_partitions(vec![4, 5]);
        let forgotten = if version >= 13 { forgotten.with_topic_id(id(9)) } else { forgotten.with_topic(name(9)) };
        message.with_session_id(77).with_forgotten_topics_data(vec![forgotten])
    }

    proptest! {
        #[test]
        fn requests_of_others_are_understood(version in 4i16..=13, topics in topics()) {
            let frame = framed(Api::Fetch, version, &message(version, &topics));
            let request = Request::parse(Api::Fetch, &frame).unwrap();
            let fetch = Fetch::parse(&request).unwrap();
            prop_assert_eq!((fetch.wait_ms, fetch.bytes_min, fetch.bytes_max), (500, 1, 1 << 20));
            prop_assert_eq!((fetch.session, fetch.topics()), (if version >= 7 { 77 } else { 0 }, topics.len()));
            let mut parts = fetch.parts();
            for (number, partitions) in &topics {
                for (at, (partition, offset, bytes_max)) in partitions.iter().enumerate() {
                    let part = parts.next().unwrap();
                    let name = format!("topic-{number}");
                    let topic = if version >= 13 { Topic::Id(id(*number)) } else { Topic::Name(&name) };
                    let first_of = (at == 0).then_some(partitions.len());
                    let expected =
                        Part { topic, first_of, partition: *partition, offset: *offset, bytes_max: *bytes_max };
                    prop_assert_eq!(part, expected);
                }
            }
            prop_assert_eq!((parts.next(), fetch.parts().count()), (None, fetch.partitions()));
        }

        #[test]
        fn no_bytes_make_it_panic(version in 4i16..=13, topics in topics(), cut: prop::sample::Index, byte: u8) {
            let mut frame = framed(Api::Fetch, version, &message(version, &topics));
            cut_short(&mut frame, cut, byte);
            let request = Request::parse(Api::Fetch, &frame);
            let _ = request.and_then(|request| Fetch::parse(&request)).map(|fetch| fetch.parts().count());
        }

        #[test]
        fn others_understand_responses(version in 4i16..=13, lengths in prop::collection::vec(0usize..200, 1..4)) {
            let mut body = Vec::new();
            put_begin(version, ErrorCode::None, 1, &mut body);
            let topic = if version >= 13 { Topic::Id(id(5)) } else { Topic::Name("topic-5") };
            put_topic(version, topic, lengths.len(), &mut body);
            for (partition, records_bytes) in (0..).zip(lengths.iter().copied()) {
                let (error, high_watermark, first_offset) = (ErrorCode::None, 90, 3);
                put_partition(version, &Found { partition, error, high_watermark, first_offset, records_bytes }, &mut body);
                body.resize(body.len() + records_bytes, 0xab);
                put_partition_end(version, &mut body);
            }
            put_topic_end(version, &mut body);
            put_end(version, &mut body);
            let mut rest = &body[..];
            let response = FetchResponse::decode(&mut rest, version).unwrap();
            prop_assert!(rest.is_empty());
            let [topic] = response.responses.as_slice() else { panic!("{response:?}") };
            let is_right = if version >= 13 { topic.topic_id == id(5) } else { topic.topic == name(5) };
            prop_assert!(is_right);
            for ((partition, length), found) in (0..).zip(&lengths).zip(&topic.partitions) {
                prop_assert_eq!((found.partition_index, found.error_code, found.high_watermark), (partition, 0, 90));
                prop_assert_eq!((found.last_stable_offset, found.preferred_read_replica.0), (90, -1));
                prop_assert_eq!(found.log_start_offset, if version >= 5 { 3 } else { -1 });
                prop_assert_eq!(found.records.as_ref().map(|records| records.len()), Some(*length));
            }
        }
    }
}
