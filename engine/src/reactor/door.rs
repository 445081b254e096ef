//! How one core wakes another that sleeps, without paying when it does not.

use super::sync::{AtomicBool, Ordering, fence};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A reactor's door: other cores knock only if its owner said that it sleeps.
#[derive(Debug)]
pub(crate) struct Door {
    parked: AtomicBool,
    /// Where the driver rings: its own name for the reactor.
    address: u64,
    /// Another way to ring, for kernels that lack the first. Kept open here: rings may come after the reactor's end,
    /// when its descriptor's number stands for something else.
    counter: Option<Arc<OwnedFd>>,
}

impl Door {
    pub(crate) fn new(address: u64) -> Door {
        Door { parked: AtomicBool::new(false), address, counter: None }
    }

    pub(crate) fn with_counter(address: u64, counter: Arc<OwnedFd>) -> Door {
        Door { counter: Some(counter), ..Door::new(address) }
    }

    pub(crate) fn counter(&self) -> Option<&OwnedFd> {
        self.counter.as_deref()
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// The owner is about to sleep; it must look for messages once more afterwards. The fence pairs with the one in
    /// [`Door::knock`]: either the owner then sees the message, or the sender sees the door and the flag.
    /// A swap, once for each sleep, because loom (docs/decisions/024) knows the place of a plain store among swaps only by
    /// what happened before it, and finds wake-ups lost that are not.
    pub(crate) fn close_eyes(&self) {
        self.parked.swap(true, Ordering::AcqRel);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake and looks at its messages by itself.
    pub(crate) fn open_eyes(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// After a message was put down: the door to ring at, if the owner sleeps and nobody has rung yet. `find` looks for it:
    /// before the owner has one there is none. The fence stands before that look, because an owner may get its door and
    /// fall asleep in between, with the message still on its way to it.
    pub(crate) fn knock<'a>(find: impl FnOnce() -> Option<&'a Door>) -> Option<&'a Door> {
        fence(Ordering::SeqCst);
        find().filter(|door| door.parked.load(Ordering::Relaxed) && door.parked.swap(false, Ordering::AcqRel))
    }
}
