//! Records of the metadata log, byte by byte. They are the values of ordinary record batches, whose checksum covers them.
//!
//! Little-endian. Every record begins with its kind (u8) and the version of that kind (u8). `docs/formats.md` has the
//! table; the golden bytes are in the tests below.

use super::catalog::TopicInfo;
use super::names::{NameError, TopicName};
use super::settings::{SettingError, TopicSettings};
use crate::model::TopicId;
use uuid::Uuid;

/// One thing that happened to the catalog, or a piece of a snapshot of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MetadataRecord {
    /// A topic came to be.
    TopicCreated(TopicInfo),
    /// A topic is gone, with all its bytes.
    TopicDeleted {
        /// Which.
        id: TopicId,
    },
    /// A topic's settings are now these.
    SettingsChanged {
        /// Which topic.
        id: TopicId,
        /// All of its settings.
        settings: TopicSettings,
    },
    /// A topic has more partitions.
    PartitionsAdded {
        /// Which topic.
        id: TopicId,
        /// How many it has now.
        partitions: u32,
    },
    /// A snapshot begins; as many [`MetadataRecord::SnapshotTopic`] follow, then [`MetadataRecord::SnapshotEnd`].
    SnapshotBegin {
        /// How many topics it has.
        topics: u32,
        /// Where the next topic created starts.
        next_placement: u32,
    },
    /// A topic as it is.
    SnapshotTopic(TopicInfo),
    /// The snapshot is whole.
    SnapshotEnd,
}

/// A record that cannot be read: the log is damaged, or a newer program wrote it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It ends in the midst of a field.
    #[error("a metadata record ends too early")]
    Short,
    /// There are bytes behind its last field.
    #[error("a metadata record of kind {kind} has {bytes} bytes too many")]
    Trailing {
        /// Its kind.
        kind: u8,
        /// How many.
        bytes: usize,
    },
    /// A kind that this program does not know.
    #[error("metadata record kind {kind} is unknown to this program; a newer corelog wrote it, use that one")]
    UnknownKind {
        /// The kind.
        kind: u8,
    },
    /// A version that this program does not know.
    #[error(
        "metadata record kind {kind} has version {version}, this program knows {VERSION}; a newer corelog wrote it, use that one"
    )]
    UnknownVersion {
        /// The kind.
        kind: u8,
        /// Its version.
        version: u8,
    },
    /// A text is not UTF-8.
    #[error("a metadata record has a text that is not UTF-8")]
    Text,
    /// A name that no topic can have.
    #[error("a metadata record has an impossible name: {0}")]
    Name(#[from] NameError),
    /// A setting that no topic can have.
    #[error("a metadata record has an impossible setting: {0}")]
    Setting(#[from] SettingError),
}

/// The version of every kind so far.
const VERSION: u8 = 1;

const TOPIC_CREATED: u8 = 1;
const TOPIC_DELETED: u8 = 2;
const SETTINGS_CHANGED: u8 = 3;
const PARTITIONS_ADDED: u8 = 4;
const SNAPSHOT_BEGIN: u8 = 5;
const SNAPSHOT_TOPIC: u8 = 6;
const SNAPSHOT_END: u8 = 7;

impl MetadataRecord {
    /// Appends the record's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([self.kind(), VERSION]);
        match self {
            MetadataRecord::TopicCreated(topic) | MetadataRecord::SnapshotTopic(topic) => put_topic(out, topic),
            MetadataRecord::TopicDeleted { id } => put_id(out, *id),
            MetadataRecord::SettingsChanged { id, settings } => {
                put_id(out, *id);
                put_settings(out, settings);
            }
            MetadataRecord::PartitionsAdded { id, partitions } => {
                put_id(out, *id);
                out.extend(partitions.to_le_bytes());
            }
            MetadataRecord::SnapshotBegin { topics, next_placement } => {
                out.extend(topics.to_le_bytes());
                out.extend(next_placement.to_le_bytes());
            }
            MetadataRecord::SnapshotEnd => (),
        }
    }

    /// The record that `bytes` are, all of them.
    pub fn decode(bytes: &[u8]) -> Result<MetadataRecord, RecordError> {
        let mut input = Input(bytes);
        let (kind, version) = (input.u8()?, input.u8()?);
        if !(TOPIC_CREATED..=SNAPSHOT_END).contains(&kind) {
            return Err(RecordError::UnknownKind { kind });
        }
        if version != VERSION {
            return Err(RecordError::UnknownVersion { kind, version });
        }
        let record = decode_fields(kind, &mut input)?;
        match input.0.len() {
            0 => Ok(record),
            bytes => Err(RecordError::Trailing { kind, bytes }),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            MetadataRecord::TopicCreated(_) => TOPIC_CREATED,
            MetadataRecord::TopicDeleted { .. } => TOPIC_DELETED,
            MetadataRecord::SettingsChanged { .. } => SETTINGS_CHANGED,
            MetadataRecord::PartitionsAdded { .. } => PARTITIONS_ADDED,
            MetadataRecord::SnapshotBegin { .. } => SNAPSHOT_BEGIN,
            MetadataRecord::SnapshotTopic(_) => SNAPSHOT_TOPIC,
            MetadataRecord::SnapshotEnd => SNAPSHOT_END,
        }
    }
}

fn decode_fields(kind: u8, input: &mut Input<'_>) -> Result<MetadataRecord, RecordError> {
    Ok(match kind {
        TOPIC_CREATED => MetadataRecord::TopicCreated(input.topic()?),
        TOPIC_DELETED => MetadataRecord::TopicDeleted { id: input.id()? },
        SETTINGS_CHANGED => MetadataRecord::SettingsChanged { id: input.id()?, settings: input.settings()? },
        PARTITIONS_ADDED => MetadataRecord::PartitionsAdded { id: input.id()?, partitions: input.u32()? },
        SNAPSHOT_BEGIN => MetadataRecord::SnapshotBegin { topics: input.u32()?, next_placement: input.u32()? },
        SNAPSHOT_TOPIC => MetadataRecord::SnapshotTopic(input.topic()?),
        SNAPSHOT_END => MetadataRecord::SnapshotEnd,
        kind => return Err(RecordError::UnknownKind { kind }),
    })
}

fn put_topic(out: &mut Vec<u8>, topic: &TopicInfo) {
    put_id(out, topic.id);
    out.extend(topic.partitions.to_le_bytes());
    out.extend(topic.placement.to_le_bytes());
    put_text(out, topic.name.as_str());
    put_settings(out, &topic.settings);
}

fn put_id(out: &mut Vec<u8>, id: TopicId) {
    out.extend(id.0.as_bytes());
}

fn put_settings(out: &mut Vec<u8>, settings: &TopicSettings) {
    let count_at = out.len();
    out.push(0);
    for (key, value) in settings.given() {
        put_text(out, key);
        put_text(out, &value);
        out[count_at] += 1;
    }
}

/// Names, keys and values are all bounded far below 256 bytes when they are parsed.
fn put_text(out: &mut Vec<u8>, text: &str) {
    assert!(text.len() <= usize::from(u8::MAX), "texts of metadata are bounded");
    out.push(text.len() as u8);
    out.extend(text.as_bytes());
}

/// What is left of a record.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], RecordError> {
        let (taken, rest) = self.0.split_at_checked(bytes).ok_or(RecordError::Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], RecordError> {
        self.take(N)?.try_into().map_err(|_| RecordError::Short)
    }

    fn u8(&mut self) -> Result<u8, RecordError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, RecordError> {
        self.array().map(u32::from_le_bytes)
    }

    fn id(&mut self) -> Result<TopicId, RecordError> {
        self.array().map(|bytes| TopicId(Uuid::from_bytes(bytes)))
    }

    fn text(&mut self) -> Result<&'a str, RecordError> {
        let bytes = self.u8()?;
        std::str::from_utf8(self.take(usize::from(bytes))?).map_err(|_| RecordError::Text)
    }

    fn settings(&mut self) -> Result<TopicSettings, RecordError> {
        let mut settings = TopicSettings::default();
        for _ in 0..self.u8()? {
            let (key, value) = (self.text()?, self.text()?);
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    fn topic(&mut self) -> Result<TopicInfo, RecordError> {
        let id = self.id()?;
        let (partitions, placement) = (self.u32()?, self.u32()?);
        let name = TopicName::parse(self.text()?)?;
        Ok(TopicInfo { id, name, partitions, placement, settings: self.settings()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn topic() -> TopicInfo {
        TopicInfo {
            id: TopicId(Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff)),
            name: TopicName::parse("clicks").unwrap(),
            partitions: 8,
            placement: 0x0102,
            settings: TopicSettings::parse(&[("durability", "write")]).unwrap(),
        }
    }

    fn bytes(record: &MetadataRecord) -> Vec<u8> {
        let mut out = Vec::new();
        record.encode(&mut out);
        out
    }

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
    }

    const ID: &str = "00112233 44556677 8899aabb ccddeeff";
    /// partitions, placement, name, one setting
    const FIELDS: &str = "08000000 02010000 06 636c69636b73";
    const SETTINGS: &str = "01 0a 6475726162696c697479 05 7772697465";

    #[test]
    fn golden_bytes() {
        let TopicInfo { id, settings, .. } = topic();
        for (record, golden) in [
            (MetadataRecord::TopicCreated(topic()), format!("01 01 {ID} {FIELDS} {SETTINGS}")),
            (MetadataRecord::TopicDeleted { id }, format!("02 01 {ID}")),
            (MetadataRecord::SettingsChanged { id, settings }, format!("03 01 {ID} {SETTINGS}")),
            (MetadataRecord::PartitionsAdded { id, partitions: 300 }, format!("04 01 {ID} 2c010000")),
            (MetadataRecord::SnapshotBegin { topics: 2, next_placement: 9 }, "05 01 02000000 09000000".into()),
            (MetadataRecord::SnapshotTopic(topic()), format!("06 01 {ID} {FIELDS} {SETTINGS}")),
            (MetadataRecord::SnapshotEnd, "07 01".into()),
        ] {
            assert_eq!(bytes(&record), hex(&golden), "{record:?}");
            assert_eq!(MetadataRecord::decode(&hex(&golden)), Ok(record));
        }
    }

    #[test]
    fn what_a_newer_program_wrote_is_refused_with_a_sentence() {
        let mut newer = bytes(&MetadataRecord::SnapshotEnd);
        newer[1] = 2;
        let error = MetadataRecord::decode(&newer).unwrap_err();
        assert_eq!(error, RecordError::UnknownVersion { kind: 7, version: 2 });
        assert_eq!(
            error.to_string(),
            "metadata record kind 7 has version 2, this program knows 1; a newer corelog wrote it, use that one"
        );
        assert_eq!(MetadataRecord::decode(&[8, 1]), Err(RecordError::UnknownKind { kind: 8 }));
        assert_eq!(MetadataRecord::decode(&[0, 1]), Err(RecordError::UnknownKind { kind: 0 }));
    }

    #[test]
    fn impossible_names_and_settings_are_refused() {
        let swap = |from: &str, to: &str| {
            let bytes = bytes(&MetadataRecord::TopicCreated(topic()));
            let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).unwrap();
            MetadataRecord::decode(&[&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat())
        };
        assert!(matches!(swap("clicks", "cli/ks"), Err(RecordError::Name(_))));
        assert!(matches!(swap("durability", "durabilit!"), Err(RecordError::Setting(_))));
        assert!(matches!(swap("write", "wrote"), Err(RecordError::Setting(_))));
    }

    #[test]
    fn every_cut_and_every_byte_too_many_is_told() {
        let whole = bytes(&MetadataRecord::TopicCreated(topic()));
        for end in 0..whole.len() {
            assert_eq!(MetadataRecord::decode(&whole[..end]), Err(RecordError::Short), "{end}");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(MetadataRecord::decode(&longer), Err(RecordError::Trailing { kind: 1, bytes: 1 }));
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_decodes_encodes_to_the_same(
            start in 1u8..=7, rest in proptest::collection::vec(any::<u8>(), 0..80)
        ) {
            let input = [&[start, VERSION][..], &rest].concat();
            if let Ok(record) = MetadataRecord::decode(&input) {
                prop_assert_eq!(MetadataRecord::decode(&bytes(&record)), Ok(record));
            }
        }

        #[test]
        fn a_flipped_bit_never_panics(bit in 0usize..8 * 57) {
            let mut bytes = bytes(&MetadataRecord::TopicCreated(topic()));
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            let _ = MetadataRecord::decode(&bytes);
        }
    }
}
