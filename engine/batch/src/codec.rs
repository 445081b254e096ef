//! How the records of a batch are compressed (the work itself with feature `codecs`).

use crate::BatchError;
use std::fmt;
use std::str::FromStr;

/// The codecs of record batch v2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Codec {
    /// Records as they are.
    #[default]
    None,
    /// RFC 1952, one or more members.
    Gzip,
    /// Snappy blocks in the framing of snappy-java ("xerial"); a bare block is read too.
    Snappy,
    /// LZ4 frame with independent blocks.
    Lz4,
    /// RFC 8878.
    Zstd,
}

impl Codec {
    /// Every codec, in the order of their codes.
    pub const ALL: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

    /// The codec with this code in a batch's attributes.
    ///
    /// # Errors
    /// `UnknownCodec` where there is none.
    pub fn from_code(code: u8) -> Result<Codec, BatchError> {
        Codec::ALL.get(usize::from(code)).copied().ok_or(BatchError::UnknownCodec { code })
    }

    /// The code in a batch's attributes.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The name that settings and messages use.
    pub fn name(self) -> &'static str {
        match self {
            Codec::None => "none",
            Codec::Gzip => "gzip",
            Codec::Snappy => "snappy",
            Codec::Lz4 => "lz4",
            Codec::Zstd => "zstd",
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// No codec has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown compression {name:?}: it is one of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCodecName {
    name: String,
}

impl FromStr for Codec {
    type Err = UnknownCodecName;

    fn from_str(name: &str) -> Result<Codec, UnknownCodecName> {
        let found = Codec::ALL.into_iter().find(|codec| codec.name() == name);
        found.ok_or_else(|| UnknownCodecName { name: name.to_owned() })
    }
}

/// Appends what `data` decompresses to, of which there may be no more than `max` bytes, to the empty `out`.
#[cfg(feature = "codecs")]
pub(crate) fn decompress(codec: Codec, data: &[u8], max: usize, out: &mut Vec<u8>) -> Result<(), BatchError> {
    let whole = match codec {
        Codec::None => {
            out.extend_from_slice(data);
            Ok(())
        }
        Codec::Gzip => read_bounded(flate2::read::MultiGzDecoder::new(data), max, out),
        Codec::Snappy => snappy::decompress(data, max, out),
        Codec::Lz4 => read_bounded(lz4::Reader::new(data), max, out),
        Codec::Zstd => zstd_decoder(data, max).and_then(|decoder| read_bounded(decoder, max, out)),
    };
    whole.map_err(|_| BatchError::Compression { codec: codec.name() })?;
    if out.len() > max { Err(BatchError::Bomb { max }) } else { Ok(()) }
}

#[cfg(not(feature = "codecs"))]
pub(crate) fn decompress(codec: Codec, _: &[u8], _: usize, _: &mut Vec<u8>) -> Result<(), BatchError> {
    Err(BatchError::CodecNotBuilt { codec: codec.name() })
}

/// Appends `data` compressed to `out`.
#[cfg(feature = "codecs")]
pub(crate) fn compress(codec: Codec, data: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    use std::io::Write;
    let mut encoder = crate::encode::Encoder::new(codec, &mut *out)?;
    let written = encoder.write_all(data).and_then(|()| encoder.finish());
    written.map_err(|_| BatchError::Compression { codec: codec.name() })
}

#[cfg(not(feature = "codecs"))]
pub(crate) fn compress(codec: Codec, _: &[u8], _: &mut Vec<u8>) -> Result<(), BatchError> {
    Err(BatchError::CodecNotBuilt { codec: codec.name() })
}

/// Reads to the end, or to one byte beyond `max`, which is how the caller sees that there was more.
#[cfg(feature = "codecs")]
fn read_bounded(from: impl std::io::Read, max: usize, out: &mut Vec<u8>) -> std::io::Result<()> {
    use std::io::Read;
    from.take(max as u64 + 1).read_to_end(out).map(drop)
}

/// A zstd frame declares the window it needs, up to 2 GiB, and the decoder allocates it: no window may be much larger
/// than the output may be. 8 MiB, which RFC 8878 asks every decoder to take, is allowed always.
#[cfg(feature = "codecs")]
fn zstd_decoder(data: &[u8], max: usize) -> std::io::Result<zstd::Decoder<'static, &[u8]>> {
    let window_log_max = max.next_power_of_two().ilog2().clamp(23, 27);
    let mut decoder = zstd::Decoder::with_buffer(data)?;
    decoder.window_log_max(window_log_max)?;
    Ok(decoder)
}

/// Ends of LZ4 frames and empty snappy blocks in a payload: of those that take 5 bytes there could be millions.
#[cfg(feature = "codecs")]
const EMPTY_MAX: usize = 1024;

/// LZ4 frames, one after another, as far as the data go: the decoder stops behind each.
#[cfg(feature = "codecs")]
pub(crate) mod lz4 {
    use lz4_flex::frame::FrameDecoder;
    use std::io::{self, Read};

    pub(crate) struct Reader<'a> {
        frames: FrameDecoder<&'a [u8]>,
        empty: usize,
    }

    impl<'a> Reader<'a> {
        pub(crate) fn new(data: &'a [u8]) -> Reader<'a> {
            Reader { frames: FrameDecoder::new(data), empty: 0 }
        }
    }

    impl Read for Reader<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            loop {
                match self.frames.read(out)? {
                    0 if self.frames.get_ref().is_empty() => return Ok(0),
                    0 if self.empty == super::EMPTY_MAX => return Err(io::ErrorKind::InvalidData.into()),
                    0 => self.empty += 1,
                    count => return Ok(count),
                }
            }
        }
    }
}

/// The framing of snappy-java: `82 "SNAPPY" 00`, two big endian words for version and oldest compatible version, then
/// blocks, each behind its length as a big endian word.
#[cfg(feature = "codecs")]
pub(crate) mod snappy {
    use std::io;

    const MAGIC: &[u8] = b"\x82SNAPPY\0";
    const VERSION_BYTES: usize = 8;
    /// A copy of 64 bytes takes three: nothing honest expands more than this.
    const EXPANSION_MAX: usize = 22;

    pub(super) fn decompress(data: &[u8], max: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let mut blocks = Blocks::of(data)?;
        while out.len() <= max
            && let Some(compressed) = blocks.next()?
        {
            block(compressed, max, out)?;
        }
        Ok(())
    }

    /// The compressed blocks of a batch.
    enum Blocks<'a> {
        Bare(Option<&'a [u8]>),
        Framed(&'a [u8]),
    }

    impl<'a> Blocks<'a> {
        fn of(data: &'a [u8]) -> io::Result<Blocks<'a>> {
            let Some(framed) = data.strip_prefix(MAGIC) else { return Ok(Blocks::Bare(Some(data))) };
            Ok(Blocks::Framed(framed.get(VERSION_BYTES..).ok_or(io::ErrorKind::UnexpectedEof)?))
        }

        fn next(&mut self) -> io::Result<Option<&'a [u8]>> {
            let rest = match self {
                Blocks::Bare(block) => return Ok(block.take()),
                Blocks::Framed([]) => return Ok(None),
                Blocks::Framed(rest) => rest,
            };
            let (length, behind) = rest.split_first_chunk::<4>().ok_or(io::ErrorKind::UnexpectedEof)?;
            let length = u32::from_be_bytes(*length) as usize;
            let (compressed, behind) = behind.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
            *rest = behind;
            Ok(Some(compressed))
        }
    }

    /// Gives a batch's bytes unpacked, a block at a time. After an empty one it says that it would block.
    pub(crate) struct Reader<'a> {
        blocks: Blocks<'a>,
        block: Vec<u8>,
        /// What of the block has been read.
        at: usize,
        block_bytes_max: usize,
        empty: usize,
    }

    impl<'a> Reader<'a> {
        pub(crate) fn new(data: &'a [u8], block_bytes_max: usize) -> io::Result<Reader<'a>> {
            Ok(Reader { blocks: Blocks::of(data)?, block: Vec::new(), at: 0, block_bytes_max, empty: 0 })
        }
    }

    impl io::Read for Reader<'_> {
        fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
            while self.at == self.block.len() {
                let Some(compressed) = self.blocks.next()? else { return Ok(0) };
                self.at = 0;
                self.block.clear();
                block(compressed, self.block_bytes_max, &mut self.block)?;
                if self.block.len() > self.block_bytes_max {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                if self.block.is_empty() {
                    self.empty += 1;
                    let kind = if self.empty > super::EMPTY_MAX {
                        io::ErrorKind::InvalidData
                    } else {
                        io::ErrorKind::WouldBlock
                    };
                    return Err(kind.into());
                }
            }
            let count = out.len().min(self.block.len() - self.at);
            out[..count].copy_from_slice(&self.block[self.at..self.at + count]);
            self.at += count;
            Ok(count)
        }
    }

    /// Appends one block. A block that would lead beyond `max` leaves `out` longer than `max` and is not expanded.
    fn block(compressed: &[u8], max: usize, out: &mut Vec<u8>) -> io::Result<()> {
        let begin = out.len();
        let length = snap::raw::decompress_len(compressed)?;
        if length / EXPANSION_MAX > compressed.len() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if length > max - begin {
            out.resize(max + 1, 0);
            return Ok(());
        }
        out.resize(begin + length, 0);
        snap::raw::Decoder::new().decompress(compressed, &mut out[begin..])?;
        Ok(())
    }
}
