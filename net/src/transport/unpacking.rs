//! A look inside compressed batches before they are appended: whoever reads them later must find what their headers say. And
//! the other compression that their topic may ask for.
//!
//! One at a time, for the memory that a codec may ask for is one shard's, and in pieces, so that others get on meanwhile.

use super::dialect::Compression;
use crate::limits;
use corelog_batch::{BatchError, BatchView, Codec, Limits, Repack, Unpacker, batches, validate};
use corelog_engine::error::AppendError;
use corelog_engine::reactor::Reactor;
use corelog_engine::shard::{Line, LinePlace};
use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

/// Who may unpack, in the order in which they asked.
#[derive(Debug)]
pub(crate) struct Unpacking {
    /// Gone while it is used.
    unpacker: RefCell<Option<Unpacker>>,
    line: Line,
}

/// The right to unpack. The next one has it when this is dropped.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    unpacking: &'a Unpacking,
    unpacker: Option<Unpacker>,
}

impl Unpacking {
    pub(crate) fn new() -> Unpacking {
        Unpacking { unpacker: RefCell::new(Some(Unpacker::default())), line: Line::default() }
    }

    /// A turn, if nobody has it or waits for it.
    pub(crate) fn try_turn(&self) -> Option<Turn<'_>> {
        if self.line.is_empty() { self.take() } else { None }
    }

    /// A turn, once those who came before had theirs.
    pub(crate) fn turn(&self) -> Waiting<'_> {
        Waiting { unpacking: self, place: LinePlace::default() }
    }

    fn take(&self) -> Option<Turn<'_>> {
        let unpacker = self.unpacker.borrow_mut().take()?;
        Some(Turn { unpacking: self, unpacker: Some(unpacker) })
    }
}

impl Turn<'_> {
    /// Looks into the batches of a section. Those that are compressed are checked; where their topic asks for another
    /// compression, what is to be appended instead is given back.
    ///
    /// What follows a batch whose header or checksum is wrong is left to the append, which says so and takes none of them.
    pub(crate) async fn look(
        &mut self,
        reactor: &Reactor,
        section: &[u8],
        asked: Option<Compression>,
        bounds: &mut Bounds,
    ) -> Result<Option<Vec<u8>>, AppendError> {
        match asked.filter(|_| !has_codec_asked(section, asked)) {
            Some(asked) => self.repack(reactor, section, asked, bounds).await,
            None => Ok(self.check(reactor, section, bounds).await.map(|()| None)?),
        }
    }

    async fn check(&mut self, reactor: &Reactor, section: &[u8], bounds: &mut Bounds) -> Result<(), BatchError> {
        let Some(unpacker) = &mut self.unpacker else { unreachable!("it is here until this is dropped") };
        for (place, batch) in compressed(section).enumerate() {
            if validate(batch.bytes(), ANY_SIZE).is_err() {
                break;
            }
            if place > 0 {
                reactor.yield_now().await;
            }
            bounds.unpacked -= unpacker.check(&batch, bounds.unpacked, || reactor.yield_now()).await?;
        }
        Ok(())
    }

    async fn repack(
        &mut self,
        reactor: &Reactor,
        section: &[u8],
        Compression { codec, batch_bytes_max }: Compression,
        bounds: &mut Bounds,
    ) -> Result<Option<Vec<u8>>, AppendError> {
        let Some(unpacker) = &mut self.unpacker else { unreachable!("it is here until this is dropped") };
        let (mut out, had) = (Vec::new(), bounds.repacked);
        for batch in batches(section) {
            let Ok(batch) = batch else { return Ok(None) };
            let size = batch.bytes().len();
            if validate(batch.bytes(), ANY_SIZE).is_err() {
                return Ok(None);
            }
            if size > batch_bytes_max {
                return Err(AppendError::TooLarge { size, max: batch_bytes_max });
            }
            if !out.is_empty() {
                reactor.yield_now().await;
            }
            let bytes_max = batch_bytes_max.min(bounds.repacked);
            let how = Repack { codec, bytes_max, unpacked_max: bounds.unpacked };
            let begin = out.len();
            let unpacked = unpacker.repack(&batch, &how, &mut out, || reactor.yield_now()).await;
            match unpacked {
                // It is the frame's other sections that leave no room: sent again, it comes without them. The append says so, for
                // it takes nothing that is compressed otherwise.
                Err(BatchError::TooLargeRepacked { .. })
                    if bytes_max < batch_bytes_max && had < bounds.repacked_max =>
                {
                    return Ok(None);
                }
                unpacked => bounds.unpacked -= unpacked?,
            }
            bounds.repacked -= out.len() - begin;
        }
        Ok(Some(out))
    }
}

/// What the sections of one frame may take together that have not been looked at.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Bytes of records, unpacked.
    unpacked: usize,
    /// Bytes of batches that are compressed anew; and how many they were at first.
    repacked: usize,
    repacked_max: usize,
}

impl Bounds {
    pub(crate) fn of(limits: &limits::Limits) -> Bounds {
        let repacked_max = limits.repacked_bytes_max;
        Bounds { unpacked: limits.unpacked_bytes_max, repacked: repacked_max, repacked_max }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.unpacking.unpacker.borrow_mut() = self.unpacker.take();
        self.unpacking.line.wake_first();
    }
}

const ANY_SIZE: Limits = Limits { batch_bytes_max: usize::MAX };

/// Whether the section's batches are neither compressed nor to be.
pub(crate) fn is_as_asked(section: &[u8], asked: Option<Compression>) -> bool {
    compressed(section).next().is_none() && has_codec_asked(section, asked)
}

fn has_codec_asked(section: &[u8], asked: Option<Compression>) -> bool {
    asked.is_none_or(|asked| whole(section).all(|batch| batch.codec() == Ok(asked.codec)))
}

fn compressed(section: &[u8]) -> impl Iterator<Item = BatchView<'_>> {
    whole(section).filter(|batch| batch.codec().is_ok_and(|codec| codec != Codec::None))
}

fn whole(section: &[u8]) -> impl Iterator<Item = BatchView<'_>> {
    batches(section).map_while(Result::ok)
}

/// See [`Unpacking::turn`].
pub(crate) struct Waiting<'a> {
    unpacking: &'a Unpacking,
    place: LinePlace,
}

impl<'a> Future for Waiting<'a> {
    type Output = Turn<'a>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Turn<'a>> {
        let unpacking = self.unpacking;
        let turn = if unpacking.line.is_first(&self.place) { unpacking.take() } else { None };
        match turn {
            Some(turn) => Poll::Ready(turn),
            None => {
                unpacking.line.join(&mut self.place, context.waker());
                Poll::Pending
            }
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.unpacking.line.leave(&mut self.place) {
            self.unpacking.line.wake_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_batch::BatchBuilder;
    use corelog_engine::model::ShardId;
    use corelog_engine::reactor::sim::{World, WorldOptions};
    use std::cell::Cell;
    use std::rc::Rc;
    use std::time::Duration;

    /// A batch that takes more than one piece.
    fn large() -> Vec<u8> {
        let mut builder = BatchBuilder::new(1 << 20, Codec::Zstd);
        builder.append(None, Some(&[0; 200_000]), &[], 1).unwrap();
        builder.build().unwrap()
    }

    async fn look_often(unpacking: &Unpacking, reactor: &Reactor, times: usize, done: &Cell<usize>) {
        let body = large();
        for _ in 0..times {
            let mut turn = match unpacking.try_turn() {
                Some(turn) => turn,
                None => unpacking.turn().await,
            };
            let mut bounds = Bounds::of(&limits::Limits::default());
            turn.look(reactor, &body, None, &mut bounds).await.unwrap();
            done.set(done.get() + 1);
        }
    }

    #[test]
    fn who_has_many_lets_others_have_their_turn() {
        let world = World::new(1, WorldOptions::default());
        let node = world.add_node("n");
        let done: Rc<[Cell<usize>; 3]> = Rc::default();
        let seen = done.clone();
        world.start_shard(node, ShardId(0), 1, 1 << 20, |reactor| async move {
            let unpacking = Rc::new(Unpacking::new());
            for (which, times) in [100, 1, 1].into_iter().enumerate() {
                let (unpacking, done, own) = (unpacking.clone(), seen.clone(), reactor.clone());
                reactor.spawn(async move { look_often(&unpacking, &own, times, &done[which]).await }).detach();
            }
            std::future::pending::<()>().await;
        });
        assert!(world.run_until(Duration::from_secs(1), || done[1].get() + done[2].get() == 2));
        assert!(done[0].get() < 5, "{} came before them", done[0].get());
        assert!(world.run_until(Duration::from_secs(1), || done[0].get() == 100));
    }
}
