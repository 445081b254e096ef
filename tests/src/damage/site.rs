//! The small data directory that is damaged: made once by the engine on the simulated disk, with what was acknowledged.

use super::node::{Node, Opened, STORY_TIMESTAMP, Shards};
use crate::records::{self, RecordId};
use corelog_batch::Codec;
use corelog_engine::model::{Offset, PartitionId};
use corelog_engine::shard::{Command, Completed, Session};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The files of a data directory, and what clients were told when they were written.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// By path below the data directory.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
    /// What must be there: topic and partition, the first offset, and the records from offset 0 on.
    pub expected: BTreeMap<(&'static str, u32), Expected>,
    /// The partitions' identities.
    pub ids: BTreeMap<PartitionId, (&'static str, u32)>,
    /// A topic whose deletion was acknowledged.
    pub deleted: &'static str,
}

/// What was acknowledged of a partition.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    /// Records below it were deleted.
    pub first: i64,
    /// By offset.
    pub records: Vec<RecordId>,
}

/// Longer than the node waits between two checkpoints.
const UNTIL_CHECKPOINT: Duration = Duration::from_secs(12);
/// Longer than the settings below leave a segment open.
const UNTIL_ROLL: Duration = Duration::from_secs(3);
/// Goes to its segment directly.
const DIRECT: usize = 17 << 10;
const SETTINGS: [(&str, &str); 3] = [("segment.ms", "2000"), ("segment.bytes", "65536"), ("retention.ms", "-1")];

impl Site {
    /// Two topics with three partitions, one that was deleted, and one that is younger than all checkpoints; sealed and active
    /// segments with indexes; a batch that went to its segment directly before the last checkpoint and one behind it; entries
    /// of the journal behind that.
    pub fn make() -> Site {
        let node = Node::new(1, &BTreeMap::new());
        let shards = node.start().expect("a node starts on an empty disk");
        let mut maker = Maker { node: &node, shards, site: Site { deleted: "gone", ..Site::default() }, appends: 0 };
        maker.tell();
        let Maker { shards, mut site, .. } = maker;
        for topic in shards.first().catalog().topics() {
            let name = site.expected.keys().find(|(name, _)| *name == topic.name.as_str()).expect("a topic of ours").0;
            site.ids.extend(topic.partition_ids().map(|id| (id, (name, id.index.0))));
        }
        drop(shards);
        node.kill();
        site.files = node.files();
        site
    }
}

impl Site {
    /// Writes the files below a directory of this machine.
    pub fn write(&self, root: &Path) {
        for (path, bytes) in &self.files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a directory")).expect("a directory is made");
            fs::write(path, bytes).expect("a file is written");
        }
    }
}

struct Maker<'a> {
    node: &'a Node,
    shards: Shards,
    site: Site,
    appends: u64,
}

impl Maker<'_> {
    fn tell(&mut self) {
        self.create("a", 2);
        self.create("gone", 1);
        self.create("b", 1);
        for _ in 0..3 {
            self.append("a", 0, 2, 40);
        }
        self.append("a", 1, 3, 60);
        self.append("b", 0, 1, 700);
        self.append("gone", 0, 1, 30);
        self.node.run_for(UNTIL_ROLL);
        self.append("a", 0, 1, 50);
        self.command(Command::DeleteTopic { name: "gone".into() });
        self.site.expected.remove(&("gone", 0));
        self.append("a", 0, 1, DIRECT);
        self.append("a", 0, 1, 90);
        self.delete_records("a", 1, 1);
        self.node.run_for(UNTIL_CHECKPOINT);
        self.append("a", 1, 1, 120);
        self.node.run_for(UNTIL_CHECKPOINT);
        // What follows is in the journal alone, this topic altogether: no checkpoint knows its partition.
        self.create("late", 1);
        self.append("late", 0, 1, 60);
        self.append("a", 0, 2, 30);
        self.append("a", 1, 1, DIRECT);
        self.append("b", 0, 2, 200);
        self.delete_records("a", 0, 1);
        self.append("a", 1, 1, 20);
        self.append("b", 0, 1, 35);
        self.append("a", 0, 1, 45);
    }

    fn create(&mut self, name: &'static str, partitions: u32) {
        let settings = SETTINGS.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
        self.command(Command::CreateTopic { name: name.into(), partitions, settings });
        self.site.expected.extend((0..partitions).map(|index| ((name, index), Expected::default())));
    }

    fn command(&self, command: Command) {
        let shard = self.shards.first().clone();
        let done = self.node.finish(self.shards.first(), async move { shard.command(command).await });
        assert_eq!(done, Some(Ok(())));
    }

    fn append(&mut self, name: &'static str, index: u32, count: u32, bytes: usize) {
        self.appends += 1;
        let append = self.appends;
        let batch = records::batch(append, count, bytes, STORY_TIMESTAMP + append as i64, Codec::None);
        let Opened { shard, handle } = self.shards.open(name, index).expect("a partition that is there");
        let done = self.node.finish(&shard.clone(), async move {
            let session = Session::new(1);
            shard.append(handle, &batch, &session, append).map_err(|error| error.to_string())?;
            session.completed().await;
            match session.pop() {
                Some(Completed::Appended { appended, .. }) => Ok(appended.base),
                other => Err(format!("{other:?}")),
            }
        });
        let expected = self.site.expected.get_mut(&(name, index)).expect("a topic that was created");
        assert_eq!(done, Some(Ok(Offset(expected.records.len() as i64))));
        expected.records.extend((0..count).map(|index| RecordId { append, index }));
    }

    fn delete_records(&mut self, name: &'static str, index: u32, before: i64) {
        let Opened { shard, handle } = self.shards.open(name, index).expect("a partition that is there");
        let done = self.node.finish(&shard.clone(), async move { shard.delete_records(handle, Offset(before)).await });
        assert_eq!(done, Some(Ok(Offset(before))));
        self.site.expected.get_mut(&(name, index)).expect("a topic that was created").first = before;
    }
}
