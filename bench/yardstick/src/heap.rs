//! A global allocator that counts what watched threads ask of the heap, to prove that a path asks for nothing.
//!
//! Install it in the program that measures: `#[global_allocator] static HEAP: Counting = Counting;` An allocation of a thread
//! that is not watched takes one look at a thread-local more than the system's.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    // Without a destructor, so that the allocator may look at it at any time of a thread's life.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Counts allocations, and reallocations, of watched threads; everything else is the system's allocator's doing.
#[derive(Debug)]
pub struct Counting;

/// Counts the allocations of the calling thread from now on.
pub fn watch_this_thread() {
    WATCHED.set(true);
}

/// Allocations of all watched threads so far.
pub fn allocations() -> u64 {
    ALLOCATIONS.load(Ordering::Relaxed)
}

/// Whether this program's allocator is [`Counting`]: without it nothing is counted, and nothing looks like no allocation.
/// To be asked while no other thread is watched.
pub fn is_installed() -> bool {
    let (was_watched, before) = (WATCHED.replace(true), allocations());
    drop(black_box(Box::new(0_u8)));
    WATCHED.set(was_watched);
    allocations() > before
}

fn count() {
    if WATCHED.get() {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call is passed on to the system's allocator as it came; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the ones asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}
