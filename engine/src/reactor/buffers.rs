//! Memory that disks and sockets may hold: a pool of page-aligned blocks with reference counts kept out of band.
//!
//! A [`Pool`] is one region, cut by a buddy allocator into blocks of 4 KiB to 32 MiB. No buffer costs a `malloc`: counts
//! and free lists are arrays beside the region. One thread owns a pool and everything that came from it.
#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, DerefMut, Range};
use std::ptr::NonNull;
use std::rc::Rc;

/// Granularity and alignment of blocks and of everything that touches a disk.
pub const PAGE: usize = 4096;
/// Largest block. Also the largest single buffer.
pub const BLOCK_MAX: usize = PAGE << ORDER_MAX;
/// A region is aligned to, and its size rounded up to, a huge page.
const HUGE_PAGE: usize = 2 << 20;
const ORDER_MAX: usize = 13;
const ORDERS: usize = ORDER_MAX + 1;
const NONE: u32 = u32::MAX;

/// A pool of blocks. Cheap to clone; the region is unmapped when the last clone, buffer and slice are gone.
#[derive(Clone)]
pub struct Pool(Rc<Inner>);

struct Inner {
    memory: Memory,
    base: NonNull<u8>,
    bytes: usize,
    buddies: RefCell<Buddies>,
    /// How many owners the block that starts at this page has. Only the entries of block heads mean anything.
    owners: Box<[Cell<u32>]>,
    free_bytes: Cell<usize>,
}

/// What keeps a pool's memory.
enum Memory {
    Own(Region),
    /// Set aside in another pool.
    Of(Block),
}

/// What the region's memory came from, so that it goes back there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backing {
    /// Huge pages reserved by the operator (`vm.nr_hugepages`).
    HugeTlb,
    /// Anonymous memory for which transparent huge pages were asked.
    Transparent,
    /// The process's heap: simulation and tests.
    Heap,
}

/// Mapped or allocated memory, zeroed at first.
pub(super) struct Region {
    base: NonNull<u8>,
    bytes: usize,
    backing: Backing,
}

impl Pool {
    /// A pool of huge pages: reserved ones, else transparent ones. `bytes` is rounded up to 2 MiB.
    ///
    /// # Errors
    /// The operating system refuses the memory.
    pub fn new(bytes: usize) -> std::io::Result<Pool> {
        Ok(Pool::over(Region::map(bytes)?))
    }

    /// A pool out of the process's heap, for simulation and tests. `bytes` is rounded up to a page.
    pub fn heap(bytes: usize) -> Pool {
        Pool::over(Region::heap(round_up(bytes.max(1), PAGE)))
    }

    fn over(region: Region) -> Pool {
        let (base, bytes) = (region.base, region.bytes);
        Pool::within(Memory::Own(region), base, bytes)
    }

    fn within(memory: Memory, base: NonNull<u8>, bytes: usize) -> Pool {
        let pages = bytes / PAGE;
        Pool(Rc::new(Inner {
            memory,
            base,
            bytes,
            buddies: RefCell::new(Buddies::new(pages)),
            owners: (0..pages).map(|_| Cell::new(0)).collect(),
            free_bytes: Cell::new(bytes),
        }))
    }

    /// A pool of its own in one block of this one, for who must never find that others have taken all. `bytes` is rounded
    /// up to a power of two. `None` when this pool has no block that large left.
    pub fn set_aside(&self, bytes: usize) -> Option<Pool> {
        let bytes = PAGE << order_of(bytes)?;
        let block = self.take(bytes)?;
        let base = block.pointer();
        Some(Pool::within(Memory::Of(block), base, bytes))
    }

    /// A buffer of `len` bytes that nobody else sees. Its content is whatever was there before. `None` when the pool
    /// has no block that large left, or `len` exceeds [`BLOCK_MAX`].
    pub fn buffer(&self, len: usize) -> Option<Buffer> {
        let block = self.take(len)?;
        Some(Buffer { capacity: round_up(len.max(1), PAGE), len, block })
    }

    /// A buffer to fill from front to back while slices of what is filled are in use. `None` as for [`Pool::buffer`].
    pub fn append_buffer(&self, capacity: usize) -> Option<AppendBuffer> {
        let block = self.take(capacity)?;
        Some(AppendBuffer { capacity: round_up(capacity.max(1), PAGE), filled: 0, block })
    }

    /// Bytes in no block. They may be in pieces too small for what is asked.
    pub fn free_bytes(&self) -> usize {
        self.0.free_bytes.get()
    }

    /// Bytes of the whole region.
    pub fn total_bytes(&self) -> usize {
        self.0.bytes
    }

    /// What the region is made of.
    pub fn backing(&self) -> Backing {
        match &self.0.memory {
            Memory::Own(region) => region.backing,
            Memory::Of(block) => block.pool.backing(),
        }
    }

    /// Where the region begins, for registering it with a ring.
    pub(crate) fn base(&self) -> *mut u8 {
        self.0.base.as_ptr()
    }

    /// Whether this is the other pool, or was set aside in it.
    fn is_in(&self, other: &Pool) -> bool {
        let here = Rc::ptr_eq(&self.0, &other.0);
        here || matches!(&self.0.memory, Memory::Of(block) if block.pool.is_in(other))
    }

    fn take(&self, len: usize) -> Option<Block> {
        let order = order_of(len)?;
        let page = self.0.buddies.borrow_mut().take(order)?;
        self.0.owners[page as usize].set(1);
        self.0.free_bytes.set(self.0.free_bytes.get() - (PAGE << order));
        Some(Block { pool: self.clone(), page })
    }

    fn give_back(&self, page: u32) {
        let order = self.0.buddies.borrow_mut().give_back(page);
        self.0.free_bytes.set(self.0.free_bytes.get() + (PAGE << order));
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pool({} of {} bytes free, {:?})", self.free_bytes(), self.total_bytes(), self.backing())
    }
}

/// One owner of a block. The block goes back to the pool with its last owner.
struct Block {
    pool: Pool,
    page: u32,
}

impl Block {
    fn pointer(&self) -> NonNull<u8> {
        // SAFETY: `page` came from the buddy allocator of these bytes, so the offset lies within them, and the pool keeps
        // what they lie in: its region, or the block of the pool that they were set aside in.
        unsafe { self.pool.0.base.add(self.page as usize * PAGE) }
    }

    fn is_of(&self, pool: &Pool) -> bool {
        self.pool.is_in(pool)
    }

    fn owners(&self) -> &Cell<u32> {
        &self.pool.0.owners[self.page as usize]
    }
}

impl Clone for Block {
    fn clone(&self) -> Block {
        let owners = self.owners();
        assert!(owners.get() < u32::MAX, "owners of a block overflow");
        owners.set(owners.get() + 1);
        Block { pool: self.pool.clone(), page: self.page }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let owners = self.owners();
        owners.set(owners.get() - 1);
        if owners.get() == 0 {
            self.pool.give_back(self.page);
        }
    }
}

/// Bytes that nobody else sees: to read into, or to fill and freeze. 4096-aligned.
pub struct Buffer {
    block: Block,
    len: usize,
    capacity: usize,
}

impl Buffer {
    /// Bytes that may be used without another buffer: the length asked for, rounded up to 4096.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Sets the length, which may also grow up to [`Buffer::capacity`]. Grown bytes are whatever was there before.
    pub fn set_len(&mut self, len: usize) {
        assert!(len <= self.capacity, "length {len} exceeds the capacity {}", self.capacity);
        self.len = len;
    }

    /// Cuts the length down to `len`; does nothing if it is shorter already.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Whether the bytes lie in `pool`'s region.
    pub(super) fn is_of(&self, pool: &Pool) -> bool {
        self.block.is_of(pool)
    }

    /// No more changes: the bytes can be shared from here on.
    pub fn freeze(self) -> Slice {
        Slice { pointer: self.block.pointer(), len: self.len, block: Some(self.block) }
    }
}

impl Deref for Buffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the block is at least `capacity >= len` bytes of initialised memory and this is its only owner.
        unsafe { std::slice::from_raw_parts(self.block.pointer().as_ptr(), self.len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`; `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.block.pointer().as_ptr(), self.len) }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity)
    }
}

/// A buffer that is filled from front to back. Slices of the filled part stay valid, and never change, while more is
/// appended behind them.
pub struct AppendBuffer {
    block: Block,
    filled: usize,
    capacity: usize,
}

impl AppendBuffer {
    /// Copies `bytes` behind what is there. They must fit ([`AppendBuffer::room`]).
    pub fn append(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes do not fit in {}", bytes.len(), self.room());
        // SAFETY: the target lies within the block and behind `filled`, where no slice reaches, so no reference to it
        // exists; `bytes` cannot overlap it for the same reason.
        unsafe {
            let target = self.block.pointer().as_ptr().add(self.filled);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        }
        self.filled += bytes.len();
    }

    /// Bytes that can still be appended.
    pub fn room(&self) -> usize {
        self.capacity - self.filled
    }

    /// Bytes appended so far.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// A part of what is filled, which stays as it is from now on.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.filled, "{range:?} is not within {}", self.filled);
        // SAFETY: the range lies within the block.
        let pointer = unsafe { self.block.pointer().add(range.start) };
        Slice { pointer, len: range.len(), block: Some(self.block.clone()) }
    }
}

impl fmt::Debug for AppendBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendBuffer({} of {} bytes)", self.filled, self.capacity)
    }
}

/// Bytes that never change, shared by counting. Keeps its whole block from being reused.
#[derive(Clone)]
pub struct Slice {
    pointer: NonNull<u8>,
    len: usize,
    block: Option<Block>,
}

impl Slice {
    /// Bytes of the program itself; they belong to no pool.
    pub fn from_static(bytes: &'static [u8]) -> Slice {
        Slice { pointer: NonNull::from(bytes).cast(), len: bytes.len(), block: None }
    }

    /// A part of these bytes.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} is not within {}", self.len);
        // SAFETY: the range lies within what this slice covers.
        let pointer = unsafe { self.pointer.add(range.start) };
        Slice { pointer, len: range.len(), block: self.block.clone() }
    }

    /// Whether the bytes lie in `pool`'s region.
    pub(super) fn is_of(&self, pool: &Pool) -> bool {
        self.block.as_ref().is_some_and(|block| block.is_of(pool))
    }
}

impl Deref for Slice {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are initialised and lie in a block that this slice keeps, or are static; nobody writes to
        // bytes that a slice covers.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slice({} bytes)", self.len)
    }
}

impl Region {
    pub(super) fn base(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    fn heap(bytes: usize) -> Region {
        let layout = Region::layout(bytes);
        // SAFETY: the layout has a size of at least one page.
        let pointer = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(pointer) else { handle_alloc_error(layout) };
        Region { base, bytes, backing: Backing::Heap }
    }

    #[allow(clippy::unwrap_used)] // fails only for sizes beyond isize::MAX
    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, PAGE).unwrap()
    }

    /// Maps at least `bytes`, aligned to a huge page, in whole huge pages.
    pub(super) fn map(bytes: usize) -> std::io::Result<Region> {
        let bytes = round_up(bytes.max(1), HUGE_PAGE);
        if let Ok(base) = map_anonymous(bytes, libc::MAP_HUGETLB) {
            return Ok(Region { base, bytes, backing: Backing::HugeTlb });
        }
        let base = map_aligned(bytes)?;
        // SAFETY: the range was mapped just now. Failure (kernel without transparent huge pages) costs speed only.
        unsafe { libc::madvise(base.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE) };
        Ok(Region { base, bytes, backing: Backing::Transparent })
    }
}

/// Maps `bytes` at a multiple of 2 MiB: maps one huge page too much and unmaps what sticks out.
fn map_aligned(bytes: usize) -> std::io::Result<NonNull<u8>> {
    let wide = map_anonymous(bytes + HUGE_PAGE, 0)?;
    let ahead = wide.as_ptr().align_offset(HUGE_PAGE);
    // SAFETY: both pieces lie within the mapping just made and nothing refers to them.
    unsafe {
        let base = wide.add(ahead);
        if ahead > 0 {
            libc::munmap(wide.as_ptr().cast(), ahead);
        }
        if ahead < HUGE_PAGE {
            libc::munmap(base.add(bytes).as_ptr().cast(), HUGE_PAGE - ahead);
        }
        Ok(base)
    }
}

fn map_anonymous(bytes: usize, flags: i32) -> std::io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing that exists.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), bytes, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if address == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    NonNull::new(address.cast()).ok_or_else(|| std::io::Error::other("mmap gave address zero"))
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: the region was made by the matching call with this size, and no block is left: every block holds the
        // pool, and the pool holds the region.
        unsafe {
            match self.backing {
                Backing::Heap => dealloc(self.base.as_ptr(), Region::layout(self.bytes)),
                Backing::HugeTlb | Backing::Transparent => {
                    libc::munmap(self.base.as_ptr().cast(), self.bytes);
                }
            }
        }
    }
}

/// The buddy allocator over page numbers. A block of order `n` is `1 << n` pages and starts at a multiple of that.
struct Buddies {
    pages: u32,
    /// First free block of each order.
    heads: [u32; ORDERS],
    states: Box<[State]>,
    /// Links of the free list that the block starting at this page is in.
    links: Box<[Links]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// Not the first page of a block.
    Inside,
    Free(u8),
    Taken(u8),
}

#[derive(Clone, Copy)]
struct Links {
    next: u32,
    previous: u32,
}

impl Buddies {
    #[allow(clippy::expect_used)] // 16 TiB of buffers
    fn new(pages: usize) -> Buddies {
        let mut buddies = Buddies {
            pages: u32::try_from(pages).expect("pages of a pool fit in 32 bits"),
            heads: [NONE; ORDERS],
            states: vec![State::Inside; pages].into(),
            links: vec![Links { next: NONE, previous: NONE }; pages].into(),
        };
        buddies.cut_up();
        buddies
    }

    /// Puts the whole region on the free lists, from its end, so that the lowest addresses are taken first.
    fn cut_up(&mut self) {
        let mut end = self.pages;
        while end > 0 {
            let order = (end.trailing_zeros() as usize).min(ORDER_MAX);
            end -= 1 << order;
            self.push(end, order);
        }
    }

    fn take(&mut self, order: usize) -> Option<u32> {
        let mut at = (order..ORDERS).find(|&at| self.heads[at] != NONE)?;
        let page = self.heads[at];
        self.unlink(page, at);
        while at > order {
            at -= 1;
            self.push(page + (1 << at), at);
        }
        self.states[page as usize] = State::Taken(order as u8);
        Some(page)
    }

    /// Frees the block that starts at `page` and joins it with free neighbours. Returns the order it was taken with.
    fn give_back(&mut self, page: u32) -> usize {
        let State::Taken(order) = self.states[page as usize] else { unreachable!("page {page} is not taken") };
        self.states[page as usize] = State::Inside;
        let (mut page, mut at) = (page, order as usize);
        while at < ORDER_MAX {
            let buddy = page ^ (1 << at);
            if buddy >= self.pages || self.states[buddy as usize] != State::Free(at as u8) {
                break;
            }
            self.unlink(buddy, at);
            page &= buddy;
            at += 1;
        }
        self.push(page, at);
        order as usize
    }

    fn push(&mut self, page: u32, order: usize) {
        let next = self.heads[order];
        self.links[page as usize] = Links { next, previous: NONE };
        if next != NONE {
            self.links[next as usize].previous = page;
        }
        self.heads[order] = page;
        self.states[page as usize] = State::Free(order as u8);
    }

    fn unlink(&mut self, page: u32, order: usize) {
        let Links { next, previous } = self.links[page as usize];
        match previous {
            NONE => self.heads[order] = next,
            previous => self.links[previous as usize].next = next,
        }
        if next != NONE {
            self.links[next as usize].previous = previous;
        }
        self.states[page as usize] = State::Inside;
    }
}

/// The smallest order whose block holds `len` bytes.
fn order_of(len: usize) -> Option<usize> {
    (len <= BLOCK_MAX).then(|| len.div_ceil(PAGE).max(1).next_power_of_two().trailing_zeros() as usize)
}

fn round_up(bytes: usize, to: usize) -> usize {
    bytes.next_multiple_of(to)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pages of a pool whose size is no power of two.
    const PAGES: usize = 37;

    fn small_pool() -> Pool {
        Pool::heap(PAGES * PAGE)
    }

    /// What a fresh pool can give, largest first.
    fn give_out_all(pool: &Pool) -> Vec<usize> {
        let mut sizes = Vec::new();
        let mut held = Vec::new();
        for order in (0..ORDERS).rev() {
            while let Some(buffer) = pool.buffer(PAGE << order) {
                sizes.push(PAGE << order);
                held.push(buffer);
            }
        }
        sizes
    }

    #[derive(Debug, Clone)]
    enum Act {
        Take(usize),
        Drop(usize),
        Share(usize),
        Part(usize),
    }

    fn acts() -> impl Strategy<Value = Vec<Act>> {
        let act = prop_oneof![
            (0..12 * PAGE).prop_map(Act::Take),
            any::<usize>().prop_map(Act::Drop),
            any::<usize>().prop_map(Act::Share),
            any::<usize>().prop_map(Act::Part),
        ];
        proptest::collection::vec(act, 1..if cfg!(miri) { 20 } else { 200 })
    }

    fn config() -> ProptestConfig {
        let cases = if cfg!(miri) { 8 } else { 128 };
        ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
    }

    proptest! {
        #![proptest_config(config())]

        /// Whatever is taken, shared and dropped: no two blocks overlap, bytes stay what they were for as long as
        /// anybody has them, and in the end all memory is back in the largest blocks.
        #[test]
        fn blocks_never_overlap_and_all_memory_returns(acts in acts()) {
            let pool = small_pool();
            let mut held: Vec<(u8, Slice)> = Vec::new();
            for (index, act) in acts.into_iter().enumerate() {
                let pick = |at: usize| if held.is_empty() { None } else { Some(at % held.len()) };
                match act {
                    Act::Take(len) => {
                        if let Some(mut buffer) = pool.buffer(len) {
                            prop_assert_eq!(buffer.len(), len);
                            prop_assert!((buffer.as_ptr() as usize).is_multiple_of(PAGE));
                            buffer.fill(index as u8);
                            held.push((index as u8, buffer.freeze()));
                        }
                    }
                    Act::Drop(at) => {
                        pick(at).map(|at| held.swap_remove(at));
                    }
                    Act::Share(at) => {
                        if let Some(at) = pick(at) {
                            held.push(held[at].clone());
                        }
                    }
                    Act::Part(at) => {
                        if let Some(at) = pick(at) {
                            let len = held[at].1.len();
                            held.push((held[at].0, held[at].1.slice(len / 3..len - len / 3)));
                        }
                    }
                }
                // Blocks are whole pages, so an overlap shows in the bytes at this distance.
                for (value, slice) in &held {
                    prop_assert!(slice.iter().step_by(PAGE).chain(slice.last()).all(|byte| byte == value));
                }
            }
            drop(held);
            prop_assert_eq!(pool.free_bytes(), pool.total_bytes());
            prop_assert_eq!(give_out_all(&pool), give_out_all(&small_pool()));
        }
    }

    #[test]
    fn the_whole_region_can_be_given_out() {
        let pool = small_pool();
        assert_eq!(give_out_all(&pool).iter().sum::<usize>(), pool.total_bytes());
        assert_eq!(give_out_all(&pool), [32 * PAGE, 4 * PAGE, PAGE]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let pool = small_pool();
        assert!(pool.buffer(BLOCK_MAX + 1).is_none());
        assert!(pool.buffer(33 * PAGE).is_none());
        let held = pool.buffer(32 * PAGE).unwrap();
        assert!(pool.buffer(5 * PAGE).is_none());
        assert!(pool.buffer(0).is_some());
        drop(held);
        assert!(pool.buffer(32 * PAGE).is_some());
    }

    #[test]
    fn a_slice_keeps_its_block_and_only_that() {
        let pool = small_pool();
        let mut buffer = pool.buffer(10_000).unwrap();
        assert_eq!(buffer.capacity(), 3 * PAGE);
        buffer.fill(9);
        buffer.truncate(9_000);
        let slice = buffer.freeze();
        assert_eq!(slice.len(), 9_000);
        let part = slice.slice(8_000..9_000).slice(999..1000);
        drop(slice);
        assert_eq!(pool.free_bytes(), pool.total_bytes() - 4 * PAGE);
        assert_eq!(*part, [9]);
        drop(part);
        assert_eq!(pool.free_bytes(), pool.total_bytes());
    }

    #[test]
    fn appending_leaves_earlier_slices_as_they_are() {
        let pool = small_pool();
        let mut buffer = pool.append_buffer(2 * PAGE).unwrap();
        let mut slices = Vec::new();
        while buffer.room() > 0 {
            let len = buffer.room().min(100);
            let start = buffer.filled();
            buffer.append(&vec![slices.len() as u8; len]);
            slices.push(buffer.slice(start..start + len));
            for (value, slice) in slices.iter().enumerate() {
                assert!(slice.iter().all(|byte| *byte == value as u8));
            }
        }
        assert_eq!(buffer.filled(), buffer.capacity());
        drop(buffer);
        assert_eq!(*slices[1], [1; 100]);
        drop(slices);
        assert_eq!(pool.free_bytes(), pool.total_bytes());
    }

    #[test]
    #[should_panic(expected = "is not within")]
    fn only_what_is_filled_can_be_sliced() {
        let mut buffer = small_pool().append_buffer(PAGE).unwrap();
        buffer.append(b"abc");
        let _ = buffer.slice(0..4);
    }

    #[test]
    #[should_panic(expected = "do not fit")]
    fn more_than_there_is_room_for_cannot_be_appended() {
        small_pool().append_buffer(PAGE).unwrap().append(&[0; PAGE + 1]);
    }

    #[test]
    fn what_is_set_aside_is_there_when_all_else_is_taken() {
        let pool = small_pool();
        let aside = pool.set_aside(3 * PAGE).unwrap();
        assert_eq!(aside.total_bytes(), 4 * PAGE);
        let held: Vec<_> = std::iter::from_fn(|| pool.buffer(PAGE)).collect();
        assert_eq!((pool.free_bytes(), held.len()), (0, PAGES - 4));
        let mut buffers: Vec<_> = (0..4).map(|_| aside.buffer(PAGE).unwrap()).collect();
        assert!(aside.buffer(1).is_none());
        buffers.iter_mut().enumerate().for_each(|(at, buffer)| buffer.fill(at as u8));
        assert!(buffers.iter().enumerate().all(|(at, buffer)| buffer.iter().all(|byte| *byte == at as u8)));
        assert!(buffers.iter().all(|buffer| buffer.is_of(&pool) && buffer.is_of(&aside)));
        assert!(!small_pool().buffer(1).unwrap().is_of(&pool));
    }

    #[test]
    fn what_was_set_aside_goes_back_with_its_last_buffer() {
        let pool = small_pool();
        let all = pool.free_bytes();
        let aside = pool.set_aside(4 * PAGE).unwrap();
        let slice = aside.buffer(PAGE).unwrap().freeze();
        drop(aside);
        assert_eq!(pool.free_bytes(), all - 4 * PAGE);
        drop(slice);
        assert_eq!(pool.free_bytes(), all);
    }

    #[test]
    fn static_bytes_belong_to_no_pool() {
        let slice = Slice::from_static(b"hello").slice(1..3);
        assert_eq!(*slice.clone(), *b"el");
        assert!(!slice.is_of(&small_pool()));
        assert_eq!(Slice::from_static(b"").len(), 0);
    }

    #[test]
    #[cfg_attr(miri, ignore = "maps memory")]
    fn a_mapped_pool_is_aligned_to_huge_pages() {
        let pool = Pool::new(3 << 20).unwrap();
        assert_eq!(pool.total_bytes(), 4 << 20);
        assert!((pool.base() as usize).is_multiple_of(HUGE_PAGE));
        let mut buffer = pool.buffer(4 << 20).unwrap();
        buffer.fill(1);
        drop(pool);
        assert_eq!(buffer[(4 << 20) - 1], 1);
    }
}
