//! What a reader who goes through a segment will want next is read while what he has is sent.

use super::Cursor;
use super::window::{Loaded, Target, Window, with_edges};
use crate::model::{Offset, Position};
use crate::reactor::Task;
use crate::shard::pace::Rank;
use crate::shard::{PartitionHandle, Shard};

/// A window being read before it is asked for. Ends with whoever keeps it.
#[derive(Debug)]
pub(super) struct Ahead {
    base: Offset,
    /// Where what is on disk of the segment ended when the reading began.
    end: Position,
    /// None if it could not be read: whoever asks for it reads it himself, and is told why.
    reading: Task<Option<Window>>,
}

impl Shard {
    /// The window that was read ahead, if it begins at `from`, and where it could go on to.
    pub(super) async fn take_ahead(&self, from: Offset, cursor: &mut Cursor) -> Option<(Window, Position)> {
        let ahead = cursor.ahead.take().filter(|ahead| ahead.base == from)?;
        Some((ahead.reading.await?, ahead.end))
    }

    fn has_plenty_to_read_with(&self) -> bool {
        self.0.read_bytes.get() * 2 < self.0.config.read_bytes_max
    }

    /// Begins to read what follows `window`, as long as there is plenty of memory for reads.
    pub(super) fn read_ahead(&self, handle: PartitionHandle, window: &Window, end: Position) -> Option<Ahead> {
        let (segment, rewrite) = (window.start.segment, window.rewrite);
        let target = Target { segment, rewrite, known: (window.next, window.end), end };
        let (base, shard, least) = (window.next, self.clone(), with_edges(window.longest));
        let is_wanted = window.end < end && self.has_plenty_to_read_with();
        let reading = async move {
            let leave = shard.leave_to_read(&target, target.known.1, Some(Rank::Reader)).await;
            if !shard.has_plenty_to_read_with() {
                return None;
            }
            match shard.try_window(handle, &target, target.known, leave.bytes.max(least)).await {
                Ok(Loaded::Window(window)) => Some(window),
                // A batch larger than those before it is left to the reader too.
                Ok(Loaded::Larger(_)) | Err(_) => None,
            }
        };
        is_wanted.then(|| Ahead { base, end, reading: self.reactor().spawn(reading) })
    }
}
