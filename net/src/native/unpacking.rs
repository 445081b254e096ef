//! A look inside compressed batches before they are appended: whoever reads them later must find what their headers say.
//!
//! One at a time, for the memory that a codec may ask for is one shard's, and in pieces, so that others get on meanwhile.

use corelog_batch::{BatchError, BatchView, Codec, Unpacker, batches, validate};
use corelog_engine::reactor::Reactor;
use corelog_engine::shard::Event;
use corelog_wire::{Frame, Operation};
use std::cell::RefCell;

/// Who may unpack.
#[derive(Debug)]
pub(super) struct Unpacking {
    /// Gone while it is used.
    unpacker: RefCell<Option<Unpacker>>,
    /// It is back.
    pub(super) ended: Event,
    unpacked_bytes_max: usize,
}

impl Unpacking {
    pub(super) fn new(unpacked_bytes_max: usize) -> Unpacking {
        Unpacking { unpacker: RefCell::new(Some(Unpacker::default())), ended: Event::default(), unpacked_bytes_max }
    }

    /// Whether the frame can be looked into now, or needs not be.
    pub(super) fn admits(&self, frame: &Frame<'_>) -> bool {
        !concerns(frame) || self.unpacker.borrow().is_some()
    }

    /// Looks into the compressed batches of a frame that was admitted. A batch whose header or checksum is wrong is left to
    /// the append, which says so.
    pub(super) async fn check(&self, reactor: &Reactor, frame: &Frame<'_>) -> Result<(), BatchError> {
        let mut taken = Taken { unpacking: self, unpacker: self.unpacker.take() };
        let Some(unpacker) = &mut taken.unpacker else { unreachable!("the frame was admitted") };
        for batch in compressed(frame) {
            let checked = unpacker.check(&batch, self.unpacked_bytes_max, || reactor.yield_now()).await;
            if checked.is_err() && validate(batch.bytes(), ANY_SIZE).is_ok() {
                return checked;
            }
        }
        Ok(())
    }
}

const ANY_SIZE: corelog_batch::Limits = corelog_batch::Limits { batch_bytes_max: usize::MAX };

/// Whether there is a compressed batch in the frame.
pub(super) fn concerns(frame: &Frame<'_>) -> bool {
    compressed(frame).next().is_some()
}

/// The compressed batches of a produce.
fn compressed<'a>(frame: &Frame<'a>) -> impl Iterator<Item = BatchView<'a>> + use<'a> {
    let is_produce = frame.header.operation == Operation::Produce as u8;
    let whole = batches(if is_produce { frame.body } else { &[] }).map_while(Result::ok);
    whole.filter(|batch| batch.codec().is_ok_and(|codec| codec != Codec::None))
}

/// Gives the unpacker back, also when the check is dropped midway.
struct Taken<'a> {
    unpacking: &'a Unpacking,
    unpacker: Option<Unpacker>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        *self.unpacking.unpacker.borrow_mut() = self.unpacker.take();
        self.unpacking.ended.notify();
    }
}
