//! What a shard has open: files, streams and listeners by number, and the ring's table of registered files.

use super::sockets::{ListenerState, StreamState};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, types};
use slab::Slab;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// Everything open, by number. A number below `registered` is also the index in the ring's table, which spares the
/// kernel a look-up and a reference count for each operation.
pub(super) struct Descriptors {
    open: Slab<Descriptor>,
    registered: usize,
    /// Whether the kernel lets go of what is taken out of the table at once, not a second later. A peer must learn
    /// that its connection is closed, so without it only files are in the table.
    prompt: bool,
}

/// One open file, stream or listener.
pub(super) struct Descriptor {
    fd: OwnedFd,
    in_table: bool,
    what: What,
}

pub(super) enum What {
    File(OpenFile),
    /// Closed at once: whoever waits for the lock must get it.
    Lock,
    /// Boxed: a slot need not be as large as the largest.
    Stream(Box<StreamState>),
    Listener(Box<ListenerState>),
    /// Its end to write to is the descriptor; this is the other.
    Pipe(OwnedFd),
}

/// What the driver knows of an open file.
#[derive(Clone, Copy)]
pub(super) struct OpenFile {
    /// Whether it bypasses the page cache.
    pub(super) direct: bool,
    /// Whether a durable write is one operation (see `device`), or a write and a flush.
    pub(super) dsync: bool,
}

/// How to name an open file to the ring.
#[derive(Clone, Copy)]
pub(super) struct Target {
    fd: types::Fd,
    flags: Flags,
}

impl Descriptors {
    /// `registered` is the size of the ring's table, 0 if it has none.
    pub(super) fn new(registered: usize, prompt: bool) -> Descriptors {
        Descriptors { open: Slab::new(), registered, prompt }
    }

    pub(super) fn insert(&mut self, ring: &IoUring, fd: OwnedFd, what: What) -> u64 {
        let entry = self.open.vacant_entry();
        let number = entry.key();
        // A killed process's table is taken down when the kernel gets to it: a lock or listener in it would stand in
        // the next process's way. A listener's one entry gains nothing from it either.
        let suits = match what {
            What::File(_) => true,
            What::Stream(_) => self.prompt,
            What::Lock | What::Listener(_) | What::Pipe(_) => false,
        };
        let in_table = suits
            && number < self.registered
            && ring.submitter().register_files_update(number as u32, &[fd.as_raw_fd()]).is_ok();
        entry.insert(Descriptor { fd, in_table, what });
        number as u64
    }

    /// Takes something out, and out of the table. Nothing may be in flight on it.
    pub(super) fn remove(&mut self, ring: &IoUring, number: u64) -> (OwnedFd, What) {
        let descriptor = self.open.remove(number as usize);
        if descriptor.in_table {
            // Cannot fail for an index within the table.
            let _ = ring.submitter().register_files_update(number as u32, &[-1]);
        }
        (descriptor.fd, descriptor.what)
    }

    pub(super) fn target(&self, number: u64) -> Target {
        let descriptor = &self.open[number as usize];
        if descriptor.in_table {
            return Target { fd: types::Fd(number as i32), flags: Flags::FIXED_FILE };
        }
        Target { fd: types::Fd(descriptor.fd.as_raw_fd()), flags: Flags::empty() }
    }

    pub(super) fn raw_fd(&self, number: u64) -> RawFd {
        self.open[number as usize].fd.as_raw_fd()
    }

    pub(super) fn borrow(&self, number: u64) -> BorrowedFd<'_> {
        self.open[number as usize].fd.as_fd()
    }

    pub(super) fn file(&self, number: u64) -> OpenFile {
        match self.open[number as usize].what {
            What::File(file) => file,
            _ => unreachable!("{number} is not a file"),
        }
    }

    /// The end of a pipe that is read from.
    pub(super) fn pipe_out(&self, number: u64) -> RawFd {
        match &self.open[number as usize].what {
            What::Pipe(out) => out.as_raw_fd(),
            _ => unreachable!("{number} is not a pipe"),
        }
    }

    pub(super) fn stream(&mut self, number: u64) -> &mut StreamState {
        match &mut self.open[number as usize].what {
            What::Stream(stream) => stream,
            _ => unreachable!("{number} is not a stream"),
        }
    }

    pub(super) fn listener(&mut self, number: u64) -> &mut ListenerState {
        match &mut self.open[number as usize].what {
            What::Listener(listener) => listener,
            _ => unreachable!("{number} is not a listener"),
        }
    }

    /// All that is open, for the end.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.open.iter().map(|(number, _)| number as u64).collect()
    }

    pub(super) fn what(&self, number: u64) -> Option<&What> {
        self.open.get(number as usize).map(|descriptor| &descriptor.what)
    }
}

impl Target {
    /// Builds an entry for this file: with its descriptor, or its index and the flag that says so.
    pub(super) fn entry(self, build: impl FnOnce(types::Fd) -> Entry) -> Entry {
        build(self.fd).flags(self.flags)
    }
}

/// The error of an entry's result.
pub(super) fn check(result: i32) -> io::Result<u64> {
    if result < 0 { Err(io::Error::from_raw_os_error(-result)) } else { Ok(result as u64) }
}
