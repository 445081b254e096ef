//! A ring with the cheapest set-up the kernel has, and the one way to wait on it.

use io_uring::types::{CancelBuilder, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, squeue};
use std::io;
use std::time::{Duration, Instant};

pub(crate) struct Ring {
    ring: IoUring,
    spin: Duration,
    /// Requests the kernel still holds; a multishot one counts until its last completion.
    in_flight: usize,
}

impl Ring {
    pub(crate) fn new(entries: u32, spin: Duration) -> io::Result<Ring> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(entries * 4)
            .build(entries)?;
        Ok(Ring { ring, spin, in_flight: 0 })
    }

    pub(crate) fn submitter(&self) -> io_uring::Submitter<'_> {
        self.ring.submitter()
    }

    /// Queues a request; submits first when the queue is full.
    ///
    /// # Safety
    /// Whatever the entry points to stays valid, and is not touched against the entry's meaning, until the completion
    /// has been taken by [`Ring::next`] or [`Ring::drain`] has returned.
    pub(crate) unsafe fn push(&mut self, entry: &squeue::Entry) -> io::Result<()> {
        // SAFETY: the caller's promise is the one the queue asks for.
        while unsafe { self.ring.submission().push(entry) }.is_err() {
            self.ring.submit()?;
        }
        self.in_flight += 1;
        Ok(())
    }

    /// Submits what was queued and returns when a completion is there: looks for `spin`, yielding the core between
    /// looks, then parks for at most `park`.
    pub(crate) fn wait(&mut self, park: Duration) -> io::Result<()> {
        self.enter()?;
        let began = Instant::now();
        while self.ring.completion().is_empty() {
            if self.ring.submission().taskrun() {
                self.enter()?;
            } else if began.elapsed() < self.spin {
                nix::sched::sched_yield()?;
            } else {
                return self.park(park);
            }
        }
        Ok(())
    }

    pub(crate) fn next(&mut self) -> Option<cqueue::Entry> {
        let entry = self.ring.completion().next()?;
        if !cqueue::more(entry.flags()) {
            self.in_flight -= 1;
        }
        Some(entry)
    }

    /// Cancels everything and waits until the kernel holds nothing more of ours.
    pub(crate) fn drain(&mut self) -> io::Result<()> {
        self.enter()?;
        match self.ring.submitter().register_sync_cancel(None, CancelBuilder::any()) {
            Err(error) if error.raw_os_error() != Some(libc::ENOENT) => return Err(error),
            _ => {}
        }
        while self.in_flight > 0 {
            self.wait(Duration::from_millis(10))?;
            while self.next().is_some() {}
        }
        Ok(())
    }

    /// One io_uring_enter that submits, and lets the kernel run what it deferred to this thread.
    fn enter(&mut self) -> io::Result<()> {
        let queued = self.ring.submission().len();
        let flags = 1; // IORING_ENTER_GETEVENTS
        // SAFETY: no signal mask is passed, so there is no argument to be valid.
        let entered = unsafe { self.ring.submitter().enter::<libc::sigset_t>(queued as u32, 0, flags, None) };
        ignore_interruption(entered.map(drop))
    }

    fn park(&mut self, park: Duration) -> io::Result<()> {
        let time = Timespec::from(park);
        let parked = self.ring.submitter().submit_with_args(1, &SubmitArgs::new().timespec(&time));
        ignore_interruption(parked.map(drop))
    }
}

/// EINTR and a park that timed out are reasons to look again, not errors; so is a completion queue to be emptied first.
fn ignore_interruption(entered: io::Result<()>) -> io::Result<()> {
    match entered.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::EINTR | libc::ETIME | libc::EBUSY | libc::EAGAIN) => Ok(()),
        _ => entered,
    }
}
