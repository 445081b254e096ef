//! Memory that the kernel fills with what arrives on sockets, and gets back when it was read.
#![allow(unsafe_code)]

use crate::reactor::buffers::{PAGE, Region};
use io_uring::types::BufRingEntry;
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

/// The group under which the kernel knows the buffers.
pub(super) const GROUP: u16 = 0;

/// All receive buffers of a reactor: `[entries of the buffer ring, page-aligned][buffer 0][buffer 1]...`.
pub(super) struct Buffers {
    region: Region,
    count: u16,
    buffer_bytes: usize,
    /// Buffers given to the kernel so far, modulo 65536.
    tail: Cell<u16>,
    /// Buffers that neither the kernel nor `free` has.
    lent: Cell<u16>,
    /// Without a buffer ring: buffers that nobody uses.
    free: RefCell<Vec<u16>>,
    /// Whether the kernel picks buffers by itself.
    ringed: bool,
}

/// One buffer with bytes that arrived. Goes back when dropped.
pub(crate) struct Provided {
    buffers: Rc<Buffers>,
    id: u16,
    len: usize,
}

impl Buffers {
    /// `count` must be a power of two. With `ringed` the caller then registers [`Buffers::ring_address`].
    pub(super) fn new(count: u16, buffer_bytes: usize, ringed: bool) -> io::Result<Rc<Buffers>> {
        assert!(
            count.is_power_of_two() && buffer_bytes.is_multiple_of(PAGE),
            "receive buffers: {count} of {buffer_bytes}"
        );
        let region = Region::map(ring_bytes(count) + usize::from(count) * buffer_bytes)?;
        let buffers = Buffers {
            region,
            count,
            buffer_bytes,
            tail: Cell::new(0),
            lent: Cell::new(count),
            free: RefCell::new(Vec::with_capacity(usize::from(count))),
            ringed,
        };
        (0..count).for_each(|id| buffers.give_back(id));
        Ok(Rc::new(buffers))
    }

    pub(super) fn ring_address(&self) -> u64 {
        self.region.base() as u64
    }

    pub(super) fn count(&self) -> u16 {
        self.count
    }

    pub(super) fn buffer_bytes(&self) -> usize {
        self.buffer_bytes
    }

    /// Buffers that can be filled now.
    pub(super) fn available(&self) -> u16 {
        self.count - self.lent.get()
    }

    /// Half of them are filled and not read yet. Whoever does not read must not have the other half as well.
    pub(super) fn are_scarce(&self) -> bool {
        self.available() < self.count / 2
    }

    /// The kernel has filled `len` bytes of the buffer that it picked.
    pub(super) fn filled(self: &Rc<Self>, id: u16, len: usize) -> Provided {
        assert!(self.ringed && id < self.count && len <= self.buffer_bytes, "buffer {id} filled with {len} bytes");
        self.lent.set(self.lent.get() + 1);
        Provided { buffers: self.clone(), id, len }
    }

    /// Without a buffer ring: an empty buffer to be filled by one receive.
    pub(super) fn take(self: &Rc<Self>) -> Option<Provided> {
        let id = self.free.borrow_mut().pop()?;
        self.lent.set(self.lent.get() + 1);
        Some(Provided { buffers: self.clone(), id, len: 0 })
    }

    fn give_back(&self, id: u16) {
        self.lent.set(self.lent.get() - 1);
        if !self.ringed {
            self.free.borrow_mut().push(id);
            return;
        }
        let ring: *mut BufRingEntry = self.region.base().cast();
        let tail = self.tail.get();
        // SAFETY: the region begins with `count` entries, zeroed at first. The entry at the tail is ours until the tail
        // moves on: no more than `count` buffers exist, so the kernel cannot be reading it. The tail lies in the
        // unused field of the first entry, which the setters leave alone, and is read by the kernel: hence atomic,
        // with a release so that the entry is seen first.
        unsafe {
            let entry = &mut *ring.add(usize::from(tail & (self.count - 1)));
            entry.set_addr(self.pointer(id) as u64);
            entry.set_len(self.buffer_bytes as u32);
            entry.set_bid(id);
            let shared_tail = AtomicU16::from_ptr(BufRingEntry::tail(ring).cast_mut());
            shared_tail.store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
    }

    fn pointer(&self, id: u16) -> *mut u8 {
        // SAFETY: the region has `count` buffers behind the ring's entries.
        unsafe { self.region.base().add(ring_bytes(self.count) + usize::from(id) * self.buffer_bytes) }
    }
}

impl Provided {
    pub(super) fn pointer(&self) -> *mut u8 {
        self.buffers.pointer(self.id)
    }

    /// The kernel has put this many bytes at the beginning.
    pub(super) fn set_len(&mut self, len: usize) {
        assert!(len <= self.buffers.buffer_bytes, "{len} bytes in a receive buffer");
        self.len = len;
    }
}

impl Deref for Provided {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the buffer is lent to this value alone, so the kernel does not write to it; it was zeroed at first
        // and holds at least `len` bytes.
        unsafe { std::slice::from_raw_parts(self.buffers.pointer(self.id), self.len) }
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        self.buffers.give_back(self.id);
    }
}

fn ring_bytes(count: u16) -> usize {
    (usize::from(count) * size_of::<BufRingEntry>()).next_multiple_of(PAGE)
}
