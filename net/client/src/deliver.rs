//! What a producer's driver does in every turn beside its sockets: takes records in, and reports what became of them.

use crate::accumulator::Sealed;
use crate::front::Front;
use crate::producer::ProducerCore;
use crate::report::Delivery;
use std::sync::{Arc, MutexGuard};
use std::time::Instant;

/// What a producer's callers and its driver share.
pub(crate) trait Shared {
    fn lock(&self) -> MutexGuard<'_, Front>;

    /// Has all those who wait for something look again.
    fn tell_settled(&self);
}

/// The driver's side of a producer. However the driver ends, nobody waits for it any more when this is dropped.
pub(crate) struct Deliverer<S: Shared, F> {
    pub(crate) shared: Arc<S>,
    pub(crate) core: ProducerCore,
    on_delivery: F,
    sealed: Vec<Sealed>,
}

impl<S: Shared, F: FnMut(&Delivery)> Deliverer<S, F> {
    pub(crate) fn new(shared: Arc<S>, core: ProducerCore, on_delivery: F) -> Deliverer<S, F> {
        Deliverer { shared, core, on_delivery, sealed: Vec::new() }
    }

    /// Gives the core what is to be sent now. False when the driver is to give up.
    pub(crate) fn take_in(&mut self, now: Instant) -> bool {
        let closing = self.shared.lock().hand_over(&mut self.core, now, &mut self.sealed);
        self.sealed.drain(..).for_each(|batch| self.core.push(batch));
        !closing
    }

    /// How long the driver may sleep.
    pub(crate) fn park(&mut self) -> Option<Instant> {
        self.shared.lock().park(&mut self.core, Instant::now())
    }

    /// Tells what became known, the callback before those who wait.
    pub(crate) fn report(&mut self) {
        let settled = self.core.settled();
        if settled.is_empty() {
            return;
        }
        settled.iter().for_each(|settled| (self.on_delivery)(&settled.delivery));
        self.shared.lock().settle(&settled);
        self.shared.tell_settled();
    }

    /// Ends everything, what is still gathering too, and reports it.
    pub(crate) fn give_up(mut self) {
        let gathering = self.shared.lock().drain();
        gathering.into_iter().for_each(|batch| self.core.push(batch));
        self.core.give_up();
        self.report();
    }
}

impl<S: Shared, F> Drop for Deliverer<S, F> {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.tell_settled();
    }
}
