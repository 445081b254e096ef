//! From received bytes to frames: parsed where they arrived if a frame is whole there, else put together in a buffer that
//! grows with the bytes that arrive, never with the length that is announced.

use super::dialect::Head;
use corelog_engine::reactor::{Buffer, Pool};
use std::cell::Cell;
use std::marker::PhantomData;
use std::rc::Rc;

/// How a protocol divides its bytes into frames.
pub(crate) trait Framing {
    /// Bytes after which a frame's size is known; a [`Head`] at most.
    const HEADER_BYTES: usize;

    /// Bytes of the frame that begins with these, at least [`Framing::HEADER_BYTES`]. `usize::MAX` where no frame does.
    fn frame_bytes(first: &[u8]) -> usize;

    /// The same, or None while too little has come, or a refusal of what is over `bytes_max`: before a byte of it is waited
    /// for or room made for it.
    fn size(bytes: &[u8], bytes_max: usize) -> Result<Option<usize>, TooLarge> {
        if bytes.len() < Self::HEADER_BYTES {
            return Ok(None);
        }
        let size = Self::frame_bytes(bytes);
        if size > bytes_max { Err(TooLarge(Self::head(bytes))) } else { Ok(Some(size)) }
    }

    /// The first bytes of a frame of which so much has come.
    fn head(bytes: &[u8]) -> Head {
        let mut head = Head::default();
        head[..Self::HEADER_BYTES].copy_from_slice(&bytes[..Self::HEADER_BYTES]);
        head
    }
}

/// A frame is larger than is allowed, or none. Nothing behind its first bytes can be trusted to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLarge(pub(crate) Head);

/// Bytes of frames in part, of all connections of a shard.
#[derive(Debug)]
pub(crate) struct FrameMemory {
    used: Cell<usize>,
    max: usize,
}

impl FrameMemory {
    pub(crate) fn new(max: usize) -> Rc<FrameMemory> {
        Rc::new(FrameMemory { used: Cell::new(0), max })
    }
}

/// There is no memory for more of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NoMemory;

/// Where the next frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Whole, so many bytes at the front of the fresh ones.
    Fresh(usize),
    /// Whole, so many bytes at the front of the held ones.
    Held(usize),
    /// All bytes are taken in and no frame is whole.
    None,
    /// A frame ended that there was no memory for; its bytes are gone.
    Skipped(Head),
    /// There is no memory for as much as a header now.
    Blocked,
}

/// The bytes of a connection that are not a whole frame yet.
#[derive(Debug)]
pub(crate) struct Inbox<F> {
    pool: Pool,
    memory: Rc<FrameMemory>,
    buffer: Option<Buffer>,
    /// Held bytes lie here in the buffer.
    start: usize,
    end: usize,
    /// A frame that there was no memory for, and how much of it is still to come.
    skipping: Option<(Head, usize)>,
    framing: PhantomData<F>,
}

const FIRST_CAPACITY: usize = 4096;

impl<F: Framing> Inbox<F> {
    pub(crate) fn new(pool: &Pool, memory: &Rc<FrameMemory>) -> Inbox<F> {
        let (pool, memory) = (pool.clone(), memory.clone());
        Inbox { pool, memory, buffer: None, start: 0, end: 0, skipping: None, framing: PhantomData }
    }

    /// The bytes held.
    pub(crate) fn held(&self) -> &[u8] {
        self.buffer.as_ref().map_or(&[], |buffer| &buffer[self.start..self.end])
    }

    /// Whether a frame has begun and is not whole.
    pub(crate) fn is_waiting(&self) -> bool {
        self.start < self.end || self.skipping.is_some()
    }

    /// Looks for the next frame in what is held and what is `fresh`, taking in from `fresh` what is needed.
    pub(crate) fn next(&mut self, fresh: &mut &[u8], bytes_max: usize) -> Result<Next, TooLarge> {
        if let Some(skipped) = self.skip(fresh) {
            return Ok(skipped);
        }
        if self.start == self.end {
            return match F::size(fresh, bytes_max)? {
                Some(size) if size <= fresh.len() => Ok(Next::Fresh(size)),
                size => Ok(self.take_in(fresh, fresh.len(), size)),
            };
        }
        loop {
            let held = self.held();
            let size = F::size(held, bytes_max)?;
            if let Some(size) = size.filter(|size| *size <= held.len()) {
                return Ok(Next::Held(size));
            }
            let missing = (size.unwrap_or(F::HEADER_BYTES) - held.len()).min(fresh.len());
            if missing == 0 {
                return Ok(Next::None);
            }
            match self.take_in(fresh, missing, size) {
                Next::None if self.skipping.is_none() => {}
                next => return Ok(next),
            }
        }
    }

    /// Takes `count` bytes of `fresh` in. They belong to one frame; without memory for them that frame is skipped.
    fn take_in(&mut self, fresh: &mut &[u8], count: usize, size: Option<usize>) -> Next {
        if self.hold(&fresh[..count]).is_ok() {
            *fresh = &fresh[count..];
            return Next::None;
        }
        let Some(size) = size else { return Next::Blocked };
        let held = self.held();
        let head = F::head(if held.is_empty() { fresh } else { held });
        let left = size - held.len();
        self.forget();
        self.skipping = Some((head, left));
        self.skip(fresh).unwrap_or(Next::None)
    }

    fn skip(&mut self, fresh: &mut &[u8]) -> Option<Next> {
        let (head, left) = self.skipping?;
        let passed = left.min(fresh.len());
        *fresh = &fresh[passed..];
        if passed < left {
            self.skipping = Some((head, left - passed));
            return Some(Next::None);
        }
        self.skipping = None;
        Some(Next::Skipped(head))
    }

    /// Drops `bytes` held bytes from the front.
    pub(crate) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.end, "no more is consumed than is held");
        if self.start == self.end {
            self.forget();
        }
    }

    /// Copies bytes behind what is held.
    pub(crate) fn hold(&mut self, bytes: &[u8]) -> Result<(), NoMemory> {
        if bytes.is_empty() {
            return Ok(());
        }
        let capacity = self.buffer.as_ref().map_or(0, Buffer::capacity);
        if capacity - self.end < bytes.len() {
            self.make_room(bytes.len())?;
        }
        if let Some(buffer) = &mut self.buffer {
            buffer[self.end..self.end + bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
        Ok(())
    }

    /// Moves what is held to the front of the buffer, or of one at least twice as large.
    fn make_room(&mut self, more: usize) -> Result<(), NoMemory> {
        let held = self.end - self.start;
        let had = self.buffer.as_ref().map_or(0, Buffer::capacity);
        if held + more <= had {
            if let Some(buffer) = &mut self.buffer {
                buffer.copy_within(self.start..self.end, 0);
            }
        } else {
            let wanted = (held + more).next_power_of_two().max(FIRST_CAPACITY);
            if self.memory.used.get() - had + wanted > self.memory.max {
                return Err(NoMemory);
            }
            let mut larger = self.pool.buffer(wanted).ok_or(NoMemory)?;
            larger[..held].copy_from_slice(self.held());
            self.memory.used.set(self.memory.used.get() - had + larger.capacity());
            self.buffer = Some(larger);
        }
        (self.start, self.end) = (0, held);
        Ok(())
    }
}

impl<F> Inbox<F> {
    fn forget(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.memory.used.set(self.memory.used.get() - buffer.capacity());
        }
        (self.start, self.end) = (0, 0);
    }
}

impl<F> Drop for Inbox<F> {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_wire::{Frame, HEADER_BYTES, Header, Operation};
    use proptest::prelude::*;

    const BYTES_MAX: usize = HEADER_BYTES + (1 << 20);

    /// Frames of the native protocol.
    #[derive(Debug)]
    struct Native;

    impl Framing for Native {
        const HEADER_BYTES: usize = HEADER_BYTES;

        fn frame_bytes(first: &[u8]) -> usize {
            HEADER_BYTES + header(first).length as usize
        }
    }

    fn header(bytes: &[u8]) -> Header {
        Header::parse(bytes.first_chunk().unwrap())
    }

    fn frame(correlation: u32, body: &[u8]) -> Vec<u8> {
        let header =
            Header { length: body.len() as u32, ..Header::request(Operation::Produce, correlation, correlation) };
        [&header.to_bytes()[..], body].concat()
    }

    fn inbox(memory_max: usize) -> Inbox<Native> {
        Inbox::new(&Pool::heap(1 << 20), &FrameMemory::new(memory_max))
    }

    /// Feeds pieces and returns what came out: correlation and body, or None for a body that was skipped.
    fn feed(inbox: &mut Inbox<Native>, pieces: &[&[u8]]) -> Vec<(u32, Option<Vec<u8>>)> {
        let mut found = Vec::new();
        for piece in pieces {
            let mut fresh = *piece;
            loop {
                match inbox.next(&mut fresh, BYTES_MAX).unwrap() {
                    Next::Fresh(size) => {
                        let frame = Frame::first(&fresh[..size], u32::MAX).unwrap().unwrap();
                        found.push((frame.header.correlation, Some(frame.body.to_vec())));
                        fresh = &fresh[size..];
                    }
                    Next::Held(size) => {
                        let frame = Frame::first(&inbox.held()[..size], u32::MAX).unwrap().unwrap();
                        found.push((frame.header.correlation, Some(frame.body.to_vec())));
                        inbox.consume(size);
                    }
                    Next::Skipped(head) => found.push((header(&head).correlation, None)),
                    Next::None => break,
                    Next::Blocked => panic!("there is memory for a header"),
                }
            }
            assert!(fresh.is_empty(), "everything is taken in");
        }
        found
    }

    proptest! {
        #[test]
        fn frames_come_out_however_the_bytes_are_cut(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..9000), 1..6),
            cuts in prop::collection::vec(1usize..6000, 1..20),
        ) {
            let bytes: Vec<u8> = bodies.iter().enumerate().flat_map(|(at, body)| frame(at as u32, body)).collect();
            let (mut pieces, mut rest) = (Vec::new(), &bytes[..]);
            for cut in cuts.iter().cycle() {
                let (piece, behind) = rest.split_at((*cut).min(rest.len()));
                pieces.push(piece);
                rest = behind;
                if rest.is_empty() {
                    break;
                }
            }
            let mut inbox = inbox(1 << 20);
            let expected: Vec<_> = bodies.into_iter().enumerate().map(|(at, body)| (at as u32, Some(body))).collect();
            prop_assert_eq!(feed(&mut inbox, &pieces), expected);
            prop_assert!(!inbox.is_waiting());
            prop_assert_eq!(inbox.memory.used.get(), 0);
        }
    }

    #[test]
    fn memory_follows_what_arrived_not_what_was_announced() {
        let mut inbox = inbox(1 << 20);
        let huge = Header { length: 1 << 20, ..Header::request(Operation::Produce, 1, 1) };
        assert_eq!(feed(&mut inbox, &[&huge.to_bytes(), &[0; 100]]), []);
        assert_eq!(inbox.memory.used.get(), 4096);
        assert_eq!(feed(&mut inbox, &[&[0; 9000]]), []);
        assert_eq!(inbox.memory.used.get(), 16384);
    }

    #[test]
    fn a_frame_without_memory_is_skipped_and_the_next_one_is_not() {
        let mut inbox = inbox(8192);
        let (large, small) = (frame(1, &[7; 20_000]), frame(2, b"small"));
        let bytes = [&large[..], &small, &large, &small].concat();
        let pieces: Vec<&[u8]> = bytes.chunks(3000).collect();
        let small = Some(b"small".to_vec());
        assert_eq!(feed(&mut inbox, &pieces), [(1, None), (2, small.clone()), (1, None), (2, small)]);
        assert_eq!(inbox.memory.used.get(), 0);
    }

    #[test]
    fn without_memory_for_a_header_nothing_is_taken_in() {
        let mut inbox = inbox(0);
        let bytes = frame(1, b"body");
        let mut fresh = &bytes[..10];
        assert_eq!(inbox.next(&mut fresh, 1000), Ok(Next::Blocked));
        assert_eq!(fresh.len(), 10);
        assert_eq!(feed(&mut inbox, &[&bytes[..16], &bytes[16..]]), [(1, None)]);
    }

    #[test]
    fn one_byte_at_a_time_is_enough() {
        let bytes = [frame(1, b"one"), frame(2, b"")].concat();
        let pieces: Vec<&[u8]> = bytes.chunks(1).collect();
        let found = feed(&mut inbox(4096), &pieces);
        assert_eq!(found, [(1, Some(b"one".to_vec())), (2, Some(Vec::new()))]);
    }

    #[test]
    fn whole_frames_can_be_held_back() {
        let mut inbox = inbox(8192);
        inbox.hold(&[frame(1, b"one"), frame(2, b"two")].concat()).unwrap();
        let found = feed(&mut inbox, &[&frame(3, b"three")]);
        assert_eq!(found.iter().map(|(correlation, _)| *correlation).collect::<Vec<_>>(), [1, 2, 3]);
    }

    #[test]
    fn too_large_is_told_before_anything_is_taken_in() {
        let mut inbox = inbox(8192);
        let bytes = frame(1, &[0; 100]);
        let mut fresh = &bytes[..HEADER_BYTES];
        assert!(inbox.next(&mut fresh, 99).is_err());
        let mut fresh = &bytes[..5];
        assert_eq!(inbox.next(&mut fresh, 99), Ok(Next::None));
        let mut fresh = &bytes[5..];
        assert!(inbox.next(&mut fresh, 99).is_err());
    }
}
