//! Partitions by handle: open and close, offsets by time, deletion of old records.

use super::dialect::Connection;
use super::refusal::Refusal;
use super::state::{Opened, State};
use super::topics::find;
use crate::transport::Place;
use corelog_engine::model::{Offset, PartitionId, PartitionIndex, ShardId, Timestamp};
use corelog_engine::shard::{Cursor, OffsetQuery, PartitionStatus, Remote, Reply, Shard};
use corelog_wire::{DeleteRecords, DeletedRecords, Header, ListOffsets, ListedOffset, Open, Status};
use std::future::Future;
use std::rc::Rc;

impl State {
    pub(super) fn open(&mut self, connection: &Rc<Connection>, header: Header, open: Open<'_>) -> Result<(), Refusal> {
        self.check_handles(connection)?;
        let shard = connection.shard().clone();
        let (partition, message_bytes_max) = {
            let catalog = shard.catalog();
            let topic = find(&catalog, &open.topic)?;
            if open.partition >= topic.partitions {
                let message = format!("topic {} has {} partitions, from 0", topic.name, topic.partitions);
                return Err(Refusal::new(Status::UnknownPartition, message));
            }
            let partition = PartitionId { topic: topic.id, index: PartitionIndex(open.partition) };
            (partition, topic.settings.batch_bytes_max())
        };
        let gone = || Refusal::new(Status::UnknownPartition, "the partition is gone");
        let owner = shard.owner(partition.topic, partition.index).ok_or_else(gone)?;
        if owner == shard.id() {
            let handle = shard.open(partition).ok_or_else(gone)?;
            let status = shard.describe(handle).ok_or_else(gone)?;
            return self.add_handle(
                connection,
                header,
                partition,
                Place::Here(handle),
                owner,
                &status,
                message_bytes_max,
            );
        }
        let describe = async move {
            let status = describe_remote(&shard, owner, partition).await?;
            Ok(move |state: &mut State, connection: &Rc<Connection>| {
                let place = Place::There(owner, partition);
                state.check_handles(connection)?;
                state.add_handle(connection, header, partition, place, owner, &status, message_bytes_max)
            })
        };
        self.errand(connection, header, describe);
        Ok(())
    }

    fn check_handles(&self, connection: &Connection) -> Result<(), Refusal> {
        let limits = &connection.shared.limits;
        let open = self.opened.len();
        if open >= limits.handles_max {
            let message = "as many open partitions as may be";
            return Err(Refusal::limit(Status::TooManyHandles, message, open + 1, limits.handles_max));
        }
        if connection.shared.own.handles.get() >= limits.shard_handles_max {
            return Err(Refusal::busy("the shard has as many open partitions as it may"));
        }
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "they are what the response is made of")]
    fn add_handle(
        &mut self,
        connection: &Connection,
        header: Header,
        partition: PartitionId,
        place: Place,
        owner: ShardId,
        status: &PartitionStatus,
        message_bytes_max: u32,
    ) -> Result<(), Refusal> {
        let handles = &connection.shared.own.handles;
        handles.set(handles.get() + 1);
        let opened = Opened { topic: partition.topic, place, cursor: Cursor::default(), used: false, spent: None };
        let key = self.opened.insert(opened);
        let opened = corelog_wire::Opened {
            topic_id: partition.topic.0,
            node: connection.shard().node().node_id,
            shard: owner.0,
            leader_epoch: status.leader_epoch.0,
            first: status.first.0,
            next: status.next.0,
            high_watermark: status.high_watermark.0,
            message_bytes_max,
        };
        self.reply(header.response().with_handle(key.wire()), &opened);
        Ok(())
    }

    pub(super) fn close_partition(&mut self, connection: &Connection, header: Header) -> Result<(), Refusal> {
        let key = self.opened.key(header.handle).ok_or_else(Refusal::unknown_handle)?;
        self.opened.remove(key);
        let handles = &connection.shared.own.handles;
        handles.set(handles.get() - 1);
        self.reply(header.response(), &());
        Ok(())
    }

    fn place(&mut self, header: Header) -> Result<Place, Refusal> {
        let opened = self.opened.key(header.handle).and_then(|key| self.opened.get_mut(key));
        Ok(opened.ok_or_else(Refusal::unknown_handle)?.place)
    }

    pub(super) fn list_offsets(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        query: ListOffsets,
    ) -> Result<(), Refusal> {
        let (place, shard) = (self.place(header)?, connection.shard().clone());
        let query = match query {
            ListOffsets::Earliest => OffsetQuery::Earliest,
            ListOffsets::Latest => OffsetQuery::Latest,
            ListOffsets::MaxTimestamp => OffsetQuery::MaxTimestamp,
            ListOffsets::At(time) => OffsetQuery::At(Timestamp(time)),
        };
        let listing = async move {
            let (offset, timestamp) = list(&shard, place, query).await?.unwrap_or((Offset(-1), Timestamp(-1)));
            Ok(ListedOffset { offset: offset.0, timestamp: timestamp.0 })
        };
        self.answer_later(connection, header, listing);
        Ok(())
    }

    pub(super) fn delete_records(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        delete: DeleteRecords,
    ) -> Result<(), Refusal> {
        let (place, shard) = (self.place(header)?, connection.shard().clone());
        let deleting = async move {
            let first = delete_before(&shard, place, delete.before).await?;
            Ok(DeletedRecords { first: first.0 })
        };
        self.answer_later(connection, header, deleting);
        Ok(())
    }

    /// Answers with what a task finds out.
    fn answer_later<T: for<'a> corelog_wire::Wire<'a> + 'static>(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        finding: impl Future<Output = Result<T, Refusal>> + 'static,
    ) {
        let work = async move {
            let found = finding.await?;
            Ok(move |state: &mut State, _: &Rc<Connection>| {
                state.reply(header.response(), &found);
                Ok(())
            })
        };
        self.errand(connection, header, work);
    }
}

async fn list(shard: &Shard, place: Place, query: OffsetQuery) -> Result<Option<(Offset, Timestamp)>, Refusal> {
    match place {
        Place::Here(handle) => Ok(shard.list_offset(handle, query).await?),
        Place::There(owner, partition) => match shard.ask(owner, Remote::ListOffset { partition, query }).await {
            Reply::Offset(found) => Ok(found),
            reply => Err(refused(reply)),
        },
    }
}

async fn delete_before(shard: &Shard, place: Place, before: i64) -> Result<Offset, Refusal> {
    let before = if before == -1 { status(shard, place).await?.high_watermark } else { Offset(before) };
    match place {
        Place::Here(handle) => Ok(shard.delete_records(handle, before).await?),
        Place::There(owner, partition) => match shard.ask(owner, Remote::DeleteRecords { partition, before }).await {
            Reply::Deleted { first } => Ok(first),
            reply => Err(refused(reply)),
        },
    }
}

async fn status(shard: &Shard, place: Place) -> Result<PartitionStatus, Refusal> {
    match place {
        Place::Here(handle) => shard.describe(handle).ok_or_else(Refusal::unknown_handle),
        Place::There(owner, partition) => describe_remote(shard, owner, partition).await,
    }
}

/// State of a partition of any shard.
pub(super) async fn describe_remote(
    shard: &Shard,
    owner: ShardId,
    partition: PartitionId,
) -> Result<PartitionStatus, Refusal> {
    match shard.ask(owner, Remote::Describe { partition }).await {
        Reply::Status(status) => Ok(status),
        reply => Err(refused(reply)),
    }
}

/// An answer of another shard that is not what was asked for.
fn refused(reply: Reply) -> Refusal {
    match reply {
        Reply::ReadRefused(error) => error.into(),
        _ => Refusal::busy("too many requests are on their way to other shards"),
    }
}
