//! Waiting for something that another task of the same shard does.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

/// A condition variable of one shard: check a condition, then wait; whoever changes it notifies.
///
/// No wake-up is lost between the check and the wait as long as no await lies between them, for a shard has one thread.
#[derive(Debug, Default)]
pub struct Event {
    /// Counts notifications, so that a waiter sees one even if another waiter was polled first.
    count: Cell<u64>,
    /// Kept between uses: waiting allocates nothing once warm.
    waiting: RefCell<Vec<Waker>>,
}

impl Event {
    /// Wakes all that wait now.
    pub fn notify(&self) {
        self.count.set(self.count.get() + 1);
        for waker in self.waiting.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Ends at the first notification after this call.
    pub fn wait(&self) -> Wait<'_> {
        Wait { event: self, seen: self.count.get() }
    }
}

/// See [`Event::wait`].
#[derive(Debug)]
pub struct Wait<'a> {
    event: &'a Event,
    seen: u64,
}

impl Future for Wait<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.event.count.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waiting = self.event.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    #[test]
    fn every_waiter_sees_one_notification() {
        let event = Event::default();
        let mut context = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (pin!(event.wait()), pin!(event.wait()));
        assert!(first.as_mut().poll(&mut context).is_pending());
        assert!(second.as_mut().poll(&mut context).is_pending());
        event.notify();
        assert!(first.as_mut().poll(&mut context).is_ready());
        assert!(second.as_mut().poll(&mut context).is_ready());
        assert!(pin!(event.wait()).poll(&mut context).is_pending(), "a later waiter waits for the next");
    }
}
