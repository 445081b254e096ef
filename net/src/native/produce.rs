//! Produce: batches go to the engine as they came; the response follows their commit.

use super::dialect::Connection;
use super::refusal::Refusal;
use super::state::{State, Waiting};
use crate::transport::{Compression, Key, Phase, Place};
use corelog_engine::error::AppendError;
use corelog_engine::shard::{Appended, Remote, Reply};
use corelog_wire::{Header, Produced, Retry};

impl State {
    pub(super) fn produce(
        &mut self,
        connection: &Connection,
        header: Header,
        batches: &[u8],
        silent: bool,
    ) -> Result<(), Refusal> {
        let opened = self.opened.key(header.handle).and_then(|key| self.opened.get_mut(key));
        let opened = opened.ok_or_else(Refusal::unknown_handle)?;
        if let Some(status) = opened.spent {
            return Err(Refusal::new(status, "a produce before this one was refused; open the partition again"));
        }
        let place = opened.place;
        self.check_waits(connection.shared.limits.shard_waits_max)?;
        let key = self.begin(Waiting::Produce { header, silent, bytes: batches.len() });
        let begun = match place {
            Place::Here(handle) => {
                connection.note_received();
                let appended = connection.shard().append(handle, batches, &connection.session, key.ticket());
                appended.map_err(Refusal::from)
            }
            Place::There(shard, partition) => {
                let parcel = connection.shard().parcel(batches);
                let append = parcel.map(|bytes| Remote::Append { partition, bytes });
                let forward =
                    |append| connection.shard().forward(shard, append, &connection.session, key.ticket()).ok();
                let busy = || Refusal::busy("too much is on its way to other shards");
                append.and_then(forward).ok_or_else(busy)
            }
        };
        if begun.is_err() {
            self.end(connection, key);
        }
        begun
    }

    /// Whether a produce by this handle is not refused for the handle.
    pub(super) fn takes_produces(&mut self, handle: u32) -> bool {
        let opened = self.opened.key(handle).and_then(|key| self.opened.get_mut(key));
        self.flow.phase == Phase::Serving && opened.is_some_and(|opened| opened.spent.is_none())
    }

    /// How the topic of this handle asks for its batches to be compressed.
    pub(super) fn compression(&mut self, connection: &Connection, handle: u32) -> Option<Compression> {
        let opened = self.opened.key(handle).and_then(|key| self.opened.get_mut(key))?;
        let topic = connection.shard().catalog().topic(opened.topic)?.settings;
        Compression::of(&topic)
    }

    /// A produce by this handle is refused: if it is one that will be sent again, it must be the next.
    pub(super) fn spend(&mut self, handle: u32, refusal: &Refusal) {
        let opened = self.opened.key(handle).and_then(|key| self.opened.get_mut(key));
        if let Some(opened) = opened.filter(|_| refusal.status.retry() != Retry::No) {
            opened.spent.get_or_insert(refusal.status);
        }
    }

    pub(super) fn end_remote_produce(&mut self, connection: &Connection, key: Key, reply: Reply) {
        let outcome = match reply {
            Reply::Appended(appended) => Ok(produced(&appended)),
            Reply::AppendRefused(error) => Err(error.into()),
            Reply::Busy => Err(AppendError::Busy.into()),
            _ => Err(AppendError::OutcomeUnknown.into()),
        };
        self.end_produce(connection, key, outcome);
    }

    pub(super) fn end_produce(&mut self, connection: &Connection, key: Key, outcome: Result<Produced, Refusal>) {
        let Some(Waiting::Produce { header, silent, .. }) = self.end(connection, key) else { return };
        match outcome {
            Ok(_) if silent => {}
            Ok(produced) => {
                self.reply(header.response(), &produced);
                self.flow.outbox.note_acknowledged(connection.now());
            }
            Err(refusal) => self.fail(header.response(), &refusal),
        }
    }
}

/// What a producer is told of records that were appended.
pub(super) fn produced(appended: &Appended) -> Produced {
    Produced { base: appended.base.0, last: appended.last.0, log_append_time: appended.at.0 }
}
