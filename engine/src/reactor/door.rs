//! How one core wakes another that sleeps, without paying when it does not.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

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
    /// [`Door::needs_bell`]: either the owner then sees the message, or the sender sees the flag.
    pub(crate) fn close_eyes(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The owner is awake and looks at its messages by itself.
    pub(crate) fn open_eyes(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }

    /// After a message was put down: whether the owner sleeps and nobody has rung yet.
    pub(crate) fn needs_bell(&self) -> bool {
        fence(Ordering::SeqCst);
        self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed)
    }
}
