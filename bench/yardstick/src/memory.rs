//! Memory that direct I/O can use: page-aligned, on huge pages where there are any, touched before it is measured.

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
use std::ffi::c_void;
use std::io;
use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

const HUGE: usize = 2 << 20;

/// An anonymous mapping, whole multiples of 2 MiB, warm.
pub(crate) struct Memory {
    start: NonNull<c_void>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and nothing about it depends on the thread.
unsafe impl Send for Memory {}

impl Memory {
    /// At least `length` bytes, all of them touched: a first touch costs a page fault, in a virtual machine two, and
    /// would otherwise be measured as if it were I/O.
    pub(crate) fn new(length: usize) -> io::Result<Memory> {
        let length = length.max(1).next_multiple_of(HUGE);
        let size = NonZeroUsize::new(length).ok_or(io::ErrorKind::InvalidInput)?;
        let how = MapFlags::MAP_PRIVATE | MapFlags::MAP_POPULATE;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap_anonymous(None, size, access, how | MapFlags::MAP_HUGETLB) }
            // SAFETY: as above.
            .or_else(|_| unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE) })?;
        // SAFETY: the range is the mapping made above. Advice only: without huge pages small ones serve.
        let _ = unsafe { madvise(start, length, MmapAdvise::MADV_HUGEPAGE) };
        let mut memory = Memory { start, length };
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        memory.fill(0);
        Ok(memory)
    }
}

impl Deref for Memory {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the mapping is `length` readable bytes, zeroed by the kernel, alive until drop.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.length) }
    }
}

impl DerefMut for Memory {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.length) }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`; users of it with the kernel drain their ring before they drop it.
        let _ = unsafe { munmap(self.start, self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_up_to_huge_pages_and_is_page_aligned() {
        let memory = Memory::new(HUGE + 1).expect("memory");
        assert_eq!(memory.len(), 2 * HUGE);
        assert_eq!(memory.as_ptr() as usize % 4096, 0);
        assert!(memory.iter().all(|byte| *byte == 0));
    }
}
