//! Messages between cores: a single-producer single-consumer ring for every ordered pair of shards.
//!
//! While the receiver is awake it looks at its rings once a turn, and a message costs two cache lines. Only a receiver
//! that parked is rung (see [`Door`]).
#![allow(unsafe_code)]

#[cfg(all(test, loom))]
mod model;

use super::Reactor;
use super::door::Door;
use super::sync::{self, AtomicUsize, Ordering, UnsafeCell};
use crate::model::ShardId;
use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::mem::MaybeUninit;
use std::rc::Rc;
use std::sync::{Arc, OnceLock};
use std::task::{Poll, Waker};

/// One shard's endpoint, to be carried to its thread and attached to its reactor.
pub struct Mesh<M> {
    shard: ShardId,
    outgoing: Vec<Sender<M>>,
    incoming: Vec<Receiver<M>>,
    doors: Arc<[OnceLock<Arc<Door>>]>,
}

/// An attached endpoint. Cheap to clone.
pub struct MeshHandle<M>(Rc<Endpoint<M>>);

struct Endpoint<M> {
    reactor: Reactor,
    outgoing: RefCell<Vec<Sender<M>>>,
    inbox: Rc<Inbox<M>>,
    doors: Arc<[OnceLock<Arc<Door>>]>,
}

struct Inbox<M> {
    incoming: RefCell<Vec<Receiver<M>>>,
    /// Which sender is looked at first next time, so that none starves the others.
    first: Cell<usize>,
    reader: RefCell<Option<Waker>>,
}

/// What a reactor knows of a mesh attached to it.
pub(crate) trait Watch {
    /// Wakes the reader if there is a message; says whether there is one that a reader waits for.
    fn wake_reader(&self) -> bool;
}

/// One endpoint per shard, in the order of shards. Each ring holds `capacity` messages, rounded up to a power of two.
pub fn build<M: Send + 'static>(shards: u16, capacity: usize) -> Vec<Mesh<M>> {
    let doors: Arc<[OnceLock<Arc<Door>>]> = (0..shards).map(|_| OnceLock::new()).collect();
    let mut meshes: Vec<Mesh<M>> = (0..shards)
        .map(|shard| Mesh { shard: ShardId(shard), outgoing: vec![], incoming: vec![], doors: doors.clone() })
        .collect();
    for from in 0..shards as usize {
        for to in 0..shards as usize {
            let (sender, receiver) = ring(capacity);
            meshes[from].outgoing.push(sender);
            meshes[to].incoming.push(receiver);
        }
    }
    meshes
}

impl<M: Send + 'static> Mesh<M> {
    /// Binds the endpoint to the reactor of its shard.
    pub fn attach(self, reactor: &Reactor) -> MeshHandle<M> {
        assert_eq!(self.shard, reactor.shard(), "a mesh endpoint belongs to one shard");
        let inbox =
            Rc::new(Inbox { incoming: RefCell::new(self.incoming), first: Cell::new(0), reader: RefCell::new(None) });
        reactor.watch(inbox.clone());
        // From here on others may ring. A message sent before needs no bell: the reactor has yet to look.
        assert!(self.doors[self.shard.0 as usize].set(reactor.door()).is_ok(), "attached twice");
        let (reactor, outgoing) = (reactor.clone(), RefCell::new(self.outgoing));
        MeshHandle(Rc::new(Endpoint { reactor, outgoing, inbox, doors: self.doors }))
    }
}

impl<M: Send + 'static> MeshHandle<M> {
    /// Sends a message to a shard, also to the own one.
    ///
    /// # Errors
    /// The ring to that shard is full; the message comes back.
    pub fn try_send(&self, to: ShardId, message: M) -> Result<(), M> {
        self.0.outgoing.borrow_mut()[to.0 as usize].try_send(message)?;
        if let Some(door) = Door::knock(|| self.0.doors[to.0 as usize].get().map(Arc::as_ref)) {
            self.0.reactor.ring_bell(door);
        }
        Ok(())
    }

    /// The next message: in order from each sender, the senders in turn. One reader at a time.
    pub async fn receive(&self) -> (ShardId, M) {
        poll_fn(|cx| match self.0.inbox.take() {
            Some(message) => Poll::Ready(message),
            None => {
                *self.0.inbox.reader.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        })
        .await
    }
}

impl<M> Clone for MeshHandle<M> {
    fn clone(&self) -> MeshHandle<M> {
        MeshHandle(self.0.clone())
    }
}

impl<M> Inbox<M> {
    fn take(&self) -> Option<(ShardId, M)> {
        let mut incoming = self.incoming.borrow_mut();
        let count = incoming.len();
        for step in 0..count {
            let from = (self.first.get() + step) % count;
            if let Some(message) = incoming[from].try_receive() {
                self.first.set(from + 1);
                return Some((ShardId(from as u16), message));
            }
        }
        None
    }
}

impl<M> Watch for Inbox<M> {
    fn wake_reader(&self) -> bool {
        if self.reader.borrow().is_none() || self.incoming.borrow_mut().iter_mut().all(Receiver::is_empty) {
            return false;
        }
        let reader = self.reader.borrow_mut().take();
        reader.is_some_and(|reader| {
            reader.wake();
            true
        })
    }
}

/// A bounded queue from one thread to one other.
struct Shared<M> {
    slots: Box<[UnsafeCell<MaybeUninit<M>>]>,
    /// Messages ever received; written by the receiver.
    received: Line<AtomicUsize>,
    /// Messages ever sent; written by the sender.
    sent: Line<AtomicUsize>,
}

/// A value with cache lines of its own: two, because the hardware fetches lines in pairs.
#[repr(align(128))]
struct Line<T>(T);

struct Sender<M> {
    shared: sync::Arc<Shared<M>>,
    sent: usize,
    /// `received` when last looked at: the ring has at least the room that this says.
    received_seen: usize,
}

struct Receiver<M> {
    shared: sync::Arc<Shared<M>>,
    received: usize,
    /// `sent` when last looked at: at least the messages up to here are there.
    sent_seen: usize,
}

// SAFETY: slots from `received` to `sent` belong to the one Receiver, the others to the one Sender; ownership passes by
// release stores and acquire loads of the two counts. Messages move between threads, hence M: Send.
unsafe impl<M: Send> Send for Shared<M> {}
// SAFETY: as above.
unsafe impl<M: Send> Sync for Shared<M> {}

fn ring<M>(capacity: usize) -> (Sender<M>, Receiver<M>) {
    let slots = (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let (received, sent) = (Line(AtomicUsize::new(0)), Line(AtomicUsize::new(0)));
    let shared = sync::Arc::new(Shared { slots, received, sent });
    (Sender { shared: shared.clone(), sent: 0, received_seen: 0 }, Receiver { shared, received: 0, sent_seen: 0 })
}

impl<M> Shared<M> {
    fn slot(&self, count: usize) -> &UnsafeCell<MaybeUninit<M>> {
        &self.slots[count & (self.slots.len() - 1)]
    }
}

impl<M> Sender<M> {
    fn try_send(&mut self, message: M) -> Result<(), M> {
        let capacity = self.shared.slots.len();
        if self.sent.wrapping_sub(self.received_seen) == capacity {
            self.received_seen = self.shared.received.0.load(Ordering::Acquire);
            if self.sent.wrapping_sub(self.received_seen) == capacity {
                return Err(message);
            }
        }
        // SAFETY: fewer than `capacity` messages are in the ring, so this slot is the sender's, and empty.
        self.shared.slot(self.sent).with_mut(|slot| unsafe { (*slot).write(message) });
        self.sent = self.sent.wrapping_add(1);
        self.shared.sent.0.store(self.sent, Ordering::Release);
        Ok(())
    }
}

impl<M> Receiver<M> {
    fn is_empty(&mut self) -> bool {
        if self.received == self.sent_seen {
            self.sent_seen = self.shared.sent.0.load(Ordering::Acquire);
        }
        self.received == self.sent_seen
    }

    fn try_receive(&mut self) -> Option<M> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: the sender filled this slot and gave it over with its release store; it is read once, because
        // `received` moves on.
        let message = self.shared.slot(self.received).with_mut(|slot| unsafe { (*slot).assume_init_read() });
        self.received = self.received.wrapping_add(1);
        self.shared.received.0.store(self.received, Ordering::Release);
        Some(message)
    }
}

impl<M> Drop for Shared<M> {
    fn drop(&mut self) {
        // Nobody stores any more: the last owner of an Arc comes after all others.
        let sent = self.sent.0.load(Ordering::Relaxed);
        let mut at = self.received.0.load(Ordering::Relaxed);
        while at != sent {
            // SAFETY: both ends are gone, and these slots were sent but not received.
            self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_holds_its_capacity_and_keeps_the_order() {
        let (mut sender, mut receiver) = ring(3);
        for round in 0..5 {
            for number in 0..4 {
                sender.try_send((round, number)).unwrap();
            }
            assert_eq!(sender.try_send((9, 9)), Err((9, 9)));
            assert_eq!(receiver.try_receive(), Some((round, 0)));
            sender.try_send((round, 4)).unwrap();
            for number in 1..5 {
                assert_eq!(receiver.try_receive(), Some((round, number)));
            }
            assert_eq!(receiver.try_receive(), None);
        }
    }

    #[test]
    fn what_was_not_received_is_dropped_once() {
        let counted = Arc::new(());
        let (mut sender, mut receiver) = ring(8);
        for _ in 0..5 {
            sender.try_send(counted.clone()).unwrap();
        }
        drop(receiver.try_receive());
        assert_eq!(Arc::strong_count(&counted), 5);
        drop(sender);
        drop(receiver);
        assert_eq!(Arc::strong_count(&counted), 1);
    }

    #[test]
    fn messages_cross_threads_whole_and_in_order() {
        let count = if cfg!(miri) { 200 } else { 200_000 };
        let (mut sender, mut receiver) = ring(16);
        let sending = std::thread::spawn(move || {
            for number in 0..count {
                let mut message = Box::new(number);
                while let Err(back) = sender.try_send(message) {
                    message = back;
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..count {
            let message = loop {
                match receiver.try_receive() {
                    Some(message) => break message,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*message, expected);
        }
        sending.join().unwrap();
    }
}
