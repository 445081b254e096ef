//! What clients were told, as marks in the log of their server's disk, and what follows from it for a reader after a cut.

use crate::disk::Result;
use crate::disk::log::MARK_BYTES;
use std::collections::BTreeMap;

const MAGIC: &[u8; 8] = b"CORECUT1";
/// Bytes of a mark before the topic's name.
const HEAD: usize = 40;

/// What a client was told, or is about to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// What it is about.
    pub what: What,
    /// Number of the topic's incarnation: no two topics of a recording have one, also if they have one name.
    pub stream: u32,
    /// Which partition; for [`What::Creating`] how many.
    pub partition: u32,
    /// An offset, where there is one; for [`What::Creating`] the topic's `retention.bytes`, -1 for none.
    pub value: i64,
    /// Name of the topic.
    pub topic: String,
}

/// Kinds of marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// The topic may exist from now on.
    Creating = 1,
    /// Its creation was acknowledged.
    Created,
    /// It may be gone from now on.
    Deleting,
    /// Its deletion was acknowledged.
    Deleted,
    /// All records below the offset were acknowledged, or shown to a reader.
    Told,
    /// Records below the offset may be gone from now on.
    DeletingRecords,
    /// Their deletion was acknowledged.
    DeletedRecords,
    /// What is to be cut begins here: the load, or a start after a cut.
    Begun,
}

const KINDS: [What; 8] = [
    What::Creating,
    What::Created,
    What::Deleting,
    What::Deleted,
    What::Told,
    What::DeletingRecords,
    What::DeletedRecords,
    What::Begun,
];

impl Mark {
    /// A mark about a partition.
    pub fn new(what: What, stream: u32, topic: &str, partition: u32, value: i64) -> Mark {
        Mark { what, stream, partition, value, topic: topic.to_owned() }
    }

    /// Its sector.
    pub fn encode(&self) -> [u8; MARK_BYTES] {
        let mut sector = [0; MARK_BYTES];
        sector[..8].copy_from_slice(MAGIC);
        sector[8..12].copy_from_slice(&(self.what as u32).to_le_bytes());
        sector[12..16].copy_from_slice(&self.stream.to_le_bytes());
        sector[16..20].copy_from_slice(&self.partition.to_le_bytes());
        sector[20..28].copy_from_slice(&self.value.to_le_bytes());
        let name = self.topic.as_bytes();
        sector[28..32].copy_from_slice(&(name.len() as u32).to_le_bytes());
        sector[HEAD..HEAD + name.len()].copy_from_slice(name);
        sector
    }

    /// Reads a sector.
    ///
    /// # Errors
    /// When it is no mark.
    pub fn decode(sector: &[u8]) -> Result<Mark> {
        let number = |at: usize| sector.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
        let read = || {
            let kind = number(8).filter(|_| sector.starts_with(MAGIC))?;
            let what = *KINDS.iter().find(|what| **what as u32 == kind)?;
            let value = i64::from_le_bytes(*sector.get(20..)?.first_chunk()?);
            let name = sector.get(HEAD..)?.get(..number(28)? as usize)?;
            Some(Mark::new(what, number(12)?, std::str::from_utf8(name).ok()?, number(16)?, value))
        };
        read().ok_or_else(|| "a write past the file system is no mark".into())
    }
}

/// Whether a topic is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existence {
    /// Asked for, or asked to be gone.
    Perhaps,
    /// Its creation was acknowledged.
    Certain,
    /// Its deletion was acknowledged.
    Gone,
}

/// What holds of one partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// Records below it are there.
    pub next: i64,
    /// But those below this one may be deleted,
    pub may_begin: i64,
    /// and those below this one are.
    pub must_begin: i64,
}

/// What holds of one topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// Number of its incarnation.
    pub stream: u32,
    /// Whether it is there.
    pub existence: Existence,
    /// Its `retention.bytes`: less than that is never kept.
    pub retention_bytes: Option<u64>,
    /// Its partitions.
    pub partitions: Vec<Promise>,
}

impl Expected {
    fn marks(&self, topic: &str) -> Vec<Mark> {
        let retention = self.retention_bytes.map_or(-1, |bytes| bytes as i64);
        let mark = |what, partition, value| Mark::new(what, self.stream, topic, partition, value);
        let mut marks = vec![mark(What::Creating, self.partitions.len() as u32, retention)];
        for (partition, promise) in self.partitions.iter().enumerate() {
            let partition = partition as u32;
            marks.push(mark(What::Told, partition, promise.next));
            marks.push(mark(What::DeletingRecords, partition, promise.may_begin));
            marks.push(mark(What::DeletedRecords, partition, promise.must_begin));
        }
        match self.existence {
            Existence::Perhaps => {}
            Existence::Certain => marks.push(mark(What::Created, 0, 0)),
            Existence::Gone => marks.push(mark(What::Deleted, 0, 0)),
        }
        marks
    }
}

/// All that clients were told up to a point of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// By name.
    pub topics: BTreeMap<String, Expected>,
}

impl Book {
    /// Takes the next mark.
    ///
    /// # Errors
    /// When it is about a topic that no mark created.
    pub fn note(&mut self, mark: &Mark) -> Result<()> {
        match mark.what {
            What::Begun => {}
            What::Creating => {
                let expected = Expected {
                    stream: mark.stream,
                    existence: Existence::Perhaps,
                    retention_bytes: u64::try_from(mark.value).ok(),
                    partitions: vec![Promise::default(); mark.partition as usize],
                };
                self.topics.insert(mark.topic.clone(), expected);
            }
            _ => self.note_of(mark)?,
        }
        Ok(())
    }

    fn note_of(&mut self, mark: &Mark) -> Result<()> {
        let expected = self.topics.get_mut(&mark.topic).filter(|expected| expected.stream == mark.stream);
        let expected = expected.ok_or_else(|| format!("a mark about topic {}, which was not created", mark.topic))?;
        match mark.what {
            What::Created => expected.existence = Existence::Certain,
            What::Deleting => expected.existence = Existence::Perhaps,
            What::Deleted => expected.existence = Existence::Gone,
            _ => {}
        }
        let Some(promise) = expected.partitions.get_mut(mark.partition as usize) else { return Ok(()) };
        let raised = match mark.what {
            What::Told => &mut promise.next,
            What::DeletingRecords => &mut promise.may_begin,
            What::DeletedRecords => &mut promise.must_begin,
            _ => return Ok(()),
        };
        *raised = mark.value.max(*raised);
        Ok(())
    }

    /// The marks that make a book like this one.
    pub fn marks(&self) -> Vec<Mark> {
        self.topics.iter().flat_map(|(name, expected)| expected.marks(name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_as_they_were_written() {
        for what in KINDS {
            let mark = Mark::new(what, 7, "clicks", 3, -1);
            assert_eq!(Mark::decode(&mark.encode()).unwrap(), mark);
        }
        assert!(Mark::decode(&[0; MARK_BYTES]).is_err());
    }

    #[test]
    fn a_topic_created_again_begins_anew() {
        let mut book = Book::default();
        let mut note = |what, stream, value| book.note(&Mark::new(what, stream, "t", 1, value));
        assert!(note(What::Told, 1, 5).is_err());
        for (what, value) in [(What::Creating, -1), (What::Created, 0), (What::Deleting, 0), (What::Deleted, 0)] {
            note(what, 1, value).unwrap();
        }
        note(What::Creating, 2, 1000).unwrap();
        assert!(note(What::Told, 1, 5).is_err(), "of the one before");
        let expected = &book.topics["t"];
        assert_eq!(
            (expected.stream, expected.existence, expected.retention_bytes),
            (2, Existence::Perhaps, Some(1000))
        );
    }

    #[test]
    fn a_book_is_made_again_by_its_marks() {
        let mut book = Book::default();
        for (what, partition, value) in [
            (What::Creating, 2, 1000),
            (What::Created, 0, 0),
            (What::Told, 0, 9),
            (What::Told, 1, 5),
            (What::DeletingRecords, 1, 4),
            (What::DeletedRecords, 1, 3),
        ] {
            book.note(&Mark::new(what, 1, "t", partition, value)).unwrap();
        }
        let mut again = Book::default();
        book.marks().iter().try_for_each(|mark| again.note(mark)).unwrap();
        assert_eq!(again, book);
        assert_eq!(book.topics["t"].partitions[1], Promise { next: 5, may_begin: 4, must_begin: 3 });
    }
}
