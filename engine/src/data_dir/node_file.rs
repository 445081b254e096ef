//! The `node` file: what a data directory is. Text, so that an operator can read it; with a checksum, because a flipped
//! bit in the shard count would hide journals, and because it is not to be edited.
//!
//! ```text
//! # What this directory is. Written by corelog; do not edit.
//! format = 1
//! cluster-id = "6ba7b810-9dad-41d1-80b4-00c04fd430c8"
//! node-id = 1
//! generation = 0
//! shards = 2
//! checksum = "0f13423a"
//! ```
//! `format` comes first and will be read by every program of the future and the past; nothing else is looked at before
//! it is known. The checksum is the CRC32C of everything before its line, in eight hexadecimal digits.

use crate::limits::SHARDS_MAX;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The newest format of a data directory that this program knows, and the one it writes.
pub const FORMAT: u64 = 1;

/// Longer files are not ours. They are read in one block.
pub const NODE_FILE_BYTES_MAX: usize = 4096;

const HEADING: &str = "# What this directory is. Written by corelog; do not edit.";
const CHECKSUM_KEY: &str = "checksum";

/// What a data directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFile {
    /// Same on every node of a cluster, for ever.
    pub cluster_id: Uuid,
    /// This node in its cluster, from 1.
    pub node_id: u32,
    /// Which `shards-<generation>` directory holds the journals and checkpoints in force.
    pub generation: u64,
    /// For how many shards those were written; 0 in a directory that was made and has no journals yet.
    pub shards: u16,
}

/// A `node` file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeFileError {
    /// A newer program wrote the directory.
    #[error("it has format {found}, this program knows formats up to {FORMAT}: use a newer corelog")]
    Newer {
        /// Its format.
        found: u64,
    },
    /// It is not what was written.
    #[error("its node file is damaged: {why}")]
    Damaged {
        /// What is wrong with it.
        why: String,
    },
}

impl NodeFile {
    /// The file's text.
    pub fn to_text(&self) -> String {
        let NodeFile { cluster_id, node_id, generation, shards } = self;
        let body = format!(
            "{HEADING}\nformat = {FORMAT}\ncluster-id = \"{cluster_id}\"\nnode-id = {node_id}\n\
             generation = {generation}\nshards = {shards}\n"
        );
        let checksum = checksum(&body);
        format!("{body}{CHECKSUM_KEY} = \"{checksum:08x}\"\n")
    }

    /// Reads a file.
    pub fn parse(bytes: &[u8]) -> Result<NodeFile, NodeFileError> {
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not text"))?;
        let fields = fields(text)?;
        match integer(&fields, "format")? {
            found if found > FORMAT => return Err(NodeFileError::Newer { found }),
            0 => return Err(damaged("its format is 0")),
            _ => check_sum(text, &fields)?,
        }
        let shards = integer(&fields, "shards")?;
        let shards = u16::try_from(shards).ok().filter(|shards| *shards <= SHARDS_MAX);
        let cluster_id =
            Uuid::try_parse(quoted(&fields, "cluster-id")?).map_err(|_| damaged("its cluster-id is no UUID"));
        let node = NodeFile {
            cluster_id: cluster_id?,
            node_id: integer(&fields, "node-id")?.try_into().map_err(|_| damaged("its node-id is too large"))?,
            generation: integer(&fields, "generation")?,
            shards: shards.ok_or_else(|| damaged("its shard count is impossible"))?,
        };
        // What one reads out of a text can be there in other letters; a byte that changed is damage all the same.
        let is_as_written = text.strip_prefix(node.to_text().as_str()).is_some_and(|rest| rest.trim().is_empty());
        if is_as_written { Ok(node) } else { Err(damaged("it is not as it was written")) }
    }
}

fn damaged(why: impl Into<String>) -> NodeFileError {
    NodeFileError::Damaged { why: why.into() }
}

/// Keys and values of the lines that are neither empty nor comments. A key of a newer format is not an error here.
fn fields(text: &str) -> Result<BTreeMap<&str, &str>, NodeFileError> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    let mut fields = BTreeMap::new();
    for line in lines {
        let (key, value) = line.split_once('=').ok_or_else(|| damaged("a line has no '='"))?;
        if fields.insert(key.trim(), value.trim()).is_some() {
            return Err(damaged("a key is there twice"));
        }
    }
    Ok(fields)
}

fn value<'a>(fields: &BTreeMap<&str, &'a str>, key: &str) -> Result<&'a str, NodeFileError> {
    fields.get(key).copied().ok_or_else(|| damaged(format!("it has no {key}")))
}

fn integer(fields: &BTreeMap<&str, &str>, key: &str) -> Result<u64, NodeFileError> {
    value(fields, key)?.parse().map_err(|_| damaged(format!("its {key} is no number")))
}

fn quoted<'a>(fields: &BTreeMap<&str, &'a str>, key: &str) -> Result<&'a str, NodeFileError> {
    let inner = value(fields, key)?.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.ok_or_else(|| damaged(format!("its {key} is not in quotes")))
}

fn check_sum(text: &str, fields: &BTreeMap<&str, &str>) -> Result<(), NodeFileError> {
    let stated = u32::from_str_radix(quoted(fields, CHECKSUM_KEY)?, 16).ok();
    let end = text.rfind(CHECKSUM_KEY).unwrap_or(text.len());
    if stated == Some(checksum(&text[..end])) { Ok(()) } else { Err(damaged("its checksum does not match")) }
}

fn checksum(text: &str) -> u32 {
    crc_fast::crc32_iscsi(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NODE: NodeFile = NodeFile {
        cluster_id: Uuid::from_u128(0x6ba7_b810_9dad_41d1_80b4_00c0_4fd4_30c8),
        node_id: 1,
        generation: 3,
        shards: 2,
    };

    #[test]
    fn golden_text() {
        let golden = "# What this directory is. Written by corelog; do not edit.\n\
                      format = 1\n\
                      cluster-id = \"6ba7b810-9dad-41d1-80b4-00c04fd430c8\"\n\
                      node-id = 1\n\
                      generation = 3\n\
                      shards = 2\n\
                      checksum = \"5e650a95\"\n";
        assert_eq!(NODE.to_text(), golden);
        assert_eq!(NodeFile::parse(golden.as_bytes()), Ok(NODE));
    }

    #[test]
    fn empty_lines_behind_the_text_do_not_matter() {
        let padded = format!("{}\n\n   \n", NODE.to_text());
        assert_eq!(NodeFile::parse(padded.as_bytes()), Ok(NODE));
    }

    #[test]
    fn other_letters_of_the_same_meaning_are_damage() {
        let text = NODE.to_text();
        let checksum = text.rfind('"').map(|end| text[end - 8..end].to_owned()).unwrap();
        for other in [
            text.replace(&checksum, &checksum.to_uppercase()),
            text.replace("node-id = ", "node-id  = "),
            format!("{}\u{b}", text.trim_end()),
        ] {
            assert!(other == text || NodeFile::parse(other.as_bytes()).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_newer_format_is_named_whatever_else_it_has() {
        let newer = "format = 2\nsomething = [1, 2]\n";
        let error = NodeFile::parse(newer.as_bytes()).unwrap_err();
        assert_eq!(error, NodeFileError::Newer { found: 2 });
        assert_eq!(error.to_string(), "it has format 2, this program knows formats up to 1: use a newer corelog");
    }

    #[test]
    fn damage_says_what_is_wrong() {
        let why = |text: &str| NodeFile::parse(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(why(""), "its node file is damaged: it has no format");
        assert_eq!(why("format = one\n"), "its node file is damaged: its format is no number");
        assert_eq!(why("format = 0\n"), "its node file is damaged: its format is 0");
        assert_eq!(why("format = 1\nformat = 1\n"), "its node file is damaged: a key is there twice");
        let edited = NODE.to_text().replace("shards = 2", "shards = 4");
        assert_eq!(why(&edited), "its node file is damaged: its checksum does not match");
        let without = NODE.to_text().replace("checksum", "check");
        assert_eq!(why(&without), "its node file is damaged: it has no checksum");
        let impossible = NodeFile { shards: SHARDS_MAX + 1, ..NODE }.to_text();
        assert_eq!(why(&impossible), "its node file is damaged: its shard count is impossible");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(id: u128, node_id: u32, generation: u64, shards in 0..=SHARDS_MAX) {
            let node = NodeFile { cluster_id: Uuid::from_u128(id), node_id, generation, shards };
            let text = node.to_text();
            prop_assert!(text.len() <= NODE_FILE_BYTES_MAX);
            prop_assert_eq!(NodeFile::parse(text.as_bytes()), Ok(node));
        }

        #[test]
        fn a_flipped_bit_never_passes(bit in 0usize..8 * 240) {
            let mut bytes = NODE.to_text().into_bytes();
            let bit = bit % (8 * bytes.len());
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(NodeFile::parse(&bytes).is_err());
        }

        #[test]
        fn a_cut_never_passes(end in 0usize..240) {
            let text = NODE.to_text();
            let end = end.min(text.len() - 2);
            prop_assert!(NodeFile::parse(&text.as_bytes()[..end]).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = NodeFile::parse(&bytes);
        }
    }
}
