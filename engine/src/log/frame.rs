//! The container that journal entries and checkpoint groups share: block-aligned, checksummed, chained, and bound to
//! one file by its nonce, so that bytes of an earlier lap, of another file or of a torn write never pass as current.
//!
//! A frame is a 64-byte header, then sections, then zeros up to the next block. The header's checksum covers the body's
//! checksum, so the one number commits to every byte, the body is read once, and a scanner can trust a header's fields
//! (how long the frame is, what was durable before it) without having read the body.

use super::fields::{Fields, Put};
use super::{BLOCK, round_up};

/// Number of a frame in its file; each is one more than the one before, across laps of a circular file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Sequence(pub u64);

/// Drawn at random when a file is created; no two files share it, and no client ever learns it, so that record bytes
/// cannot be made to look like a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Nonce(pub u64);

/// A CRC32C (Castagnoli).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Checksum(pub u32);

impl Sequence {
    /// The next one.
    pub fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

impl Checksum {
    /// Of `bytes`.
    pub fn of(bytes: &[u8]) -> Checksum {
        Checksum(crc_fast::crc32_iscsi(bytes))
    }
}

/// Bytes of a frame's header.
pub const HEADER_BYTES: usize = 64;
/// Bytes in front of each section: kind, version, two zero bytes, length of what follows.
pub const SECTION_HEADER_BYTES: usize = 8;
/// No frame is longer, whatever it says. What a writer may build is bounded by its buffer, which is far smaller.
pub const FRAME_BYTES_LIMIT: usize = 32 << 20;

const HEADER_CHECKSUM_AT: usize = HEADER_BYTES - 4;

/// Which sort of frame: its magic and the one version of it that this program writes and reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// The first four bytes.
    pub magic: [u8; 4],
    /// Version of the header and of the meaning of the body.
    pub version: u16,
}

/// What a writer says of a frame before it is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Of the file.
    pub nonce: Nonce,
    /// Of this frame.
    pub sequence: Sequence,
    /// Where the frame begins: the byte position in the file, or the logical one in a circular file. A multiple of
    /// [`BLOCK`]. Tells a misdirected write.
    pub position: u64,
    /// The highest sequence known to be on stable storage when this frame was built. A frame that cannot be read but is
    /// claimed durable by a later one is damaged; without such a claim it may be torn.
    pub durable: Sequence,
    /// The checksum of the frame before, of whatever length it was; zero before the first.
    pub previous: Checksum,
}

/// What a reader knows of the frame that must come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected {
    /// Of the file.
    pub nonce: Nonce,
    /// Of the frame.
    pub sequence: Sequence,
    /// Where it must say that it begins.
    pub position: u64,
    /// The checksum of the frame before.
    pub previous: Checksum,
}

/// A whole header that verified; of the body nothing is known yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the writer said.
    pub header: Header,
    /// Of the whole frame, in bytes; whole blocks, at most [`FRAME_BYTES_LIMIT`].
    pub length: usize,
    /// Bytes up to the end of the last section; zeros follow up to `length`.
    pub used: usize,
    /// How many sections there are.
    pub sections: u32,
    /// Of the whole frame.
    pub checksum: Checksum,
    body_checksum: Checksum,
}

/// Why bytes are not the frame that was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// Never written.
    #[error("a block of zeros")]
    Zeros,
    /// Something else: a later part of a longer frame of an earlier lap, or a torn or damaged header.
    #[error("no header begins here")]
    NotAFrame,
    /// The magic is right and the header's checksum is not.
    #[error("the header's checksum does not fit")]
    HeaderChecksum,
    /// Written whole, by a program that knows another version.
    #[error("version {0} is not known to this program")]
    UnknownVersion(u16),
    /// The header is whole and its lengths break the format's bounds.
    #[error("the lengths in the header are out of bounds")]
    Length,
    /// A frame of another file.
    #[error("it belongs to another file (nonce {:016x})", .0.0)]
    OtherNonce(Nonce),
    /// A frame of this file that has another place in it: as a rule of an earlier lap.
    #[error("it has sequence {}", .0.0)]
    OtherSequence(Sequence),
    /// It was written for another position.
    #[error("it was written for position {0}")]
    OtherPosition(u64),
    /// It follows a frame other than the one that is here.
    #[error("it does not follow the one before")]
    ChainBroken,
    /// The bytes given end before the frame does.
    #[error("it ends after {needs} bytes, which are not all here")]
    Short {
        /// Bytes of the frame.
        needs: usize,
    },
    /// The header is whole, the body is not.
    #[error("the body's checksum does not fit")]
    BodyChecksum,
    /// Written whole, by a program that knows other sections.
    #[error("section kind {kind} version {version} at byte {at} is not known to this program")]
    UnknownSection {
        /// Kind it names.
        kind: u8,
        /// Version of the kind.
        version: u8,
        /// Byte of the frame at which the section begins.
        at: usize,
    },
    /// Every checksum fits and the content breaks a rule: a bug of the program that wrote it.
    #[error("at byte {at}: {what}")]
    Malformed {
        /// Byte of the frame at which the section begins.
        at: usize,
        /// The rule.
        what: &'static str,
    },
}

impl Fault {
    /// The frame is whole but this program cannot use it: neither torn nor damaged, and reading on or cutting off
    /// would lose what another version of the program wrote.
    pub fn is_foreign(self) -> bool {
        matches!(
            self,
            Fault::UnknownVersion(_) | Fault::UnknownSection { .. } | Fault::Length | Fault::Malformed { .. }
        )
    }
}

/// The frame has no room for a section; it is left as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no room")]
pub struct Full;

/// What [`Writer::finish`] made of the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Finished {
    /// Bytes to write from the front of the buffer: whole blocks.
    pub length: usize,
    /// What the next frame must name as the one before it.
    pub checksum: Checksum,
}

/// Builds one frame in a caller's buffer.
#[derive(Debug)]
pub struct Writer<'a> {
    kind: Kind,
    header: Header,
    out: &'a mut [u8],
    used: usize,
    sections: u32,
}

impl<'a> Writer<'a> {
    /// `out` must hold at least a block; of more, only whole blocks are used.
    pub fn new(kind: Kind, out: &'a mut [u8], header: Header) -> Self {
        let capacity = out.len().min(FRAME_BYTES_LIMIT) / BLOCK * BLOCK;
        assert!(capacity >= BLOCK, "a frame needs a block");
        assert!(header.position.is_multiple_of(BLOCK as u64), "a frame begins at a block");
        Writer { kind, header, out: &mut out[..capacity], used: HEADER_BYTES, sections: 0 }
    }

    /// Bytes left for sections, their headers included.
    pub fn room(&self) -> usize {
        self.out.len() - self.used
    }

    /// No section yet.
    pub fn is_empty(&self) -> bool {
        self.sections == 0
    }

    /// Length the frame would have if it were finished now.
    pub fn length(&self) -> usize {
        round_up(self.used)
    }

    /// Adds a section and gives its content of `length` bytes to be filled; what is not filled is undefined.
    pub fn section(&mut self, kind: u8, version: u8, length: usize) -> Result<&mut [u8], Full> {
        let from = self.used;
        let until = length.checked_add(SECTION_HEADER_BYTES + from).filter(|end| *end <= self.out.len()).ok_or(Full)?;
        self.used = until;
        self.sections += 1;
        Ok(Put::into(&mut self.out[from..until]).u8(kind).u8(version).u16(0).u32(length as u32).rest())
    }

    /// Pads with zeros and seals.
    pub fn finish(self) -> Finished {
        let length = self.length();
        self.out[self.used..length].fill(0);
        let body = Checksum::of(&self.out[HEADER_BYTES..length]);
        let Header { nonce, sequence, position, durable, previous } = self.header;
        Put::into(&mut self.out[..HEADER_CHECKSUM_AT])
            .bytes(&self.kind.magic)
            .u16(self.kind.version)
            .u16(HEADER_BYTES as u16)
            .u64(nonce.0)
            .u64(sequence.0)
            .u64(position)
            .u64(durable.0)
            .u32(length as u32)
            .u32(self.used as u32)
            .u32(self.sections)
            .u32(previous.0)
            .u32(body.0);
        let checksum = Checksum::of(&self.out[..HEADER_CHECKSUM_AT]);
        self.out[HEADER_CHECKSUM_AT..HEADER_BYTES].copy_from_slice(&checksum.0.to_le_bytes());
        Finished { length, checksum }
    }
}

/// A frame whose every byte verified; its sections have the right bounds and their content is not yet judged.
#[derive(Debug, Clone, Copy)]
pub struct Frame<'a> {
    /// Its header.
    pub head: Head,
    body: &'a [u8],
}

/// One section as it lies in its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawSection<'a> {
    /// Byte of the frame at which the section begins.
    pub at: usize,
    /// Its kind.
    pub kind: u8,
    /// Its kind's version.
    pub version: u8,
    /// Its content.
    pub content: &'a [u8],
}

impl<'a> Frame<'a> {
    /// The sections in their order.
    pub fn sections(&self) -> impl Iterator<Item = RawSection<'a>> + use<'a> {
        let body = self.body;
        let mut at = HEADER_BYTES;
        std::iter::from_fn(move || {
            // `parse` walked the same steps to the exact end, so `None` means the end and nothing else.
            let section = section_at(body, at)?;
            at += SECTION_HEADER_BYTES + section.content.len();
            Some(section)
        })
    }
}

/// `used` is the frame up to the end of its last section.
fn section_at(used: &[u8], at: usize) -> Option<RawSection<'_>> {
    let mut fields = Fields::of(used.get(at..)?);
    let (kind, version, zero, length) = (fields.u8()?, fields.u8()?, fields.u16()?, fields.u32()?);
    let content = fields.rest().get(..length as usize)?;
    (zero == 0).then_some(RawSection { at, kind, version, content })
}

/// Recognises a frame by its header alone; `bytes` must begin where the frame does and hold a block or what there is.
pub fn head(kind: Kind, bytes: &[u8]) -> Result<Head, Fault> {
    let block = &bytes[..bytes.len().min(BLOCK)];
    let Some(fixed) = block.first_chunk::<HEADER_BYTES>() else {
        return Err(Fault::Short { needs: BLOCK });
    };
    if fixed[..4] != kind.magic {
        return Err(if block.iter().all(|byte| *byte == 0) { Fault::Zeros } else { Fault::NotAFrame });
    }
    verify_header(block)?;
    let version = u16::from_le_bytes([fixed[4], fixed[5]]);
    if version != kind.version {
        return Err(Fault::UnknownVersion(version));
    }
    read_header(fixed).ok_or(Fault::Length).and_then(bounded)
}

/// Any version keeps its header's length at byte 6 and the header's checksum in the header's last four bytes, so that a
/// flipped version is told from a new one.
fn verify_header(block: &[u8]) -> Result<(), Fault> {
    let length = usize::from(u16::from_le_bytes([block[6], block[7]]));
    if length < HEADER_BYTES {
        return Err(Fault::HeaderChecksum);
    }
    let header = block.get(..length).ok_or(Fault::HeaderChecksum)?;
    let (covered, checksum) = header.split_last_chunk::<4>().ok_or(Fault::HeaderChecksum)?;
    if Checksum::of(covered) != Checksum(u32::from_le_bytes(*checksum)) {
        return Err(Fault::HeaderChecksum);
    }
    Ok(())
}

fn read_header(fixed: &[u8; HEADER_BYTES]) -> Option<Head> {
    let mut fields = Fields::of(&fixed[6..]);
    if usize::from(fields.u16()?) != HEADER_BYTES {
        return None;
    }
    let (nonce, sequence, position, durable) = (fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?);
    let (length, used, sections) = (fields.u32()?, fields.u32()?, fields.u32()?);
    let (previous, body, checksum) = (fields.u32()?, fields.u32()?, fields.u32()?);
    Some(Head {
        header: Header {
            nonce: Nonce(nonce),
            sequence: Sequence(sequence),
            position,
            durable: Sequence(durable),
            previous: Checksum(previous),
        },
        length: length as usize,
        used: used as usize,
        sections,
        checksum: Checksum(checksum),
        body_checksum: Checksum(body),
    })
}

fn bounded(head: Head) -> Result<Head, Fault> {
    let fits = (BLOCK..=FRAME_BYTES_LIMIT).contains(&head.length)
        && (HEADER_BYTES..=head.length).contains(&head.used)
        && head.length == round_up(head.used)
        && head.sections as usize <= (head.used - HEADER_BYTES) / SECTION_HEADER_BYTES
        && head.header.position.is_multiple_of(BLOCK as u64)
        && head.header.durable < head.header.sequence;
    if fits { Ok(head) } else { Err(Fault::Length) }
}

/// Reads the frame that begins at `bytes` and must be the expected one. Who it is is judged before its body, so that an
/// old frame is told as such whatever became of its body.
pub fn parse<'a>(kind: Kind, bytes: &'a [u8], expected: &Expected) -> Result<Frame<'a>, Fault> {
    let head = head(kind, bytes)?;
    identify(&head.header, expected)?;
    let whole = bytes.get(..head.length).ok_or(Fault::Short { needs: head.length })?;
    if Checksum::of(&whole[HEADER_BYTES..]) != head.body_checksum {
        return Err(Fault::BodyChecksum);
    }
    let (body, padding) = whole.split_at(head.used);
    walk(body, head.sections)?;
    if padding.iter().any(|byte| *byte != 0) {
        return Err(Fault::Malformed { at: head.used, what: "the padding is not zero" });
    }
    Ok(Frame { head, body })
}

fn identify(found: &Header, expected: &Expected) -> Result<(), Fault> {
    if found.nonce != expected.nonce {
        return Err(Fault::OtherNonce(found.nonce));
    }
    if found.sequence != expected.sequence {
        return Err(Fault::OtherSequence(found.sequence));
    }
    if found.position != expected.position {
        return Err(Fault::OtherPosition(found.position));
    }
    if found.previous != expected.previous {
        return Err(Fault::ChainBroken);
    }
    Ok(())
}

fn walk(used: &[u8], sections: u32) -> Result<(), Fault> {
    let mut at = HEADER_BYTES;
    for _ in 0..sections {
        let section = section_at(used, at).ok_or(Fault::Malformed { at, what: "a section's header is wrong" })?;
        at += SECTION_HEADER_BYTES + section.content.len();
    }
    if at != used.len() {
        return Err(Fault::Malformed { at, what: "bytes behind the last section" });
    }
    Ok(())
}

/// Where a later frame that says what was durable was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof {
    /// Position of the later frame.
    pub position: u64,
    /// Its header. Its body may be torn itself: the claim was true when the header was built.
    pub head: Head,
}

/// Looks for a header that claims `sequence` of file `nonce` durable. `window` is what lies at `position` and on, whole
/// blocks of it; windows may be tried one after another. Only a header that lies where it says it does counts, so that
/// neither an earlier lap nor a copy of a file inside a record can be a witness.
pub fn proof_of_durable(kind: Kind, window: &[u8], position: u64, nonce: Nonce, sequence: Sequence) -> Option<Proof> {
    (position..).step_by(BLOCK).zip(window.chunks_exact(BLOCK)).find_map(|(position, block)| {
        let head = head(kind, block).ok()?;
        let says = head.header;
        (says.nonce == nonce && says.position == position && says.durable >= sequence)
            .then_some(Proof { position, head })
    })
}
