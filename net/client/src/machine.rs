//! What every driver runs: something with connections, to which things happen.

use crate::cluster::{Cluster, LinkId, Token};
use crate::error::Ended;
use crate::protocol::Event;
use std::time::Instant;

/// A producer, a consumer or an admin without its sockets and its clock.
pub(crate) trait Machine {
    fn cluster(&mut self) -> &mut Cluster;

    /// Something came from the server.
    fn event(&mut self, link: LinkId, event: Event<'_, Token>, now: Instant);

    /// A link is gone, and these requests with it; of each, whether the server can have got it whole.
    fn lost(&mut self, link: LinkId, why: &Ended, unanswered: Vec<(Token, bool)>, now: Instant);

    /// Does what can be done now.
    fn pump(&mut self, now: Instant);

    /// When `advance` is to be called at the latest.
    fn deadline(&mut self, now: Instant) -> Option<Instant>;
}

/// Lets time pass, then does what can be done.
pub(crate) fn advance(machine: &mut impl Machine, now: Instant) {
    for (link, why) in machine.cluster().tick(now) {
        lose(machine, link, &why, now);
    }
    machine.pump(now);
}

/// The driver read `bytes` from a link.
pub(crate) fn receive(machine: &mut impl Machine, link: LinkId, bytes: &[u8], now: Instant) {
    let input = machine.cluster().gather(link, bytes);
    let mut rest = &*input;
    let ended = loop {
        match machine.cluster().accept(link, &mut rest, now) {
            Ok(Some(event)) => machine.event(link, event, now),
            Ok(None) => break None,
            Err(ended) => break Some(ended),
        }
    };
    let left = rest.len();
    machine.cluster().keep(link, input, left);
    if let Some(ended) = ended {
        close(machine, link, &ended, now);
    }
}

/// The driver found a link to be over.
pub(crate) fn lose(machine: &mut impl Machine, link: LinkId, why: &Ended, now: Instant) {
    let unanswered = machine.cluster().lost(link, why, now);
    machine.lost(link, why, unanswered, now);
}

/// Ends a link from this side.
pub(crate) fn close(machine: &mut impl Machine, link: LinkId, why: &Ended, now: Instant) {
    machine.cluster().close(link);
    lose(machine, link, why, now);
}
