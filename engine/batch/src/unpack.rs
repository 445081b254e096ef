//! Whether the records of a compressed batch are what its header says, found piece by piece: a batch of a few KiB may
//! unpack to 100 MiB, which a server neither has the memory for nor the time at a stretch.

use crate::codec::{lz4, snappy};
use crate::encode::Encoder;
use crate::header::{BatchView, CODEC_BITS, HEADER_BYTES, seal};
use crate::record::take_record;
use crate::validate::{check_count, check_record};
use crate::{BatchError, Codec, varint};
use std::cell::Cell;
use std::io::{self, BufRead, Read, Write};
use zstd::zstd_safe::{DCtx, DParameter};

/// Bytes that are unpacked between two pauses: 10 to 100 us of work.
const PIECE_BYTES: usize = 32 << 10;
/// Bytes that a codec takes in between two pauses: fewer as long as little comes out, for an empty deflate block of 10 bits
/// takes 4 us.
const INPUT_BYTES_MIN: usize = 128;
const INPUT_BYTES_MAX: usize = 4 << 10;
/// Bytes that a codec may take in beyond twice what comes out. A zstd block of 128 KiB is taken in before any of it comes
/// out. More is padding: nothing honest grows when it is compressed, and empty blocks cost time for nothing.
const AHEAD_BYTES_MAX: usize = 4 << 10;
const ZSTD_AHEAD_BYTES_MAX: usize = 256 << 10;
/// A zstd context that has grown beyond this is given back before another codec asks for memory.
const ZSTD_KEPT_BYTES_MAX: usize = 1 << 20;
/// What an LZ4 frame begins with. The decoder takes other formats too, which other readers of batches do not.
const LZ4_MAGIC: [u8; 4] = 0x184d_2204_u32.to_le_bytes();
/// The bit of the byte behind that which says that each block can be unpacked alone.
const LZ4_INDEPENDENT: u8 = 1 << 5;
/// Bytes of the longest number in a record.
const NUMBER_BYTES_MAX: usize = 10;
/// A zstd frame's window may be 8 MiB, which RFC 8878 asks every decoder to take; levels up to 19 ask for no more.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// Blocks of snappy are unpacked whole. Framed ones are of 32 KiB, but some clients send a batch as one bare block.
const SNAPPY_BLOCK_BYTES_MAX: usize = 8 << 20;
/// What a codec may take to compress: zstd's window of 1 MiB, and its tables.
const PACKING_BYTES_MAX: usize = 3 << 20;

/// Bytes that are compressed between two pauses: gzip takes 100 us for them.
const PACKED_AT_ONCE: usize = 4 << 10;

/// How a batch is to be compressed anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repack {
    /// By this codec.
    pub codec: Codec,
    /// Bytes that it may take then, header included.
    pub bytes_max: usize,
    /// Bytes that its records may take as they are.
    pub unpacked_max: usize,
}

/// Checks compressed batches, one after another, in bounded memory: 8 MiB for the window or the blocks of the codec, and
/// a piece.
pub struct Unpacker {
    piece: Box<[u8]>,
    /// Bytes that the codec may take in before the next pause.
    allowance: Cell<usize>,
    /// Made for the first batch that is compressed with zstd.
    zstd: Option<DCtx<'static>>,
}

impl std::fmt::Debug for Unpacker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacker").finish_non_exhaustive()
    }
}

impl Default for Unpacker {
    fn default() -> Unpacker {
        Unpacker { piece: vec![0; PIECE_BYTES].into(), allowance: Cell::new(0), zstd: None }
    }
}

impl Unpacker {
    /// Bytes that a check may take beside its batch, or compressing it anew beside that and what comes of it.
    pub const BYTES_MAX: usize = (8 << 20) + (1 << 20) + PACKING_BYTES_MAX;

    /// Checks the records of a compressed batch, which may unpack to `max` bytes: what [`validate`](crate::validate) checks
    /// of records as they are. Awaits `pause()` every now and then, so that others get on. Gives the bytes unpacked.
    ///
    /// # Errors
    /// The first thing that is wrong. Where the checksum is wrong too, that is why.
    pub async fn check<P: Future<Output = ()>>(
        &mut self,
        batch: &BatchView<'_>,
        max: usize,
        pause: impl FnMut() -> P,
    ) -> Result<usize, BatchError> {
        self.walk(batch, max, None, pause).await
    }

    /// Appends the batch to `out` with its records compressed by another codec, or not at all; it may have been compressed or
    /// not. They are checked as by [`Unpacker::check`]. Gives the bytes unpacked.
    ///
    /// # Errors
    /// The first thing that is wrong, among that `TooLargeRepacked`. Then `out` is as it was.
    pub async fn repack<P: Future<Output = ()>>(
        &mut self,
        batch: &BatchView<'_>,
        how: &Repack,
        out: &mut Vec<u8>,
        pause: impl FnMut() -> P,
    ) -> Result<usize, BatchError> {
        let begin = out.len();
        let too_large = || BatchError::TooLargeRepacked { codec: how.codec.name(), max: how.bytes_max };
        let mut bounded = Bounded { out, end_max: begin.saturating_add(how.bytes_max) };
        let unpacked = match bounded.write_all(&batch.bytes()[..HEADER_BYTES]) {
            Ok(()) => self.pack(batch, how, bounded, too_large, pause).await,
            Err(_) => Err(too_large()),
        };
        match unpacked {
            Ok(_) => {
                let codec_bits = u16::from(how.codec.code());
                seal(&mut out[begin..], batch.attributes() & !CODEC_BITS | codec_bits);
            }
            Err(_) => out.truncate(begin),
        }
        unpacked
    }

    async fn pack<P: Future<Output = ()>>(
        &mut self,
        batch: &BatchView<'_>,
        how: &Repack,
        to: Bounded<'_>,
        too_large: impl Fn() -> BatchError,
        pause: impl FnMut() -> P,
    ) -> Result<usize, BatchError> {
        let mut packing = Packing { encoder: Encoder::new(how.codec, to)?, too_large: too_large() };
        let unpacked = self.walk(batch, how.unpacked_max, Some(&mut packing), pause).await?;
        packing.encoder.finish().map_err(|_| too_large())?;
        Ok(unpacked)
    }

    async fn walk<P: Future<Output = ()>>(
        &mut self,
        batch: &BatchView<'_>,
        max: usize,
        packing: Option<&mut Packing<'_>>,
        pause: impl FnMut() -> P,
    ) -> Result<usize, BatchError> {
        let count = check_count(batch)?;
        let codec = batch.codec()?;
        if codec != Codec::Zstd && self.zstd.as_ref().is_some_and(|context| context.sizeof() > ZSTD_KEPT_BYTES_MAX) {
            self.zstd = None;
        }
        if codec == Codec::Lz4 && is_linked(batch.payload()) {
            return Err(BatchError::Lz4Linked);
        }
        self.allowance.set(INPUT_BYTES_MAX / 8);
        let input = Input { data: batch.payload(), allowance: &self.allowance };
        let mut unpacked = Unpacked {
            from: reader(codec, input, &mut self.zstd).map_err(|_| broken(codec))?,
            codec,
            piece: &mut self.piece,
            at: 0,
            end: 0,
            is_all: false,
            max,
            left: max,
            since_pause: 0,
            input_bytes: INPUT_BYTES_MAX / 8,
            taken_in: 0,
            allowance: &self.allowance,
            packing,
            pause,
        };
        for index in 0..count {
            let record = match unpacked.record_at_hand() {
                Some(record) => record,
                None => unpacked.record_in_parts().await,
            };
            let deltas = record.map_err(|fault| fault.at(index))?;
            check_record(batch, index, deltas.offset, deltas.timestamp)?;
        }
        match unpacked.rest().await? {
            0 => Ok(max - unpacked.left),
            bytes => Err(BatchError::TrailingBytes { bytes }),
        }
    }
}

/// What records are compressed with as they come out of their codec.
struct Packing<'a> {
    encoder: Encoder<Bounded<'a>>,
    /// When there is no room for what comes of it.
    too_large: BatchError,
}

/// The end of a vector that may not grow past a bound, nor take much more memory than it has bytes.
struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    end_max: usize,
}

impl Write for Bounded<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.len() > self.end_max.saturating_sub(self.out.len()) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if self.out.capacity() - self.out.len() < bytes.len() {
            self.out.reserve_exact(bytes.len().max(self.out.len() / 8));
        }
        self.out.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether it is an LZ4 frame whose blocks depend on one another.
fn is_linked(data: &[u8]) -> bool {
    let flags = data.strip_prefix(&LZ4_MAGIC).and_then(|rest| rest.first());
    flags.is_some_and(|flags| flags & LZ4_INDEPENDENT == 0)
}

fn reader<'a>(codec: Codec, input: Input<'a>, zstd: &'a mut Option<DCtx<'static>>) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match codec {
        Codec::None => Box::new(input),
        Codec::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(input)),
        // These two go through a block at a time anyway, and cannot stop within one.
        Codec::Snappy => Box::new(snappy::Reader::new(input.data, SNAPPY_BLOCK_BYTES_MAX)?),
        Codec::Lz4 if !input.data.starts_with(&LZ4_MAGIC) => return Err(io::ErrorKind::InvalidData.into()),
        Codec::Lz4 => Box::new(lz4::Reader::new(input.data)),
        Codec::Zstd => {
            let context = match zstd {
                Some(context) => context,
                None => zstd.insert(zstd_context()?),
            };
            Box::new(zstd::Decoder::with_context(input, context))
        }
    })
}

fn zstd_context() -> io::Result<DCtx<'static>> {
    let mut context = DCtx::try_create().ok_or(io::ErrorKind::OutOfMemory)?;
    let set = context.set_parameter(DParameter::WindowLogMax(ZSTD_WINDOW_LOG_MAX));
    set.map(|_| context).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// What a codec takes in, a little at a time: then it says that it would block, which codecs that work on streams come back
/// from.
struct Input<'a> {
    data: &'a [u8],
    allowance: &'a Cell<usize>,
}

impl BufRead for Input<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let length = self.data.len().min(self.allowance.get());
        if length == 0 && !self.data.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(&self.data[..length])
    }

    fn consume(&mut self, count: usize) {
        self.data = &self.data[count..];
        self.allowance.set(self.allowance.get() - count);
    }
}

impl Read for Input<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

fn broken(codec: Codec) -> BatchError {
    BatchError::Compression { codec: codec.name() }
}

/// What is wrong with the bytes at hand.
enum Fault {
    /// A length in the record, or the record's own.
    Lies,
    /// The batch.
    Batch(BatchError),
}

impl Fault {
    fn at(self, index: u32) -> BatchError {
        match self {
            Fault::Lies => BatchError::RecordLies { index },
            Fault::Batch(error) => error,
        }
    }
}

struct Deltas {
    timestamp: i64,
    offset: i32,
}

/// The records of a batch as they come out of their codec, of which a piece is at hand.
struct Unpacked<'a, 'p, F> {
    from: Box<dyn Read + 'a>,
    codec: Codec,
    piece: &'a mut [u8],
    /// What is at hand lies here in the piece.
    at: usize,
    end: usize,
    /// Nothing more comes.
    is_all: bool,
    /// Bytes that may come in all, and that may still come.
    max: usize,
    left: usize,
    since_pause: usize,
    /// Bytes that the codec may take in between two pauses, for now.
    input_bytes: usize,
    /// Bytes that it has taken in, up to the last pause.
    taken_in: usize,
    allowance: &'a Cell<usize>,
    packing: Option<&'a mut Packing<'p>>,
    pause: F,
}

impl<P: Future<Output = ()>, F: FnMut() -> P> Unpacked<'_, '_, F> {
    /// Passes one record that is at hand as a whole, as nearly all are.
    #[inline]
    fn record_at_hand(&mut self) -> Option<Result<Deltas, Fault>> {
        let bytes = &self.piece[self.at..self.end];
        let mut behind = bytes;
        let length = varint::take_i32(&mut behind)?;
        if behind.len() < usize::try_from(length).ok()? {
            return None;
        }
        let mut rest = bytes;
        let record = take_record(&mut rest);
        self.at += bytes.len() - rest.len();
        Some(
            record
                .map(|record| Deltas { timestamp: record.timestamp_delta, offset: record.offset_delta })
                .ok_or(Fault::Lies),
        )
    }

    /// Passes one record as it comes. Its layout is in the module of records.
    async fn record_in_parts(&mut self) -> Result<Deltas, Fault> {
        let length = self.number(&mut NUMBER_BYTES_MAX.clone(), varint::take_i32).await?;
        let mut left = usize::try_from(length).map_err(|_| Fault::Lies)?;
        self.skip(1, &mut left).await?;
        let timestamp = self.number(&mut left, varint::take_i64).await?;
        let offset = self.number(&mut left, varint::take_i32).await?;
        self.nullable(&mut left).await?;
        self.nullable(&mut left).await?;
        let headers = self.number(&mut left, varint::take_i32).await?;
        for _ in 0..u32::try_from(headers).map_err(|_| Fault::Lies)? {
            if !self.nullable(&mut left).await? {
                return Err(Fault::Lies);
            }
            self.nullable(&mut left).await?;
        }
        if left == 0 { Ok(Deltas { timestamp, offset }) } else { Err(Fault::Lies) }
    }

    /// Takes a number, which must lie within the `left` bytes of its record.
    async fn number<T>(&mut self, left: &mut usize, take: fn(&mut &[u8]) -> Option<T>) -> Result<T, Fault> {
        while self.end - self.at < NUMBER_BYTES_MAX && !self.is_all {
            self.fill().await?;
        }
        let bytes = &self.piece[self.at..self.end.min(self.at.saturating_add(*left))];
        let mut rest = bytes;
        let number = take(&mut rest).ok_or(Fault::Lies)?;
        let taken = bytes.len() - rest.len();
        self.at += taken;
        *left -= taken;
        Ok(number)
    }

    /// Passes a length and as many bytes; false for null.
    async fn nullable(&mut self, left: &mut usize) -> Result<bool, Fault> {
        let length = self.number(left, varint::take_i32).await?;
        if length == -1 {
            return Ok(false);
        }
        self.skip(usize::try_from(length).map_err(|_| Fault::Lies)?, left).await?;
        Ok(true)
    }

    async fn skip(&mut self, mut count: usize, left: &mut usize) -> Result<(), Fault> {
        *left = left.checked_sub(count).ok_or(Fault::Lies)?;
        while count > self.end - self.at {
            count -= self.end - self.at;
            self.at = self.end;
            if self.is_all {
                return Err(Fault::Lies);
            }
            self.fill().await?;
        }
        self.at += count;
        Ok(())
    }

    /// Counts what is left.
    async fn rest(&mut self) -> Result<usize, BatchError> {
        let mut rest = 0;
        loop {
            rest += self.end - self.at;
            self.at = self.end;
            if self.is_all {
                return Ok(rest);
            }
            self.fill().await.map_err(|fault| fault.at(0))?;
        }
    }

    /// Passes the `count` bytes that came last on to be compressed.
    async fn pack(&mut self, count: usize) -> Result<(), Fault> {
        let Some(packing) = &mut self.packing else { return Ok(()) };
        for bytes in self.piece[self.end..self.end + count].chunks(PACKED_AT_ONCE) {
            packing.encoder.write_all(bytes).map_err(|_| Fault::Batch(packing.too_large))?;
            if bytes.len() == PACKED_AT_ONCE {
                (self.pause)().await;
            }
        }
        Ok(())
    }

    async fn pause(&mut self) {
        (self.pause)().await;
        self.taken_in += self.input_bytes - self.allowance.get();
        let input = if self.since_pause >= self.input_bytes { self.input_bytes * 2 } else { self.input_bytes / 2 };
        self.input_bytes = input.clamp(INPUT_BYTES_MIN, INPUT_BYTES_MAX);
        self.allowance.set(self.input_bytes);
        self.since_pause = 0;
    }

    fn check_padding(&self) -> Result<(), Fault> {
        let ahead = if self.codec == Codec::Zstd { ZSTD_AHEAD_BYTES_MAX } else { AHEAD_BYTES_MAX };
        let is_padded = self.taken_in > 2 * (self.max - self.left) + ahead;
        if is_padded { Err(Fault::Batch(BatchError::Padded { codec: self.codec.name() })) } else { Ok(()) }
    }

    /// Unpacks more behind what is at hand.
    async fn fill(&mut self) -> Result<(), Fault> {
        if self.since_pause >= PIECE_BYTES {
            self.pause().await;
        }
        self.piece.copy_within(self.at..self.end, 0);
        (self.at, self.end) = (0, self.end - self.at);
        let count = loop {
            match self.from.read(&mut self.piece[self.end..]) {
                Ok(count) => break count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.pause().await;
                    self.check_padding()?;
                }
                Err(_) => return Err(Fault::Batch(broken(self.codec))),
            }
        };
        self.left = self.left.checked_sub(count).ok_or(Fault::Batch(BatchError::Bomb { max: self.max }))?;
        self.pack(count).await?;
        self.end += count;
        self.since_pause += count;
        self.is_all = count == 0;
        Ok(())
    }
}
