//! A topic that is compacted: whatever becomes of the node, the last record of each key that was acknowledged is there, or a
//! later one of that key.
//!
//! What was acknowledged outlives the node, as a client's process does. Each record says in a header which one it is, so that one
//! without a value can be told too.

use crate::clients::note_read_error;
use crate::sometimes;
use crate::world::Shared;
use corelog_batch::{BatchBuilder, Codec, Header, Record, batches};
use corelog_engine::error::{AppendError, ReadError};
use corelog_engine::metadata::TopicInfo;
use corelog_engine::model::{Offset, PartitionId};
use corelog_engine::reactor::Outgoing;
use corelog_engine::shard::{Completed, Cursor, PartitionHandle, Read, Session, Shard};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

/// The topic's name.
pub(crate) const TOPIC: &str = "keyed";
/// Its settings: everything is sealed and compacted soon.
pub(crate) const SETTINGS: [(&str, &str); 5] = [
    ("cleanup.policy", "compact"),
    ("segment.bytes", "65536"),
    ("segment.ms", "40"),
    ("min.cleanable.dirty.ratio", "0.1"),
    ("delete.retention.ms", "30"),
];

const KEYS: u64 = 12;
const VALUE_BYTES_MAX: u64 = 3000;
const PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);
const UNPACKED_MAX: usize = 1 << 20;

/// What was sent, by partition.
pub(crate) type Keyed = BTreeMap<PartitionId, Sent>;

/// What was sent to a partition.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Numbers records; those of a key are in the log in the order of their numbers.
    next: u64,
    newest: BTreeMap<u8, Newest>,
}

/// The newest of a key.
#[derive(Debug, Default, Clone, Copy)]
struct Newest {
    /// Acknowledged.
    number: u64,
    /// Says that the key is gone.
    is_gone: bool,
    /// Of those that say so and may be in the log.
    maybe_gone: u64,
}

/// Whether a topic is the one that is compacted: what others hold of their topics does not hold of it.
pub(crate) fn is_keyed(topic: &TopicInfo) -> bool {
    topic.settings.compacts()
}

/// The partitions of the topic that live on a shard.
fn mine(shard: &Shard) -> Vec<PartitionId> {
    let catalog = shard.catalog();
    let owned = catalog.owned_by(shard.id(), shard.shards());
    owned.filter(|(_, topic)| is_keyed(topic)).map(|(id, _)| id).collect()
}

/// Sends to each of the shard's partitions of the topic until its task is dropped.
pub(crate) async fn produce(shard: Shard, shared: Rc<Shared>) {
    loop {
        shard.reactor().sleep(PAUSE).await;
        for partition in mine(&shard) {
            let handle = shard.open(partition).filter(|_| !shared.load.borrow().calm);
            if let Some(handle) = handle {
                send(&shard, &shared, partition, handle).await;
            }
        }
    }
}

async fn send(shard: &Shard, shared: &Shared, partition: PartitionId, handle: PartitionHandle) {
    let random = || shard.reactor().random();
    let mut builder =
        BatchBuilder::new(UNPACKED_MAX, if random().is_multiple_of(3) { Codec::Lz4 } else { Codec::None });
    let mut records = Vec::new();
    for _ in 0..1 + random() % 4 {
        let (key, is_gone) = ((random() % KEYS) as u8, random().is_multiple_of(5));
        let number = {
            let mut keyed = shared.keyed.borrow_mut();
            let sent = keyed.entry(partition).or_default();
            sent.next += 1;
            if is_gone {
                sent.newest.entry(key).or_default().maybe_gone = sent.next;
            }
            sent.next
        };
        let value = vec![key; (random() % VALUE_BYTES_MAX) as usize];
        let (value, name) = ((!is_gone).then_some(&value[..]), number.to_le_bytes());
        let headers = [Header { key: b"number", value: Some(&name) }];
        let now = shard.reactor().wall_clock().0;
        if builder.append(Some(&[key]), value, &headers, now).is_err() {
            shared.observer.broken_by("a record of a test does not fit".into());
        }
        records.push((key, number, is_gone));
    }
    let Ok(batch) = builder.build() else { return };
    match append(shard, handle, &batch).await {
        Ok(()) => {
            let mut keyed = shared.keyed.borrow_mut();
            let newest = &mut keyed.entry(partition).or_default().newest;
            for (key, number, is_gone) in records {
                let known = newest.entry(key).or_default();
                (known.number, known.is_gone) = (number, is_gone);
            }
        }
        Err(AppendError::Fenced(_)) if shared.load.borrow().damage => {}
        Err(
            AppendError::Busy
            | AppendError::StorageFull
            | AppendError::Reopening
            | AppendError::OutcomeUnknown
            | AppendError::UnknownPartition,
        ) => {}
        Err(error) => shared.observer.broken_by(format!("{partition}: keyed records were refused: {error}")),
    }
}

async fn append(shard: &Shard, handle: PartitionHandle, batch: &[u8]) -> Result<(), AppendError> {
    let session = Session::new(1);
    shard.append(handle, batch, &session, 0)?;
    session.completed().await;
    match session.pop() {
        Some(Completed::Refused { error, .. }) => Err(error),
        _ => Ok(()),
    }
}

/// Reads the shard's partitions of the topic, and looks whether what must be there is, until its task is dropped.
pub(crate) async fn watch(shard: Shard, shared: Rc<Shared>) {
    loop {
        shard.reactor().sleep(PAUSE).await;
        for partition in mine(&shard) {
            if let Some(handle) = shard.open(partition)
                && let Err(error) = look(&shard, &shared, partition, handle).await
            {
                note_read_error(&shared, partition, 0, &error);
            }
        }
    }
}

/// Looks once, to the end.
pub(crate) async fn look_at_last(shard: Shard, shared: Rc<Shared>, partition: PartitionId) {
    let until = shard.reactor().now().plus(PATIENCE);
    let Some(handle) = shard.open(partition) else { return };
    loop {
        match look(&shard, &shared, partition, handle).await {
            Ok(()) => return,
            Err(ReadError::Busy) if shard.reactor().now() < until => shard.reactor().sleep(PAUSE).await,
            Err(ReadError::Fenced(_)) if shared.load.borrow().damage => return,
            Err(error) => return shared.observer.broken_by(format!("{partition} cannot be read: {error}")),
        }
    }
}

/// Reads a partition from its beginning, as it was when this began, and what came since.
async fn look(
    shard: &Shard,
    shared: &Shared,
    partition: PartitionId,
    handle: PartitionHandle,
) -> Result<(), ReadError> {
    let wanted = shared.keyed.borrow().get(&partition).map(|sent| sent.newest.clone()).unwrap_or_default();
    let Some(status) = shard.describe(handle) else { return Ok(()) };
    let (mut from, mut cursor, mut found) = (status.first, Cursor::default(), BTreeMap::new());
    let bytes_max = 1 + (shard.reactor().random() % (128 << 10)) as usize;
    loop {
        let mut out = Outgoing::new();
        let Read::Data { next, .. } = shard.read_disk(handle, from, bytes_max, &mut cursor, &mut out).await? else {
            break;
        };
        // What a connection sends may be sent later.
        shard.reactor().yield_now().await;
        if let Err(why) = take(&out.to_vec(), from, next, &mut found) {
            shared.observer.broken_by(format!("{partition} from {from}: {why}"));
        }
        from = next;
    }
    for (key, newest) in wanted {
        let may_be_gone = newest.is_gone || newest.maybe_gone > newest.number;
        let is_so = match found.get(&key) {
            Some(last) => *last >= newest.number,
            None => newest.number == 0 || may_be_gone,
        };
        if !is_so {
            let last = found.get(&key);
            let why =
                format!("{partition}: of key {key} record {newest:?} was acknowledged, and the last one is {last:?}");
            shared.observer.broken_by(why);
        }
    }
    Ok(())
}

/// Notes the last record of each key.
fn take(bytes: &[u8], from: Offset, next: Offset, found: &mut BTreeMap<u8, u64>) -> Result<(), String> {
    let mut behind = None;
    for batch in batches(bytes) {
        let batch = batch.map_err(|error| error.to_string())?;
        let follows = behind.map_or(batch.base_offset() <= from.0, |behind| batch.base_offset() == behind);
        if !follows || batch.crc() != batch.computed_crc() {
            return Err(format!("the batch at {} is not the next one, or not whole", batch.base_offset()));
        }
        let mut scratch = Vec::new();
        for record in batch.records(&mut scratch, UNPACKED_MAX).map_err(|error| error.to_string())? {
            let record = record.map_err(|error| error.to_string())?;
            let (key, number) = read(&record).ok_or("a record is not as it was made")?;
            let before = found.insert(key, number).unwrap_or(0);
            if number < before && record.offset >= from.0 {
                return Err(format!("record {number} of key {key} came behind {before}"));
            }
            sometimes!("a keyed record without a value was read", record.value.is_none());
        }
        behind = Some(batch.next_offset());
    }
    if behind == Some(next.0) { Ok(()) } else { Err(format!("it ends at {behind:?}, and not at {next}")) }
}

fn read(record: &Record<'_>) -> Option<(u8, u64)> {
    let key = *record.key?.first()?;
    let number = u64::from_le_bytes(*record.headers.into_iter().next()?.value?.first_chunk()?);
    record.value.unwrap_or_default().iter().all(|byte| *byte == key).then_some((key, number))
}
