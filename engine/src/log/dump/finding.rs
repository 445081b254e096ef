//! What a verification finds: where, how bad it is, and what can be done.

use crate::log::paths;
use crate::model::{PartitionId, TopicId};
use serde::{Serialize, Serializer};
use std::fmt;
use std::path::{Path, PathBuf};

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What a crash leaves behind, and the next start clears away.
    Note,
    /// Not as it should be; the server helps itself.
    Warning,
    /// Something that was acknowledged is lost, or the server will refuse to use it.
    Error,
}

/// What a finding means for records that were acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Risk {
    /// All of them are there and will be served.
    None,
    /// They may be there, but will not be served, or not found, until something is done.
    AtRisk,
    /// Some are lost, unless there is a copy.
    Lost,
}

/// What can be done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Remedy {
    /// The node file has to come back.
    RestoreNode,
    /// A shard's directory, its checkpoint or its journal has to come back.
    RestoreShard,
    /// An acknowledged entry of a journal is damaged: its partitions will be fenced.
    RestoreJournal,
    /// The journal is not the one that its checkpoint knows.
    OtherJournal,
    /// A partition that lost records when a journal was damaged.
    Fenced,
    /// The metadata log that lost records so: topics that nobody knows any more.
    FencedMetadata,
    /// A segment, or a part of it, has to come back.
    RestoreSegment,
    /// The metadata log has to come back.
    RestoreMetadata,
    /// The next start does it.
    NextStart,
    /// A file that the journal has all of.
    Carried,
    /// An end that nothing proves: torn by a crash as a rule, and cut off by the next start.
    CutOff,
    /// A file of somebody else's.
    Foreign,
    /// What lies where a segment will begin.
    Ahead,
    /// The same where the journal is damaged: what is missing of it may have told of the file.
    Unproven,
    /// An index that is not used.
    Rebuild,
    /// An index that leads astray.
    Misleading,
    /// An index that was not written whole.
    WhenNeeded,
    /// A batch that was sent as it is.
    ReadOn,
    /// A newer program's file.
    Newer,
    /// A journal of another length that nothing was written to.
    Unwritten,
    /// A time that the checkpoint does not know.
    EarlyRetention,
    /// What was looked at is a part of something.
    VerifyWhole,
    /// A part that is known only where it belongs.
    VerifyInPlace,
    /// The same of a journal.
    VerifyJournalInPlace,
    /// A segment of which nobody says where it ends.
    VerifyEnd,
}

impl Remedy {
    /// In a few words, for one line.
    pub fn advice(self) -> &'static str {
        match self {
            Remedy::RestoreNode => "restore it from a backup: no server starts without it",
            Remedy::RestoreShard => "restore the whole data directory from a backup of one moment: no server starts so",
            Remedy::RestoreMetadata => "restore it from a backup: until then no server starts, or changes topics",
            Remedy::RestoreJournal | Remedy::OtherJournal | Remedy::Fenced => {
                "restore the whole data directory from a backup of one moment; a server fences what it cannot read"
            }
            Remedy::FencedMetadata => {
                "restore the whole data directory from a backup of one moment; topics whose making was lost are not known \
                 any more, and their files are kept"
            }
            Remedy::RestoreSegment => "restore it from a backup; a server fences what it cannot read",
            Remedy::NextStart => "the next start clears it away",
            Remedy::Carried => "the next start makes it again",
            Remedy::CutOff => {
                "the next start cuts it off; if no crash came before, it is damage: restore the whole data directory from \
                 a backup of one moment"
            }
            Remedy::Foreign => "a server leaves it alone: remove it if nobody needs it",
            Remedy::Ahead => "a server writes over it when a segment begins there",
            Remedy::Unproven => "keep it: what is damaged may have told of it",
            Remedy::Misleading => "remove the index file: it is built again from its segment",
            Remedy::Rebuild | Remedy::WhenNeeded => "the server builds it again from its segment when it is asked for",
            Remedy::ReadOn => "readers stop there: have them go on behind it",
            Remedy::Newer => "use the newer corelog that wrote it",
            Remedy::Unwritten => "nothing that counts was written to it: the next start makes it again",
            Remedy::EarlyRetention => "retention by time may come early",
            Remedy::VerifyWhole => "verify the whole data directory",
            Remedy::VerifyInPlace => "verify it in its data directory",
            Remedy::VerifyJournalInPlace => "verify it where it belongs",
            Remedy::VerifyEnd => {
                "verify the whole data directory: only its checkpoint and journal say where a segment ends"
            }
        }
    }

    /// What to do, in whole sentences.
    pub fn steps(self) -> &'static str {
        match self {
            Remedy::RestoreNode => {
                "The server does not start without it. Restore it from a backup; its few lines never change but with the \
                 number of shards. Check the disk before anything else."
            }
            Remedy::RestoreShard => {
                "The server does not start: what the segments hold is not known any more. Restore the whole data directory \
                 from a backup of one moment. Without one, copy the records out of the segments with corelog dump-log \
                 --records."
            }
            Remedy::RestoreJournal | Remedy::OtherJournal => {
                "The next start keeps the journal under another name and fences all partitions of the shard, for any of \
                 them may have lost records. What is before the damage is served: copy it to new topics, or restore the \
                 whole data directory from a backup of one moment. Check the disk."
            }
            Remedy::Fenced => {
                "It takes no writes; what is left of it is served. Copy that to another topic, then delete this one, or \
                 restore the whole data directory from a backup of one moment. The damaged journal is kept in the data \
                 directory as journal.damaged-*, and corelog dump-log shows what can be read of it."
            }
            Remedy::FencedMetadata => {
                "Topics cannot be made, changed or deleted. Those whose making was lost are not known any more; their files \
                 are kept, and corelog dump-log --records shows what is in them. Only a restored whole data directory, from \
                 a backup of one moment, brings those topics back."
            }
            Remedy::RestoreSegment => {
                "The server serves what lies before the damage and fences the partition; the others go on. Restore the \
                 file from a backup while the server is stopped. Without one, copy what can be read to another topic, then \
                 delete this one; corelog dump-log --records FILE shows what is in the segments behind it. Check the disk."
            }
            Remedy::RestoreMetadata => {
                "The server does not start, or changes no topics: it is not known which there are. Restore the file from a \
                 backup while the server is stopped. Keep the directory as it is until then: the other partitions' \
                 records are there. Check the disk."
            }
            Remedy::NextStart => "Nothing: the next start clears it away.",
            Remedy::Carried => "Nothing: the next start makes it again from the journal.",
            Remedy::CutOff => {
                "Nothing, if a crash or a power cut came before: the next start cuts it off, and nobody was told of it. If \
                 there was none, it is damage to the last records that were written: restore the whole data directory \
                 from a backup of one moment before the next start, and check the disk."
            }
            Remedy::Foreign => "Nothing: a server leaves it alone. Remove it if nobody needs it.",
            Remedy::Ahead => "Nothing: a server writes over it when a segment begins there.",
            Remedy::Unproven => {
                "Keep it: acknowledged records may be in it, for what would tell is damaged. corelog dump-log --records \
                 shows them; copy to another topic what was acknowledged, or restore the whole data directory from a \
                 backup of one moment."
            }
            Remedy::Rebuild => {
                "Nothing: the server builds it again from its segment when it is asked for. Check the disk, as the file was \
                 whole once."
            }
            Remedy::Misleading => {
                "Remove the index file while the server is stopped: it is built again from its segment. The records are \
                 whole. Check the disk."
            }
            Remedy::WhenNeeded => "Nothing: the server builds it again from its segment when it is asked for.",
            Remedy::ReadOn => "The disk is not to blame: a producer sent it so. Have readers go on behind it.",
            Remedy::Newer => "Use the newer corelog that wrote it. This one refuses to start rather than cut it off.",
            Remedy::Unwritten => {
                "Nothing: all is in the segments, nothing that counts was written to it, and the next start makes it again."
            }
            Remedy::EarlyRetention => "Nothing, unless records must be kept for long: set retention.ms higher.",
            Remedy::VerifyWhole | Remedy::VerifyInPlace | Remedy::VerifyJournalInPlace | Remedy::VerifyEnd => {
                "Examine the whole data directory."
            }
        }
    }

    /// What it means for records that were acknowledged.
    pub fn risk(self) -> Risk {
        match self {
            Remedy::RestoreJournal | Remedy::Fenced | Remedy::FencedMetadata | Remedy::RestoreSegment => Risk::Lost,
            Remedy::RestoreNode
            | Remedy::RestoreShard
            | Remedy::RestoreMetadata
            | Remedy::OtherJournal
            | Remedy::CutOff
            | Remedy::Unproven
            | Remedy::Misleading
            | Remedy::ReadOn
            | Remedy::Newer
            | Remedy::VerifyWhole
            | Remedy::VerifyEnd => Risk::AtRisk,
            Remedy::NextStart
            | Remedy::Carried
            | Remedy::Foreign
            | Remedy::Ahead
            | Remedy::Rebuild
            | Remedy::WhenNeeded
            | Remedy::Unwritten
            | Remedy::EarlyRetention
            | Remedy::VerifyInPlace
            | Remedy::VerifyJournalInPlace => Risk::None,
        }
    }
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// In which file or directory.
    pub path: PathBuf,
    /// At which byte of it.
    pub at: Option<u64>,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong.
    pub what: String,
    /// What to do, in a few words.
    pub advice: &'static str,
    /// What to do.
    pub remedy: Remedy,
    /// What it means for acknowledged records.
    pub risk: Risk,
    /// Which partition's it is, as topic id and number; none for what a shard or the node shares.
    #[serde(serialize_with = "as_text")]
    pub partition: Option<PartitionId>,
}

impl Finding {
    pub(super) fn new(
        severity: Severity,
        path: &Path,
        at: Option<u64>,
        what: impl fmt::Display,
        remedy: Remedy,
    ) -> Finding {
        let partition = partition_of(path).or_else(|| partition_of(path.parent()?));
        let (advice, risk) = (remedy.advice(), remedy.risk());
        Finding { path: path.to_owned(), at, severity, what: what.to_string(), advice, remedy, risk, partition }
    }
}

fn as_text<S: Serializer>(partition: &Option<PartitionId>, serializer: S) -> Result<S::Ok, S::Error> {
    match partition {
        Some(partition) => serializer.collect_str(partition),
        None => serializer.serialize_none(),
    }
}

/// The partition whose directory this is.
pub(super) fn partition_of(directory: &Path) -> Option<PartitionId> {
    let index = paths::parse_partition_name(directory.file_name()?.to_str()?)?;
    let topic = paths::parse_topic_name(directory.parent()?.file_name()?.to_str()?)?;
    Some(PartitionId { topic, index })
}

/// What has to come back where a segment, or all segments of a directory, cannot be read.
pub(super) fn restore_segment(directory: &Path) -> Remedy {
    match partition_of(directory) {
        Some(PartitionId { topic: TopicId::METADATA, .. }) => Remedy::RestoreMetadata,
        _ => Remedy::RestoreSegment,
    }
}

/// What can be done about a partition that lost records when a journal was damaged.
pub(super) fn fenced(id: PartitionId) -> Remedy {
    if id.topic == TopicId::METADATA { Remedy::FencedMetadata } else { Remedy::Fenced }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.severity, self.path.display())?;
        if let Some(at) = self.at {
            write!(f, " at byte {at}")?;
        }
        write!(f, ": {}; {}", self.what, self.advice)
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}

/// How much was looked at, and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Summary {
    /// Partitions that checkpoint and journal know.
    pub partitions: u64,
    /// Segments read.
    pub segments: u64,
    /// Batches in them that verified.
    pub batches: u64,
    /// Bytes of those batches.
    pub batch_bytes: u64,
    /// Index files that verified.
    pub indexes: u64,
    /// Journal entries that verified.
    pub journal_entries: u64,
    /// Checkpoint groups that verified.
    pub checkpoint_groups: u64,
    /// Findings of severity note.
    pub notes: u64,
    /// Findings of severity warning.
    pub warnings: u64,
    /// Findings of severity error.
    pub errors: u64,
}

impl Summary {
    /// Nothing worse than what a crash leaves behind.
    pub fn is_sound(&self) -> bool {
        self.warnings == 0 && self.errors == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} partitions, {} segments, {} batches of {} bytes, {} indexes, {} journal entries, {} checkpoint groups: \
             {} errors, {} warnings, {} notes",
            self.partitions,
            self.segments,
            self.batches,
            self.batch_bytes,
            self.indexes,
            self.journal_entries,
            self.checkpoint_groups,
            self.errors,
            self.warnings,
            self.notes
        )
    }
}
