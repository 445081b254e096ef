//! Two shards of the engine on the simulated disk, with files that were put there.

use crate::records::{self, RecordId};
use corelog_engine::error::ReadError;
use corelog_engine::metadata::Bounds;
use corelog_engine::model::{Offset, PartitionId, PartitionIndex, ShardId, Timestamp};
use corelog_engine::reactor::sim::{CrashKind, NodeId, World, WorldOptions};
use corelog_engine::reactor::{Outgoing, mesh};
use corelog_engine::shard::{
    Cursor, Envelope, FetchPath, GroupSettings, OffsetQuery, PartitionHandle, PartitionStatus, Read, Shard, ShardConfig,
};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// The first append's records are of the millisecond behind this one.
pub(super) const STORY_TIMESTAMP: i64 = 1_700_000_000_000;
const POOL_BYTES: usize = 4 << 20;
/// One holds the log of topics. Of the other damage may hide that its topics were made.
const SHARDS: u16 = 2;
const MESH_MESSAGES: usize = 16;
const PATIENCE: Duration = Duration::from_secs(60);
/// Where the data directory is on the node's disk.
pub(super) const DATA: &str = "data";
/// How often a read is tried that met a bound.
const TRIES: usize = 100;

/// As small as the engine allows, so that there is little to damage. Checkpoints come when the story lets time pass.
fn config() -> ShardConfig {
    ShardConfig {
        data_dir: PathBuf::from(DATA),
        generation: 0,
        node: 1,
        journal_bytes: 128 << 10,
        entry_bytes_max: 32 << 10,
        commits_in_flight: 1,
        beside_bytes_min: 0,
        direct_bytes_min: 16 << 10,
        tail_bytes_max: 512 << 10,
        waiting_bytes_max: 256 << 10,
        read_bytes: 64 << 10,
        read_bytes_max: 512 << 10,
        fetch_path: FetchPath::default(),
        files_max: 8,
        checkpoint_interval: Duration::from_secs(10),
        retention_interval: Duration::from_millis(500),
        compaction_interval: Duration::from_millis(500),
        producer_expiration: Duration::from_secs(3600),
        producers_max: 1024,
        groups: GroupSettings::default(),
        disk_reserve_bytes: 1 << 20,
        bounds: Bounds::default(),
    }
}

/// A node that runs, or not.
pub(super) struct Node {
    world: World,
    id: NodeId,
}

/// The shards of a node that started.
pub(super) struct Shards(Vec<Shard>);

/// A partition, and the shard that it belongs to.
pub(super) struct Opened {
    pub(super) shard: Shard,
    pub(super) handle: PartitionHandle,
}

impl Shards {
    /// The one that has the log of topics.
    pub(super) fn first(&self) -> &Shard {
        &self.0[0]
    }

    pub(super) fn open(&self, name: &str, index: u32) -> Option<Opened> {
        let topic = self.first().catalog().topics().find(|topic| topic.name.as_str() == name)?.id;
        let index = PartitionIndex(index);
        let shard = self.0[usize::from(self.first().owner(topic, index)?.0)].clone();
        let handle = shard.open(PartitionId { topic, index })?;
        Some(Opened { shard, handle })
    }
}

/// What a partition shows of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    /// Why it takes no writes.
    pub(super) fenced: Option<String>,
    /// Its first offset.
    pub(super) first: i64,
    /// What can be read, in order, by offset.
    pub(super) records: Vec<(i64, RecordId)>,
    /// Why reading ended before the end.
    pub(super) stopped: Option<String>,
}

impl Node {
    /// With these files below its data directory. `seed` decides the world's chance: a second life of the same node needs
    /// another, for identities are drawn at random.
    pub(super) fn new(seed: u64, files: &BTreeMap<PathBuf, Vec<u8>>) -> Node {
        let world = World::new(seed, WorldOptions::default());
        let id = world.add_node("server");
        for (path, bytes) in files {
            world.put_file(id, &Path::new(DATA).join(path), bytes).expect("a disk with room");
        }
        Node { world, id }
    }

    /// Starts its shards.
    ///
    /// # Errors
    /// The sentence for the operator.
    pub(super) fn start(&self) -> Result<Shards, String> {
        let started: Rc<RefCell<BTreeMap<ShardId, Shard>>> = Rc::default();
        let refused: Rc<RefCell<Option<String>>> = Rc::default();
        for (mesh, id) in mesh::build::<Envelope>(SHARDS, MESH_MESSAGES).into_iter().zip((0..).map(ShardId)) {
            let (started, refused) = (started.clone(), refused.clone());
            self.world.start_shard(self.id, id, SHARDS, POOL_BYTES, move |reactor| async move {
                let mesh = mesh.attach(&reactor);
                match Shard::start(reactor.clone(), mesh, config()).await {
                    Ok(shard) => drop(started.borrow_mut().insert(id, shard)),
                    Err(error) => *refused.borrow_mut() = Some(error.to_string()),
                }
                pending::<()>().await;
            });
        }
        let is_told = || refused.borrow().is_some() || started.borrow().len() == usize::from(SHARDS);
        let is_told = self.world.run_until(PATIENCE, is_told);
        match refused.take() {
            Some(why) => Err(why),
            None if is_told => Ok(Shards(started.take().into_values().collect())),
            None => Err("the node neither starts nor gives up".into()),
        }
    }

    /// Ends its process.
    pub(super) fn kill(&self) {
        self.world.crash(self.id, CrashKind::Kill);
    }

    pub(super) fn run_for(&self, time: Duration) {
        self.world.run_for(time);
    }

    /// Runs a future on the shard to its end; nothing if that takes too long.
    pub(super) fn finish<T: 'static>(&self, shard: &Shard, act: impl Future<Output = T> + 'static) -> Option<T> {
        let result = Rc::new(RefCell::new(None));
        let told = result.clone();
        let task = shard.reactor().spawn(async move {
            let value = act.await;
            *told.borrow_mut() = Some(value);
        });
        self.world.run_until(PATIENCE, || result.borrow().is_some());
        drop(task);
        result.take()
    }

    /// All files below the data directory.
    pub(super) fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let read = |path: PathBuf| Some((self.world.read_file(self.id, &Path::new(DATA).join(&path))?, path));
        self.paths().into_iter().filter_map(read).map(|(bytes, path)| (path, bytes)).collect()
    }

    /// Where they are.
    pub(super) fn paths(&self) -> BTreeSet<PathBuf> {
        let mut files = BTreeSet::new();
        let mut pending = vec![PathBuf::new()];
        while let Some(directory) = pending.pop() {
            for (name, is_dir) in self.world.list_dir(self.id, &Path::new(DATA).join(&directory)) {
                let path = directory.join(name);
                if is_dir {
                    pending.push(path);
                } else {
                    files.insert(path);
                }
            }
        }
        files
    }

    /// Looks at a partition in all ways: from its beginning to its end, and by time, which takes the indexes. Nothing if
    /// there is no such partition.
    pub(super) fn look(&self, shards: &Shards, name: &str, index: u32) -> Option<Result<Seen, String>> {
        let Opened { shard, handle } = shards.open(name, index)?;
        let status = shard.describe(handle)?;
        let looked = self.finish(&shard, look(shard.clone(), handle, status));
        Some(looked.unwrap_or_else(|| Err("reading it never ends".into())))
    }
}

async fn look(shard: Shard, handle: PartitionHandle, before: PartitionStatus) -> Result<Seen, String> {
    let (first, next) = (before.first.0, before.next.0);
    let mut seen = Seen { fenced: None, first, records: Vec::new(), stopped: None };
    let (mut cursor, mut from) = (Cursor::default(), first);
    while from < next {
        match read(&shard, handle, from, &mut cursor).await {
            Ok((bytes, after)) => {
                let batches = records::read(&bytes)?;
                let records = batches.into_iter().flat_map(|batch| batch.records);
                seen.records.extend(records.filter(|(offset, _)| *offset >= from));
                from = after;
            }
            Err(ReadError::Fenced(why)) => {
                seen.stopped = Some(why.to_string());
                break;
            }
            Err(other) => return Err(format!("reading at {from} of {first} to {next}: {other}")),
        }
    }
    by_time(&shard, handle, &seen).await?;
    // Reading finds damage, and fences.
    seen.fenced = shard.describe(handle).and_then(|status| status.fenced).map(|why| why.to_string());
    Ok(seen)
}

/// Finds each record that was read by its time, which is that of its append.
async fn by_time(shard: &Shard, handle: PartitionHandle, seen: &Seen) -> Result<(), String> {
    for (offset, id) in seen.records.iter().filter(|(_, id)| id.index == 0) {
        let time = Timestamp(STORY_TIMESTAMP + id.append as i64);
        match shard.list_offset(handle, OffsetQuery::At(time)).await {
            Ok(Some((found, _))) if found.0 == *offset => {}
            Err(ReadError::Fenced(_)) => {}
            other => return Err(format!("the record at {offset} is found by its time at {other:?}")),
        }
    }
    Ok(())
}

async fn read(
    shard: &Shard,
    handle: PartitionHandle,
    from: i64,
    cursor: &mut Cursor,
) -> Result<(Vec<u8>, i64), ReadError> {
    for _ in 0..TRIES {
        let mut out = Outgoing::new();
        match shard.read_disk(handle, Offset(from), 64 << 10, cursor, &mut out).await {
            Ok(Read::Data { next, .. }) => return Ok((out.to_vec(), next.0)),
            Ok(_) | Err(ReadError::Busy) => shard.reactor().sleep(Duration::from_millis(1)).await,
            Err(error) => return Err(error),
        }
    }
    Err(ReadError::Busy)
}
