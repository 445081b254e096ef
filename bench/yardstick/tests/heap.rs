//! The counting allocator counts watched threads, and no others.

use corelog_yardstick::heap::{Counting, allocations, is_installed, watch_this_thread};
use std::hint::black_box;
use std::thread;

#[global_allocator]
static HEAP: Counting = Counting;

#[test]
fn counts_what_watched_threads_allocate() {
    let allocate = || drop(black_box(vec![0_u8; 100]));
    let (before, unwatched) = (allocations(), || (0..10).for_each(|_| allocate()));
    unwatched();
    assert_eq!(allocations(), before, "nobody is watched");
    assert!(is_installed());
    let before = allocations();
    allocate();
    assert_eq!(allocations(), before, "who asked is not watched for it");

    let counted = thread::spawn(move || {
        watch_this_thread();
        let before = allocations();
        (0..10).for_each(|_| allocate());
        let mut grown: Vec<u8> = black_box(Vec::with_capacity(1));
        grown.reserve_exact(100);
        allocations() - before
    });
    assert_eq!(counted.join().expect("counts"), 12, "ten, one more, and its growth");
}
