//! One run of the simulation: what a seed makes of it, from an empty disk to the last look at every partition.

use crate::clients::{self, Load};
use crate::invariants::Event;
use crate::keyed::{self, is_keyed};
use crate::numbered;
use crate::sometimes;
use crate::world::{Server, tell_extents};
use corelog_engine::log::{BLOCK, journal};
use corelog_engine::metadata::TopicInfo;
use corelog_engine::model::{PartitionId, ShardId, TopicId};
use corelog_engine::reactor::sim::{CrashKind, DiskOp, Fault, Random, World, WorldOptions};
use corelog_engine::shard::{FetchPath, ShardConfig};
use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);
const POOL_BYTES: usize = 32 << 20;

/// What kinds of trouble a run meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Nothing goes wrong.
    None,
    /// The node crashes and comes back.
    Crashes,
    /// Errors of the disk, failed flushes and slow operations, and crashes.
    DiskErrors,
    /// The disk fills up and is emptied again.
    FullDisk,
    /// The disk hangs for a while.
    HungDisk,
    /// Bits of the journal flip while the node is down.
    Damage,
    /// Bits of segments and indexes flip while the node is down; what a checkpoint writes to segments is lost, or lands
    /// elsewhere in them.
    Segments,
}

impl Trouble {
    /// All kinds, in the order in which seeds go through them. Crashes are what most bugs are about.
    const BY_SEED: [Trouble; 9] = [
        Trouble::Crashes,
        Trouble::DiskErrors,
        Trouble::Crashes,
        Trouble::FullDisk,
        Trouble::Crashes,
        Trouble::None,
        Trouble::Crashes,
        Trouble::HungDisk,
        Trouble::Damage,
    ];

    fn of(seed: u64) -> Trouble {
        let kinds = Trouble::BY_SEED.len() as u64;
        match Trouble::BY_SEED[(seed % kinds) as usize] {
            Trouble::Damage if seed / kinds % 3 == 1 => Trouble::Segments,
            trouble => trouble,
        }
    }

    fn is_damage(self) -> bool {
        matches!(self, Trouble::Damage | Trouble::Segments)
    }
}

/// What a run found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was broken, if anything.
    pub broken: Option<String>,
    /// The hash of everything that happened.
    pub trace_hash: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Records read, counting each time.
    pub read: u64,
    /// Events of the world.
    pub events: u64,
    /// How long it took in the world's own time.
    pub simulated: Duration,
    /// Crashes, errors, stray and slow operations of the disk, connections broken, and other trouble.
    pub faults: u64,
}

/// A topic to make: its name, how many partitions, its settings.
type Topic = (String, u32, Vec<(String, String)>);

/// One run under way.
struct Run {
    server: Server,
    random: Random,
    /// What the network does to the native clients.
    network: Random,
    trouble: Trouble,
    /// Times that the disk was full, hung or damaged.
    troubles: u64,
    shards: u16,
}

/// Runs a seed from beginning to end.
pub fn run(seed: u64) -> Report {
    let mut random = Random::new(seed);
    let trouble = Trouble::of(seed);
    let world = World::new(random.bits(), WorldOptions::default());
    let (mut config, mut load) = (draw_config(&mut random), draw_load(&mut random, trouble));
    if trouble == Trouble::DiskErrors && (seed / Trouble::BY_SEED.len() as u64).is_multiple_of(2) {
        // A flush that fails is worst where it was to cover what went to segments directly.
        (config.direct_bytes_min, load.large_one_in) = (16 << 10, 3);
    }
    if trouble == Trouble::Segments {
        // A commit's own write to a segment that is lost cannot be told from one that was torn: only checkpoints write there.
        (config.direct_bytes_min, config.entry_bytes_max, config.journal_bytes) = (1 << 20, 2 << 20, 8 << 20);
    }
    // What is damaged in a segment is told by clients then, and not by the server at once.
    if trouble != Trouble::Segments && Random::new(seed.rotate_left(32)).coin() {
        config.fetch_path = FetchPath::Splice;
    }
    let mut server = Server::new(world, config, POOL_BYTES, load);
    let shards = 1 + random.below(3) as u16;
    // Chance of its own: what runs without such clients is what it was before there were any.
    let mut network = Random::new(!seed);
    if network.below(3) == 0 {
        server.serve_natives(1 + network.below(2) as usize, 1 + network.below(3) as usize);
        let mut net = server.world.net_mut();
        net.small_piece = 20_000 << network.below(4);
        net.reset = [0, 100, 2000][network.below(3) as usize];
    }
    let mut run = Run { server, random, network, trouble, troubles: 0, shards };
    let broken = run.go().err().or_else(|| run.server.shared.observer.broken());
    Report {
        broken,
        trace_hash: run.server.world.trace_hash(),
        acknowledged: run.server.shared.acknowledged.get(),
        read: run.server.shared.records_read.get(),
        events: run.server.world.events(),
        simulated: Duration::from_nanos(run.server.world.now().nanos()),
        faults: run.faults(),
    }
}

/// Entries of a journal that later ones say were durable, and where they are. Damage to any other cannot be told from the
/// torn end of what nobody was told of.
fn proven_entries(journal: &[u8]) -> Vec<(usize, usize)> {
    let blocks = (0..journal.len()).step_by(BLOCK);
    let all: Vec<_> = blocks.filter_map(|at| Some((at, journal::inspect(&journal[at..]).ok()?))).collect();
    // Each life of a journal begins at its front.
    let Some(nonce) = all.first().map(|(_, head)| head.header.nonce) else { return Vec::new() };
    let of_now = || all.iter().filter(|(_, head)| head.header.nonce == nonce);
    let Some(durable) = of_now().map(|(_, head)| head.header.durable).max() else { return Vec::new() };
    let proven = of_now().filter(|(_, head)| head.header.sequence <= durable);
    proven.map(|(at, head)| (*at, head.length)).collect()
}

/// Whether a path leads to the metadata log, or to a part of it.
fn is_metadata(path: &Path) -> bool {
    let topic = TopicId::METADATA.to_string();
    path.iter().any(|part| part == topic.as_str())
}

fn draw_config(random: &mut Random) -> ShardConfig {
    let config = Server::small_config();
    let commits_in_flight = 1 + random.below(2) as usize;
    let entry_bytes_max = 64 << 10 << random.below(2);
    let journal_bytes = (512 << 10) << random.below(2);
    let direct_bytes_min = 16 << 10 << random.below(3);
    ShardConfig {
        commits_in_flight,
        // An entry must hold what is too little to go to its segment directly.
        entry_bytes_max: entry_bytes_max.max(2 * direct_bytes_min),
        journal_bytes,
        direct_bytes_min,
        tail_bytes_max: (512 << 10) << random.below(4),
        files_max: 2 + random.below(10) as usize,
        checkpoint_interval: Duration::from_millis(20 << random.below(5)),
        ..config
    }
}

fn draw_load(random: &mut Random, trouble: Trouble) -> Load {
    Load {
        calm: false,
        stopping: false,
        in_flight: 1 + random.below(16) as usize,
        pause_us_max: 100 << random.below(6),
        records_max: 1 + random.below(8) as u32,
        value_bytes_max: 64 << random.below(7),
        large_one_in: [0, 10, 50][random.below(3) as usize],
        // A batch is no longer than the smallest segment.
        large_bytes: 20_000 + random.below(40_000) as usize,
        consumers: 1 + random.below(2) as usize,
        operator: random.coin(),
        disk_errors: trouble == Trouble::DiskErrors,
        damage: trouble.is_damage(),
        weighs_flushes: !matches!(trouble, Trouble::DiskErrors | Trouble::FullDisk),
    }
}

impl Run {
    fn go(&mut self) -> Result<(), String> {
        self.server.start(self.shards);
        self.must_be_ready()?;
        self.create_topics()?;
        for _ in 0..3 + self.random.below(4) {
            let trouble = self.random.between(5, 150);
            self.server.world.run_for(Duration::from_millis(trouble));
            self.check()?;
            self.break_connections();
            self.server.shared.natives.disturb(true);
            self.meet_trouble()?;
            self.server.shared.natives.disturb(false);
        }
        self.heal();
        self.settle()?;
        self.burst()?;
        self.crash_and_look(CrashKind::PowerCut)?;
        self.stop_and_look()
    }

    fn check(&self) -> Result<(), String> {
        self.server.shared.observer.broken().map_or(Ok(()), Err)
    }

    fn must_be_ready(&self) -> Result<(), String> {
        if self.server.wait_ready(PATIENCE) {
            return self.check();
        }
        let error = self.server.shared.start_error.borrow();
        Err(error
            .as_ref()
            .map_or("the node does not become ready".into(), |error| format!("the node does not start: {error}")))
    }

    fn create_topics(&mut self) -> Result<(), String> {
        for (name, partitions, settings) in self.draw_topics() {
            let created = self.on_shard(ShardId(0), move |shard, shared| {
                clients::create_topic(shard, shared, name, partitions, settings)
            });
            if created != Some(true) {
                return Err("a topic could not be created on an empty node".into());
            }
        }
        Ok(())
    }

    fn draw_topics(&mut self) -> Vec<Topic> {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let segment_bytes = (64 << 10) << self.random.below(4);
        let usual = vec![pair("segment.bytes", &segment_bytes.to_string()), pair("max.message.bytes", "262144")];
        let with = |more: (String, String)| [usual.clone(), vec![more]].concat();
        let mut topics = vec![("flushed".to_owned(), 1 + self.random.below(12) as u32, usual.clone())];
        let keyed = keyed::SETTINGS.iter().map(|(key, value)| pair(key, value)).collect();
        topics.push((keyed::TOPIC.to_owned(), 1 + self.random.below(2) as u32, keyed));
        // A failed flush loses what was only handed to the device: such topics promise nothing then.
        if self.trouble != Trouble::DiskErrors && self.random.coin() {
            topics.push(("written".to_owned(), 2, with(pair("durability", "write"))));
            topics.push(("held".to_owned(), 2, with(pair("durability", "memory"))));
        }
        topics
    }

    /// Runs a future on a shard to its end; nothing if that takes too long.
    fn on_shard<T: 'static, F: Future<Output = T> + 'static>(
        &self,
        id: ShardId,
        act: impl FnOnce(corelog_engine::shard::Shard, Rc<crate::world::Shared>) -> F,
    ) -> Option<T> {
        let shard = self.server.shared.shards.borrow().get(usize::from(id.0)).cloned().flatten()?;
        let result = Rc::new(RefCell::new(None));
        let (told, act) = (result.clone(), act(shard.clone(), self.server.shared.clone()));
        let task = shard.reactor().spawn(async move {
            let value = act.await;
            *told.borrow_mut() = Some(value);
        });
        self.server.world.run_until(PATIENCE, || result.borrow().is_some());
        drop(task);
        result.take()
    }

    fn faults(&self) -> u64 {
        let counters = self.server.world.counters(self.server.node);
        let disk = counters.errors + counters.strays + counters.slowed;
        disk + counters.kills + counters.power_cuts + self.server.world.resets() + self.troubles
    }

    // Trouble ------------------------------------------------------------------------------------------------------

    fn meet_trouble(&mut self) -> Result<(), String> {
        // Crashes and errors are counted where they happen.
        self.troubles += u64::from(!matches!(self.trouble, Trouble::None | Trouble::Crashes | Trouble::DiskErrors));
        match self.trouble {
            Trouble::None => Ok(()),
            Trouble::Crashes => self.crash_and_restart(),
            Trouble::DiskErrors => self.fail_disk(),
            Trouble::FullDisk => self.fill_disk(),
            Trouble::HungDisk => self.hang_disk(),
            Trouble::Damage => self.damage_journal(),
            Trouble::Segments if self.random.coin() => self.damage_segment(),
            Trouble::Segments => self.misplace_writes(),
        }
    }

    /// Connections of the native clients are reset, or nothing passes for a while.
    fn break_connections(&mut self) {
        let Some(clients) = self.server.clients else { return };
        let (world, node) = (&self.server.world, self.server.node);
        match self.network.below(4) {
            0 => {
                sometimes!("all connections were reset");
                world.reset_link(node, clients);
            }
            1 => {
                self.server.shared.natives.disturb(true);
                world.cut_link(node, clients);
                world.run_for(Duration::from_micros(self.network.below(20_000)));
                world.heal_link(node, clients);
                sometimes!("a link was cut for a while");
            }
            _ => {}
        }
    }

    fn crash_and_restart(&mut self) -> Result<(), String> {
        let kind = if self.random.below(4) == 0 { CrashKind::Kill } else { CrashKind::PowerCut };
        self.server.crash(kind);
        // Other shards need new journals, which a full disk has no room for.
        if self.trouble != Trouble::FullDisk && self.random.below(3) == 0 {
            sometimes!("the number of shards changed");
            self.shards = 1 + self.random.below(4) as u16;
        }
        self.server.start(self.shards);
        if self.random.below(3) == 0 {
            // In the midst of recovery, too.
            let micros = self.random.below(20_000);
            self.server.world.run_for(Duration::from_micros(micros));
            sometimes!("a start was cut short");
            self.server.crash(kind);
            self.server.start(self.shards);
        }
        self.must_be_ready()?;
        self.look_at_extents();
        self.check()
    }

    fn fail_disk(&mut self) -> Result<(), String> {
        {
            let mut faults = self.server.world.faults_mut(self.server.node);
            match self.random.below(5) {
                0 | 1 => faults.script(DiskOp::Flush, self.random.below(8), Fault::Error(5)),
                2 => faults.script(DiskOp::Write, self.random.below(50), Fault::Error(5)),
                3 => faults.read_error = 20_000,
                _ => (faults.slow, faults.slow_ns_max) = (100_000, 50_000_000),
            }
        }
        let micros = self.random.below(100_000);
        self.server.world.run_for(Duration::from_micros(micros));
        *self.server.world.faults_mut(self.server.node) = Default::default();
        self.check()?;
        if self.random.coin() { self.crash_and_restart() } else { Ok(()) }
    }

    fn fill_disk(&mut self) -> Result<(), String> {
        let (world, node) = (&self.server.world, self.server.node);
        let (free, total) = world.disk_space(node);
        let left = (8 << 20) + self.random.below(2 << 20);
        world.set_disk_bytes(node, total - free + left);
        world.run_for(Duration::from_millis(1500));
        self.check()?;
        if self.random.coin() {
            // A node must come up on a full disk.
            self.crash_and_restart()?;
        }
        self.server.world.set_disk_bytes(self.server.node, total);
        Ok(())
    }

    fn hang_disk(&mut self) -> Result<(), String> {
        let (world, node) = (&self.server.world, self.server.node);
        world.faults_mut(node).hung = true;
        let millis = self.random.between(1, 5000);
        world.run_for(Duration::from_millis(millis));
        sometimes!("the disk hung");
        world.release_disk(node);
        self.check()?;
        if self.random.coin() { self.crash_and_restart() } else { Ok(()) }
    }

    /// Flips bits of an entry in a journal, then looks whether the node notices what that cost.
    fn damage_journal(&mut self) -> Result<(), String> {
        self.server.crash(CrashKind::Kill);
        let shard = self.random.below(u64::from(self.shards));
        let generations = self.server.files("data");
        let Some(directory) = generations.iter().rfind(|name| name.starts_with("shards-")) else { return Ok(()) };
        let path = format!("data/{directory}/{shard}/journal");
        let journal = self.server.world.read_file(self.server.node, Path::new(&path)).unwrap_or_default();
        let proven = proven_entries(&journal);
        let Some((at, length)) = proven.get(self.random.below(proven.len() as u64) as usize).copied() else {
            self.server.start(self.shards);
            return self.must_be_ready();
        };
        sometimes!("an acknowledged journal entry was damaged");
        for _ in 0..1 + self.random.below(64) {
            let position = (at + self.random.below(length as u64) as usize) % journal.len();
            let bit = self.random.below(8) as u8;
            self.server.world.flip_bit(self.server.node, Path::new(&path), position as u64, bit);
        }
        self.server.start(self.shards);
        self.must_be_ready()
    }

    /// Flips bits of a segment or an index. Its shard was stopped in order: nothing of the file is in the journal alone.
    fn damage_segment(&mut self) -> Result<(), String> {
        self.server.shared.natives.disturb(true);
        if !self.server.stop(PATIENCE) {
            return Err("the node does not stop".into());
        }
        let files = self.segment_files();
        let Some(path) = files.get(self.random.below(files.len().max(1) as u64) as usize) else {
            self.server.start(self.shards);
            return self.must_be_ready();
        };
        let (world, node) = (&self.server.world, self.server.node);
        let length = world.read_file(node, path).map_or(0, |bytes| bytes.len() as u64);
        for _ in 0..1 + self.random.below(64) {
            let (position, bit) = (self.random.below(length.max(1)), self.random.below(8) as u8);
            sometimes!("a segment or an index was damaged", world.flip_bit(node, path, position, bit));
        }
        self.server.start(self.shards);
        self.must_be_ready()
    }

    /// The files of all partitions but the metadata log, whose damage can undo what was acknowledged of topics.
    fn segment_files(&self) -> Vec<PathBuf> {
        let below = |directory: &PathBuf| {
            let names = self.server.files(&directory.to_string_lossy());
            names.into_iter().map(|name| directory.join(name)).collect::<Vec<_>>()
        };
        let topics = below(&PathBuf::from("data/topics"));
        let partitions = topics.iter().filter(|topic| !is_metadata(topic)).flat_map(below).collect::<Vec<_>>();
        partitions.iter().flat_map(below).collect()
    }

    /// Lets writes to segments be lost, or land elsewhere in their file.
    fn misplace_writes(&mut self) -> Result<(), String> {
        let before = self.server.world.counters(self.server.node).strays;
        {
            let mut faults = self.server.world.faults_mut(self.server.node);
            (faults.lost_write, faults.misdirected_write) = (50_000, 50_000);
            faults.strays_in = Some(|path| path.extension().is_some_and(|end| end == "log") && !is_metadata(path));
        }
        let micros = self.random.below(200_000);
        self.server.world.run_for(Duration::from_micros(micros));
        *self.server.world.faults_mut(self.server.node) = Default::default();
        let strays = self.server.world.counters(self.server.node).strays - before;
        sometimes!("a write to a segment was lost or went astray", strays > 0);
        self.check()?;
        if self.random.coin() { self.crash_and_restart() } else { Ok(()) }
    }

    fn heal(&self) {
        let (world, node) = (&self.server.world, self.server.node);
        *world.faults_mut(node) = Default::default();
        world.release_disk(node);
    }

    // The end ------------------------------------------------------------------------------------------------------

    /// Nothing is wrong any more: everything asked for must come to its end.
    fn settle(&self) -> Result<(), String> {
        self.server.shared.load.borrow_mut().calm = true;
        let shared = self.server.shared.clone();
        if !self.server.world.run_until(PATIENCE, move || shared.outstanding.get() == 0) {
            return Err(format!("{} appends never came to an end", self.server.shared.outstanding.get()));
        }
        // Who sends again behind the next restart is acknowledged while the ends of partitions are looked at.
        numbered::end_absent(&self.server.shared, self.shards);
        let shared = self.server.shared.clone();
        if !self.server.world.run_until(PATIENCE, move || numbered::all_answered(&shared)) {
            return Err("numbered batches never came to an end".into());
        }
        self.settle_natives()?;
        self.count_paths();
        self.check()
    }

    /// Native clients get their answers, and subscriptions all that there is.
    fn settle_natives(&self) -> Result<(), String> {
        let (world, natives) = (&self.server.world, &self.server.shared.natives);
        // Resets by chance would go on for ever.
        world.net_mut().reset = 0;
        if !world.run_until(PATIENCE, || natives.under_way.get() == 0) {
            return Err(format!("{} produces never came to an end", natives.under_way.get()));
        }
        let lags = |(partition, next): &(PartitionId, i64)| {
            let owner = self.server.owner(*partition);
            let status = owner.and_then(|shard| shard.describe(shard.open(*partition)?));
            status.is_some_and(|status| status.fenced.is_none() && status.high_watermark.0 > *next)
        };
        if !world.run_until(PATIENCE, || !natives.following.borrow().values().any(lags)) {
            let following = natives.following.borrow();
            let first = following.values().find(|following| lags(following));
            return Err(format!("a subscription stays behind for ever: {first:?}"));
        }
        sometimes!("a subscription came to the end of its log", !natives.following.borrow().is_empty());
        Ok(())
    }

    /// What one commit of many partitions costs.
    fn burst(&self) -> Result<(), String> {
        for shard in (0..self.shards).map(ShardId) {
            if self.on_shard(shard, clients::burst).is_none() {
                return Err("a batch for each partition never came to its end".into());
            }
        }
        self.check()
    }

    fn crash_and_look(&mut self, kind: CrashKind) -> Result<(), String> {
        self.server.crash(kind);
        self.server.start(self.shards);
        self.must_be_ready()?;
        self.read_everything()
    }

    fn stop_and_look(&mut self) -> Result<(), String> {
        if !self.server.stop(PATIENCE) {
            return Err("the node does not stop".into());
        }
        self.shards = 1 + self.random.below(4) as u16;
        self.server.start(self.shards);
        self.must_be_ready()?;
        self.read_everything()
    }

    /// And whether they are compacted.
    fn partitions(&self) -> Vec<(PartitionId, bool)> {
        let shards = self.server.shared.shards.borrow();
        let Some(Some(shard)) = shards.first() else { return Vec::new() };
        let catalog = shard.catalog();
        let ids = |topic: &TopicInfo| topic.partition_ids().map(|id| (id, is_keyed(topic))).collect::<Vec<_>>();
        catalog.topics().flat_map(ids).collect()
    }

    fn look_at_extents(&self) {
        let shards = self.server.shared.shards.borrow();
        let Some(Some(first)) = shards.first() else { return };
        let listed: Vec<(String, u32)> =
            first.catalog().topics().map(|topic| (topic.name.as_str().to_owned(), topic.partitions)).collect();
        if self.trouble != Trouble::Damage {
            self.server.shared.observer.tell(&Event::Topics { listed: &listed });
        }
        shards.iter().flatten().for_each(|shard| tell_extents(shard, &self.server.shared.observer));
    }

    fn read_everything(&self) -> Result<(), String> {
        self.look_at_extents();
        for (partition, is_keyed) in self.partitions() {
            let Some(owner) = self.server.owner(partition) else { continue };
            let read = match is_keyed {
                true => self.on_shard(owner.id(), move |shard, shared| keyed::look_at_last(shard, shared, partition)),
                false => self.on_shard(owner.id(), move |shard, shared| clients::read_all(shard, shared, partition)),
            };
            if read.is_none() {
                return Err(format!("{partition} cannot be read to its end"));
            }
        }
        self.check()
    }

    /// Rare paths that only the engine knows of.
    fn count_paths(&self) {
        for shard in self.server.shared.shards.borrow().iter().flatten() {
            let counters = shard.counters();
            sometimes!("a checkpoint was taken", counters.checkpoints.get() as u32);
            sometimes!("a shard reopened its log", counters.reopenings.get() as u32);
            sometimes!("a piece of a file was sent", counters.read_splice_bytes.get() > 0);
            sometimes!("compaction left a record out", counters.compacted_records.get() > 0);
            sometimes!("a request crossed", counters.crossings.get() as u32);
        }
        if self.server.world.counters(self.server.node).errors > 0 {
            sometimes!("the disk failed");
        }
    }
}
