//! How a shard's log must behave, said once and run on the simulator and on the kernel's ring.
//!
//! A case is a list of phases. Each phase gets a shard that was just started on what the phase before left on disk; the
//! process ends between them without a word, as by kill -9 (the simulator also cuts the power).

mod compacted;
mod spliced;

use super::pace::Rank;
use super::{
    Command, Completed, Cursor, FetchPath, GroupSettings, OffsetQuery, PartitionHandle, Read, Session, Shard,
    ShardConfig, remote,
};
use crate::error::{AppendError, ReadError};
use crate::group::GroupError;
use crate::group::classic::{Join, Said};
use crate::group::consumer::{Heartbeat, Partitions};
use crate::group::records::{Committed, METADATA_BYTES_MAX, PARTITIONS, Place, partition_of};
use crate::log::paths;
use crate::log::tail::BLOCK;
use crate::metadata::{Bounds, GROUPS_TOPIC};
use crate::model::{Offset, PartitionId, PartitionIndex, Timestamp};
use crate::reactor::mesh;
use crate::reactor::{Buffer, Open, Outgoing, Reactor, WriteSync};
use compacted::*;
use corelog_batch::{BatchBuilder, BatchView, Codec, batches, number};
use spliced::*;
use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

type Phase = fn(Shard) -> Pin<Box<dyn Future<Output = ()>>>;

/// A case of the suite.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) phases: &'static [Phase],
}

macro_rules! cases {
    ($($name:ident: $($phase:ident),+;)*) => {
        pub(crate) const CASES: &[Case] = &[$(
            Case { name: stringify!($name), phases: &[$(|shard| Box::pin($phase(shard))),+] },
        )*];
    };
}

cases! {
    appended_is_read_back: append_and_read;
    acknowledged_survives_a_kill: append_some, read_some;
    a_clean_stop_keeps_everything: append_and_stop, read_some;
    a_stop_waits_for_what_waits_for_its_segment: append_and_stop_at_once, read_what_came_last;
    what_a_producer_sends_again_is_in_the_log_once: send_numbered, send_numbered_again, send_numbered_again;
    producers_are_known_behind_checkpoints: send_much_numbered, send_the_newest_again, send_the_newest_again;
    what_groups_committed_survives: commit_offsets, read_offsets, read_offsets;
    members_that_the_coordinator_assigns_survive: join_consumers, go_on_as_consumers, leave_as_consumers;
    groups_take_so_much_and_no_more: commit_too_much;
    one_commit_covers_many_partitions: commit_many;
    large_batches_go_to_the_segment: append_large, read_large;
    a_tail_block_is_written_again: append_between_checkpoints, read_between_checkpoints;
    many_partitions_share_a_small_memory: crowd, read_crowd;
    the_journal_wraps: fill_the_journal, read_the_filled;
    segments_roll_and_are_read_from_disk: roll, read_rolled;
    records_are_deleted: delete, read_after_delete;
    files_of_dropped_segments_go_at_the_next_start: leave_a_dropped_segment, see_it_go;
    of_each_key_the_last_record_stays: append_and_compact, compact_more, read_compacted;
    readers_go_on_while_segments_are_written_anew: read_while_compacting;
    records_are_deleted_while_segments_are_written_anew: delete_while_compacting;
    a_topic_made_again_is_empty: delete_topic, read_made_again;
    time_finds_offsets: list_offsets;
    a_topic_may_give_records_their_time: append_without_times, read_times;
    what_is_wrong_is_refused: refuse;
    who_takes_much_memory_stops_first: take_much;
    a_watch_tells_once: watch;
    durability_is_a_topics_choice: mix_durability, read_flushed;
    a_stretch_without_flushes_is_bounded: write_without_flushes;
    metadata_is_compacted: many_topics, read_many_topics;
    a_segment_that_is_missing_fences_its_partition: append_to_two, lose_a_segment;
    a_reader_is_not_given_what_nobody_checked: append_to_two, spoil_the_last_block;
    a_segment_that_ends_early_fences_its_partition: append_to_two, cut_a_segment;
    a_segment_that_is_gone_after_a_kill_fences_its_partition: lose_it, be_fenced, be_fenced;
    a_dropped_segment_is_not_missed_after_a_kill: roll_behind_a_checkpoint, miss_nothing, miss_nothing;
    what_lies_before_damage_is_read: append_segments, damage_the_newest, read_up_to_the_newest;
    what_lies_before_damage_is_read_without_an_index: append_segments, damage_the_oldest, read_up_to_the_oldest;
    a_journal_of_another_length_is_told: cut_the_journal, be_told;
    topics_that_damage_hides_keep_their_files: damage_the_topics_log, keep_what_is_not_known, keep_what_is_not_known;
    topics_that_no_checkpoint_has_keep_their_files: damage_the_first_entry, keep_all_files, keep_all_files, keep_all_files;
    a_partition_that_is_lost_whole_stays_so: damage_all_of_one, keep_it_lost, keep_it_lost, keep_it_lost;
    what_is_in_the_background_gives_way_to_commits: append_and_stop, give_way;
    what_a_reader_will_want_is_read_ahead: append_much, read_ahead;
    a_segment_sealed_when_nothing_is_left_of_it_is_forgotten: seal_what_was_deleted;
    readers_that_open_a_segment_at_once_share_its_file: append_to_two, open_at_once;
    a_checkpoint_needs_nothing_of_what_clients_hold: checkpoint_beside_hoards, read_some;
    who_reads_on_gets_pieces_of_files: append_segments, read_spliced;
    pieces_of_files_do_not_disturb_commits: append_segments, splice_beside_commits;
    readers_that_get_pieces_of_files_are_so_many: append_segments, splice_to_so_many;
    a_file_is_not_written_again_while_a_piece_is_on_its_way: append_segments, drop_what_is_on_its_way;
    damage_in_a_piece_of_a_file_is_told_who_asks_again: append_segments, ask_again_for_what_is_damaged;
}

/// A small shard: everything wraps and rolls soon.
pub(crate) fn config(data_dir: &Path) -> ShardConfig {
    ShardConfig {
        data_dir: data_dir.to_path_buf(),
        generation: 0,
        node: 1,
        journal_bytes: 1 << 20,
        entry_bytes_max: 160 << 10,
        commits_in_flight: 2,
        beside_bytes_min: 16 << 10,
        direct_bytes_min: 64 << 10,
        tail_bytes_max: 8 << 20,
        waiting_bytes_max: 4 << 20,
        read_bytes: 64 << 10,
        read_bytes_max: 4 << 20,
        fetch_path: FetchPath::Splice,
        files_max: 64,
        checkpoint_interval: Duration::from_secs(5),
        retention_interval: Duration::from_secs(5),
        compaction_interval: Duration::from_millis(20),
        producer_expiration: Duration::from_secs(3600),
        producers_max: 16,
        groups: GroupSettings { bytes_max: 1 << 20, ..GroupSettings::default() },
        disk_reserve_bytes: 1 << 20,
        bounds: Bounds::default(),
    }
}

/// Starts a node of one shard.
pub(crate) async fn start(reactor: &Reactor, config: ShardConfig) -> Shard {
    let mesh = mesh::build::<remote::Envelope>(1, 64).remove(0).attach(reactor);
    Shard::start(reactor.clone(), mesh, config).await.expect("the shard starts")
}

fn batch(values: &[&[u8]], timestamp: i64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(1 << 20, Codec::None);
    for value in values {
        builder.append(None, Some(value), &[], timestamp).expect("it fits");
    }
    builder.build().expect("it is not empty")
}

fn numbered(n: u64, bytes: usize) -> Vec<u8> {
    let mut value = vec![(n % 251) as u8; bytes.max(8)];
    value[..8].copy_from_slice(&n.to_le_bytes());
    value
}

/// Records of these cases are of 1970; retention must not take them on a slow machine, where it comes round.
const KEPT: (&str, &str) = ("retention.ms", "-1");

async fn create(shard: &Shard, name: &str, partitions: u32, settings: &[(&str, &str)]) {
    let settings = [KEPT].iter().chain(settings).map(|(key, value)| (key.to_string(), value.to_string())).collect();
    let command = Command::CreateTopic { name: name.into(), partitions, settings };
    shard.command(command).await.expect("the topic is made");
}

fn partition(shard: &Shard, name: &str, index: u32) -> PartitionHandle {
    let catalog = shard.catalog();
    let topic = catalog.topics().find(|topic| topic.name.as_str() == name).expect("the topic is there");
    shard.open(PartitionId { topic: topic.id, index: PartitionIndex(index) }).expect("the partition is here")
}

async fn outcome(session: &Session) -> Result<(Offset, Offset), AppendError> {
    session.completed().await;
    match session.pop() {
        Some(Completed::Appended { appended, .. }) => Ok((appended.base, appended.last)),
        Some(Completed::Refused { error, .. }) => Err(error),
        other => panic!("not an append's outcome: {other:?}"),
    }
}

async fn append(shard: &Shard, to: PartitionHandle, bytes: &[u8]) -> (Offset, Offset) {
    let session = Session::new(1);
    shard.append(to, bytes, &session, 1).expect("it is taken");
    outcome(&session).await.expect("it is durable")
}

/// Appends records `from..to`, one a batch, of so many bytes.
async fn append_range(shard: &Shard, to: PartitionHandle, range: std::ops::Range<u64>, bytes: usize) {
    for n in range {
        let (base, last) = append(shard, to, &batch(&[&numbered(n, bytes)], 1000 + n as i64)).await;
        assert_eq!((base, last), (Offset(n as i64), Offset(n as i64)));
    }
}

/// Adds the values of whole batches, with checksums and offsets checked.
fn take_values(data: &[u8], from: &mut Offset, values: &mut Vec<Vec<u8>>) {
    for batch in batches(data) {
        let batch = batch.expect("whole batches");
        assert_eq!(batch.crc(), batch.computed_crc());
        for record in batch.records(&mut Vec::new(), 0).expect("records") {
            let record = record.expect("a record");
            if record.offset >= from.0 {
                assert_eq!(record.offset, from.0, "offsets are contiguous");
                *from = from.plus(1);
                values.push(record.value.expect("a value").to_vec());
            }
        }
    }
}

/// All values from an offset on, with the offsets checked.
async fn read_all(shard: &Shard, of: PartitionHandle, mut from: Offset) -> Vec<Vec<u8>> {
    let (mut cursor, mut values) = (Cursor::default(), Vec::new());
    loop {
        let mut out = Outgoing::new();
        match shard.read_disk(of, from, 40_000, &mut cursor, &mut out).await.expect("it is readable") {
            Read::Data { next, bytes, .. } => {
                let data = out.to_vec();
                assert_eq!(data.len(), bytes);
                take_values(&data, &mut from, &mut values);
                assert_eq!(from, next);
            }
            Read::End { .. } => return values,
            Read::OnDisk => panic!("read_disk never says so"),
        }
    }
}

async fn expect_range(shard: &Shard, of: PartitionHandle, range: std::ops::Range<u64>, bytes: usize) {
    let values = read_all(shard, of, Offset(range.start as i64)).await;
    assert_eq!(values.len(), (range.end - range.start) as usize);
    for (n, value) in range.zip(values) {
        assert!(value == numbered(n, bytes), "record {n} is what was appended");
    }
}

async fn append_and_read(shard: Shard) {
    create(&shard, "t", 2, &[]).await;
    let one = partition(&shard, "t", 1);
    assert_eq!(read_all(&shard, one, Offset(0)).await.len(), 0);
    let (base, last) = append(&shard, one, &batch(&[b"a", b"", b"c"], 5)).await;
    assert_eq!((base, last), (Offset(0), Offset(2)));
    assert_eq!(read_all(&shard, one, Offset(1)).await, [b"".to_vec(), b"c".to_vec()]);
    let two_batches = [batch(&[b"d"], 5), batch(&[b"e", b"f"], 6)].concat();
    assert_eq!(append(&shard, one, &two_batches).await, (Offset(3), Offset(5)));
    assert_eq!(read_all(&shard, one, Offset(0)).await.len(), 6);
    assert_eq!(read_all(&shard, partition(&shard, "t", 0), Offset(0)).await.len(), 0);
}

async fn append_without_times(shard: Shard) {
    create(&shard, "t", 1, &[("message.timestamp.type", "LogAppendTime")]).await;
    let (session, began) = (Session::new(1), shard.reactor().wall_clock());
    // Of 1970, and of a time to come: what producers say does not matter.
    let batches = [batch(&[b"a", b"b"], 1), batch(&[b"c"], began.0 + (1 << 40))].concat();
    shard.append(partition(&shard, "t", 0), &batches, &session, 1).expect("it is taken");
    session.completed().await;
    let Some(Completed::Appended { appended, .. }) = session.pop() else { panic!("it is durable") };
    assert!((began..=shard.reactor().wall_clock()).contains(&appended.at), "{appended:?}");
    assert_eq!((appended.base, appended.last, appended.first), (Offset(0), Offset(2), Offset(0)));
    assert_eq!(times(&shard).await, [appended.at.0; 3]);
    let found = shard.list_offset(partition(&shard, "t", 0), OffsetQuery::At(began)).await.expect("it is found");
    assert_eq!(found.map(|found| found.0), Some(Offset(0)), "{found:?}");
}

async fn read_times(shard: Shard) {
    let times = times(&shard).await;
    assert!(times.len() == 3 && times.iter().all(|time| *time == times[0] && *time > 1), "{times:?}");
}

/// The time of each record of the topic.
async fn times(shard: &Shard) -> Vec<i64> {
    let mut out = Outgoing::new();
    let read = shard.read_disk(partition(shard, "t", 0), Offset(0), 1 << 20, &mut Cursor::default(), &mut out).await;
    assert!(matches!(read, Ok(Read::Data { .. })), "{read:?}");
    let data = out.to_vec();
    let of = |batch: BatchView<'_>| {
        assert_eq!(batch.crc(), batch.computed_crc());
        batch.plain_records().expect("records").map(|record| record.expect("a record").timestamp).collect::<Vec<_>>()
    };
    batches(&data).flat_map(|batch| of(batch.expect("whole batches"))).collect()
}

async fn append_some(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    append_range(&shard, partition(&shard, "t", 0), 0..50, 700).await;
}

async fn append_and_stop(shard: Shard) {
    append_some(shard.clone()).await;
    shard.stop().await;
}

async fn append_and_stop_at_once(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let session = Session::new(1);
    // The partition has no segment yet.
    shard.append(partition(&shard, "t", 0), &batch(&[b"last"], 5), &session, 1).expect("it is taken");
    shard.stop().await;
    outcome(&session).await.expect("it is durable");
}

const PRODUCER: i64 = 77;

fn numbered_batch(sequence: u64, bytes: usize) -> Vec<u8> {
    numbered_by(PRODUCER, sequence, bytes)
}

fn numbered_by(producer: i64, sequence: u64, bytes: usize) -> Vec<u8> {
    let mut batch = batch(&[&numbered(sequence, bytes)], 1000);
    number(&mut batch, producer, 0, sequence as i32).expect("it is a batch");
    batch
}

/// Also one that has to wait for its segment, and one that goes to its segment directly.
async fn send_numbered(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let to = partition(&shard, "t", 0);
    let session = Session::new(8);
    for (ticket, sequence) in [0, 1, 2, 1, 0].into_iter().enumerate() {
        shard.append(to, &numbered_batch(sequence, 100), &session, ticket as u64).expect("it is taken");
    }
    for sequence in [0, 1, 2, 1, 0] {
        assert_eq!(outcome(&session).await, Ok((Offset(sequence), Offset(sequence))));
    }
    assert_eq!(append(&shard, to, &numbered_batch(3, 200_000)).await.0, Offset(3));
    assert_eq!(append(&shard, to, &numbered_batch(4, 100)).await.0, Offset(4));
    let gap = shard.append(to, &numbered_batch(6, 100), &session, 9);
    assert!(matches!(gap, Err(AppendError::Sequence(_))), "{gap:?}");
    assert_eq!(shard.counters().duplicates.get(), 2);
}

async fn send_numbered_again(shard: Shard) {
    let to = partition(&shard, "t", 0);
    for sequence in [4, 0, 1, 2, 3] {
        let bytes = if sequence == 3 { 200_000 } else { 100 };
        assert_eq!(append(&shard, to, &numbered_batch(sequence, bytes)).await.0, Offset(sequence as i64));
    }
    assert_eq!(read_all(&shard, to, Offset(0)).await.len(), 5);
}

/// More than the journal holds, so that what is known of the producer is in checkpoints and in the journal.
async fn send_much_numbered(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let to = partition(&shard, "t", 0);
    let session = Session::new(5);
    for ticket in 0..400 {
        shard.append(to, &numbered_batch(ticket, 10_000), &session, ticket).expect("it is taken");
        if ticket >= 4 {
            outcome(&session).await.expect("it is durable");
        }
    }
    for _ in 0..4 {
        outcome(&session).await.expect("it is durable");
    }
    assert!(shard.counters().checkpoints.get() > 1);
}

async fn send_the_newest_again(shard: Shard) {
    let to = partition(&shard, "t", 0);
    for sequence in 395..400 {
        assert_eq!(append(&shard, to, &numbered_batch(sequence, 10_000)).await.0, Offset(sequence as i64));
    }
    let session = Session::new(1);
    let old = shard.append(to, &numbered_batch(394, 10_000), &session, 1);
    assert!(matches!(old, Err(AppendError::Sequence(_))), "{old:?}");
    assert_eq!(read_all(&shard, to, Offset(0)).await.len(), 400);
    shard.stop().await;
}

fn member<'a>(member: &'a str, generation: i32) -> Said<'a> {
    Said { member, instance: None, generation }
}

fn committed(n: i64) -> Vec<(Place, Committed)> {
    let place = |partition| Place { topic: "t".to_owned(), partition };
    let committed = |offset| Committed {
        offset: Offset(offset),
        leader_epoch: 3,
        metadata: "x".repeat(1000),
        // Far from the end of its retention, whatever the clock says.
        at: Timestamp(4_000_000_000_000 + offset),
    };
    vec![(place(0), committed(n)), (place(1), committed(2 * n))]
}

fn consumer() -> Join {
    Join {
        member: String::new(),
        instance: None,
        client_id: "c".to_owned(),
        client_host: "/here".to_owned(),
        session: Duration::from_secs(1800),
        rebalance: Duration::from_secs(60),
        protocol_type: "consumer".to_owned(),
        protocols: vec![("range".to_owned(), vec![1, 2])],
        needs_id: false,
    }
}

/// Often enough for the log of groups to be written anew, twice.
const COMMITS: i64 = 300;

/// A member that is assigned something and commits how far it has come; another group only keeps offsets.
async fn commit_offsets(shard: Shard) {
    create(&shard, "t", 2, &[]).await;
    shard.make_groups().await.expect("there is room for them");
    shard.make_groups().await.expect("they are there");
    let joined = shard.join_group("readers", consumer()).await.expect("it joins");
    let assignment = vec![(joined.member.clone(), b"all".to_vec())];
    let said = member(&joined.member, 1);
    let synced = shard.sync_group("readers", &said, (None, None), assignment).await.expect("it is assigned");
    assert_eq!(synced.assignment, b"all");
    for n in 0..=COMMITS {
        let outcome = shard.commit_offsets("readers", &said, committed(n)).await;
        assert_eq!(outcome, Ok(vec![Ok(()), Ok(())]));
    }
    let alone = member("", -1);
    assert_eq!(shard.commit_offsets("alone", &alone, committed(7)).await, Ok(vec![Ok(()), Ok(())]));
    assert_eq!(shard.commit_offsets("gone", &alone, committed(7)).await, Ok(vec![Ok(()), Ok(())]));
    assert_eq!(shard.delete_group("gone").await, Ok(()));
}

/// What a member of the consumer protocol says that reads these partitions of a topic.
fn says(member: &str, epoch: i32, topic: &str, owned: &Partitions) -> Heartbeat {
    Heartbeat {
        member: member.to_owned(),
        epoch,
        client_id: "consumer".to_owned(),
        rebalance: Some(Duration::from_secs(60)),
        names: Some(vec![topic.to_owned()]),
        owned: Some(owned.clone()),
        ..Heartbeat::default()
    }
}

/// Asks until the member has so many partitions; its epoch, and which they are.
async fn beat_until(
    shard: &Shard,
    member: &str,
    mut epoch: i32,
    owned: &Partitions,
    wanted: usize,
) -> (i32, Partitions) {
    let mut owned = owned.clone();
    for _ in 0..200 {
        let told =
            shard.consumer_heartbeat("assigned", &says(member, epoch, "t", &owned)).await.expect("it is a member");
        epoch = told.epoch;
        owned = told.assignment.expect("who says all is told all");
        if owned.values().map(BTreeSet::len).sum::<usize>() == wanted {
            return (epoch, owned);
        }
        shard.reactor().sleep(Duration::from_millis(10)).await;
    }
    panic!("{member} has {owned:?}");
}

async fn join_consumers(shard: Shard) {
    create(&shard, "t", 4, &[]).await;
    shard.make_groups().await.expect("there is room for them");
    let none = Partitions::new();
    let (epoch, all) = beat_until(&shard, "one", 0, &none, 4).await;
    let told = shard.consumer_heartbeat("assigned", &says("two", 0, "t", &none)).await.expect("it joins");
    assert_eq!(told.assignment, Some(none.clone()));
    let (epoch, half) = beat_until(&shard, "one", epoch, &all, 2).await;
    let (epoch, half) = beat_until(&shard, "one", epoch, &half, 2).await;
    beat_until(&shard, "two", told.epoch, &none, 2).await;
    let one = member("one", epoch);
    assert_eq!(shard.commit_offsets("assigned", &one, committed(5)).await, Ok(vec![Ok(()), Ok(())]));
    let stale = member("one", epoch - 1);
    assert_eq!(shard.commit_offsets("assigned", &stale, committed(6)).await, Err(GroupError::StaleMember));
    assert_eq!(shard.committed_offsets("assigned", Some(&stale)).await, Err(GroupError::StaleMember));
    let classic = shard.join_group("assigned", consumer()).await;
    assert_eq!(classic, Err((GroupError::InconsistentProtocol, String::new())));
    assert_eq!(shard.delete_group("assigned").await, Err(GroupError::NotEmpty));
    // Enough for the log of groups to be written anew.
    for _ in 0..COMMITS {
        let outcome = shard.commit_offsets("assigned", &one, committed(5)).await;
        assert_eq!(outcome, Ok(vec![Ok(()), Ok(())]));
    }
    assert_eq!(half.values().map(BTreeSet::len).sum::<usize>(), 2);
}

async fn go_on_as_consumers(shard: Shard) {
    let status = shard.describe_consumer_group("assigned").await.expect("it is there");
    assert_eq!((status.state, status.epoch, status.members.len()), ("Stable", 2, 2));
    let [one, two] = &status.members[..] else { panic!("{status:?}") };
    assert_eq!((one.epoch, &one.assigned), (2, &one.target));
    let told = shard.consumer_heartbeat("assigned", &says("one", one.epoch, "t", &one.assigned)).await;
    assert_eq!(
        told.map(|told| (told.epoch, told.assignment)),
        Ok((2, Some(one.assigned.clone()))),
        "as if nothing had been"
    );
    let known = shard.committed_offsets("assigned", Some(&member("two", two.epoch))).await.expect("it is read");
    assert_eq!(known, committed(5).into_iter().collect());
    let gone = shard.consumer_heartbeat("assigned", &says("two", -1, "t", &two.assigned)).await.expect("it goes");
    assert_eq!(gone.epoch, -1);
    beat_until(&shard, "one", 2, &one.assigned, 4).await;
}

async fn leave_as_consumers(shard: Shard) {
    let listed = shard.list_groups().await.expect("they are read");
    assert_eq!(listed.iter().map(|one| (&*one.name, one.is_consumer)).collect::<Vec<_>>(), [("assigned", true)]);
    let status = shard.describe_consumer_group("assigned").await.expect("it is there");
    assert_eq!((status.epoch, status.members.len()), (3, 1));
    let none = Partitions::new();
    shard.consumer_heartbeat("assigned", &says("one", -1, "t", &none)).await.expect("it goes");
    // Without members the group may be of the other protocol, and again.
    shard.join_group("assigned", consumer()).await.expect("it joins");
    assert_eq!(shard.describe_consumer_group("assigned").await, Err(GroupError::NotFound));
    let refused = shard.consumer_heartbeat("assigned", &says("two", 0, "t", &none)).await;
    assert_eq!(refused, Err(GroupError::NotFound));
    let members = shard.describe_group("assigned").await.expect("it is there").members;
    assert_eq!(shard.leave_group("assigned", &members[0].member, None).await, Ok(()));
    beat_until(&shard, "two", 0, &none, 4).await;
    assert_eq!(shard.describe_group("assigned").await, Err(GroupError::NotFound));
    shard.consumer_heartbeat("assigned", &says("two", -1, "t", &none)).await.expect("it goes");
    assert_eq!(shard.delete_group("assigned").await, Ok(()));
    assert_eq!(shard.list_groups().await, Ok(Vec::new()));
}

async fn commit_too_much(shard: Shard) {
    create(&shard, "wide", 20, &[]).await;
    shard.make_groups().await.expect("there is room for them");
    let metadata = "x".repeat(METADATA_BYTES_MAX);
    let committed = Committed { offset: Offset(1), leader_epoch: -1, metadata, at: Timestamp(4_000_000_000_000) };
    let all = || (0..20).map(|partition| (Place { topic: "wide".to_owned(), partition }, committed.clone())).collect();
    let alone = member("", -1);
    let mut groups = 0;
    while let Ok(outcomes) = shard.commit_offsets(&format!("g{groups}"), &alone, all()).await {
        assert!(outcomes.iter().all(Result::is_ok));
        groups += 1;
        assert!(groups * 20 * METADATA_BYTES_MAX <= 1 << 20, "it is counted");
    }
    assert!(groups > 8, "{groups} groups had room");
    let join = Join { member: String::new(), protocols: vec![("range".to_owned(), vec![0; 1 << 20])], ..consumer() };
    assert_eq!(shard.join_group("more", join).await, Err((GroupError::Full, String::new())));
    assert_eq!(shard.delete_group("g0").await, Ok(()));
    assert!(shard.commit_offsets("g0", &alone, all()).await.is_ok(), "there is room again");
}

async fn read_offsets(shard: Shard) {
    let known = shard.committed_offsets("readers", None).await.expect("it is read");
    assert_eq!(known, committed(COMMITS).into_iter().collect());
    assert_eq!(shard.committed_offsets("alone", None).await.expect("it is read"), committed(7).into_iter().collect());
    assert_eq!(shard.describe_group("gone").await, Err(GroupError::NotFound));
    let status = shard.describe_group("readers").await.expect("it is there");
    assert_eq!((status.state, &*status.protocol, status.members.len()), ("Stable", "range", 1));
    assert_eq!(status.members[0].assignment, b"all");
    let said = member(&status.members[0].member, 1);
    assert_eq!(shard.heartbeat("readers", &said).await, Ok(()), "it goes on as if nothing had been");
    let log = partition(&shard, GROUPS_TOPIC, partition_of("readers", PARTITIONS));
    assert!(shard.describe(log).expect("it is there").first > Offset(0), "it is kept short");
    let foreign = shard.append(log, &batch(&[b"x"], 1), &Session::new(1), 1);
    assert_eq!(foreign, Err(AppendError::Internal), "clients write to it through their groups");
}

async fn read_what_came_last(shard: Shard) {
    assert_eq!(read_all(&shard, partition(&shard, "t", 0), Offset(0)).await, [b"last".to_vec()]);
}

async fn read_some(shard: Shard) {
    let topic = partition(&shard, "t", 0);
    expect_range(&shard, topic, 0..50, 700).await;
    append_range(&shard, topic, 50..60, 700).await;
    expect_range(&shard, topic, 0..60, 700).await;
}

async fn commit_many(shard: Shard) {
    create(&shard, "t", 200, &[]).await;
    let (session, commits) = (Session::new(200), shard.counters().commits.get());
    for round in 0..2 {
        // The first round makes the segments ready; the second one is what counts.
        let before = shard.counters().commits.get();
        for index in 0..200 {
            let to = partition(&shard, "t", index);
            shard.append(to, &batch(&[&numbered(7, 300)], 1), &session, u64::from(index)).expect("it is taken");
        }
        for _ in 0..200 {
            let (base, _) = outcome(&session).await.expect("it is durable");
            assert_eq!(base, Offset(round));
        }
        if round == 1 {
            assert_eq!(shard.counters().commits.get() - before, 1, "one entry for all");
        }
    }
    assert!(shard.counters().commits.get() > commits);
}

async fn append_large(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let to = partition(&shard, "t", 0);
    for n in 0..12 {
        let bytes = if n % 3 == 0 { 900 } else { 200_000 + n as usize * 1000 };
        append(&shard, to, &batch(&[&numbered(n, bytes)], 1)).await;
    }
    check_large(&shard).await;
}

async fn check_large(shard: &Shard) {
    let values = read_all(shard, partition(shard, "t", 0), Offset(0)).await;
    assert_eq!(values.len(), 12);
    for (n, value) in (0..12).zip(values) {
        let bytes = if n % 3 == 0 { 900 } else { 200_000 + n as usize * 1000 };
        assert!(value == numbered(n, bytes), "record {n} is what was appended");
    }
}

async fn read_large(shard: Shard) {
    check_large(&shard).await;
}

async fn append_between_checkpoints(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let to = partition(&shard, "t", 0);
    for round in 0..8u64 {
        append_range(&shard, to, round * 3..round * 3 + 3, 333).await;
        shard.checkpoint().await.expect("a checkpoint");
    }
    append_range(&shard, to, 24..25, 333).await;
}

async fn read_between_checkpoints(shard: Shard) {
    expect_range(&shard, partition(&shard, "t", 0), 0..25, 333).await;
}

/// Chunks that double would take the tails' 8 MiB several times over.
async fn crowd(shard: Shard) {
    create(&shard, "t", 300, &[]).await;
    for n in 0..30 {
        let session = Session::new(300);
        for index in 0..300 {
            let to = partition(&shard, "t", index);
            let taken = shard.append(to, &batch(&[&numbered(n, 700)], 1), &session, u64::from(index));
            taken.unwrap_or_else(|error| panic!("record {n} of partition {index}: {error}"));
        }
        for _ in 0..300 {
            outcome(&session).await.expect("it is durable");
        }
        shard.room(&session).await;
    }
}

/// Appends until memory is scarce for who does; there still is some for another one.
async fn take_much(shard: Shard) {
    create(&shard, "much", 1, &[]).await;
    create(&shard, "little", 1, &[]).await;
    let (much, little) = (partition(&shard, "much", 0), partition(&shard, "little", 0));
    append_range(&shard, much, 0..1, 100).await;
    append_range(&shard, little, 0..1, 100).await;
    let (hoarder, other) = (Session::new(1), Session::new(1));
    let mut taken = 0;
    while !shard.is_crowded(&hoarder) {
        shard.append(much, &batch(&[&numbered(1, 150_000)], 1), &hoarder, 1).expect("it is taken");
        taken += 1;
        assert!(taken < 100, "memory is bounded");
    }
    assert!(!shard.is_crowded(&other));
    shard.append(little, &batch(&[&numbered(1, 100)], 1), &other, 1).expect("it is taken");
    assert!(!shard.is_crowded(&other));
    shard.room(&hoarder).await;
    for _ in 0..taken {
        outcome(&hoarder).await.expect("it is durable");
    }
    outcome(&other).await.expect("it is durable");
}

async fn read_crowd(shard: Shard) {
    for index in (0..300).step_by(37) {
        expect_range(&shard, partition(&shard, "t", index), 0..30, 700).await;
    }
}

async fn fill_the_journal(shard: Shard) {
    create(&shard, "t", 3, &[]).await;
    for n in 0..120 {
        for index in 0..3 {
            append_range(&shard, partition(&shard, "t", index), n..n + 1, 20_000).await;
        }
    }
    assert!(shard.counters().checkpoints.get() > 3, "the journal was reused");
}

async fn read_the_filled(shard: Shard) {
    for index in 0..3 {
        expect_range(&shard, partition(&shard, "t", index), 0..120, 20_000).await;
    }
}

async fn roll(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "65536")]).await;
    let to = partition(&shard, "t", 0);
    append_range(&shard, to, 0..100, 5000).await;
    assert!(shard.describe(to).expect("it is there").segments >= 8);
    shard.checkpoint().await.expect("a checkpoint");
    append_range(&shard, to, 100..101, 5000).await;
    // Nothing was appended since: the tail goes, and all is read from disk.
    shard.checkpoint().await.expect("a checkpoint");
    shard.release_idle();
    shard.checkpoint().await.expect("a checkpoint");
    expect_range(&shard, to, 0..101, 5000).await;
    expect_range(&shard, to, 57..101, 5000).await;
}

async fn read_rolled(shard: Shard) {
    let of = partition(&shard, "t", 0);
    expect_range(&shard, of, 0..101, 5000).await;
    append_range(&shard, of, 101..140, 5000).await;
    expect_range(&shard, of, 33..140, 5000).await;
}

async fn delete(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "65536")]).await;
    let of = partition(&shard, "t", 0);
    append_range(&shard, of, 0..60, 5000).await;
    shard.checkpoint().await.expect("a checkpoint");
    assert_eq!(shard.delete_records(of, Offset(35)).await, Ok(Offset(35)));
    check_deleted(&shard).await;
    assert!(shard.delete_records(of, Offset(61)).await.is_err());
    assert_eq!(shard.delete_records(of, Offset(10)).await, Ok(Offset(35)), "it never goes back");
}

async fn check_deleted(shard: &Shard) {
    let of = partition(shard, "t", 0);
    assert_eq!(shard.describe(of).expect("it is there").first, Offset(35));
    let read = shard.read(of, Offset(34), 1, &mut Cursor::default(), &mut Outgoing::new());
    assert_eq!(read, Err(ReadError::OutOfRange { first: Offset(35), next: Offset(60) }));
    expect_range(shard, of, 35..60, 5000).await;
}

async fn read_after_delete(shard: Shard) {
    check_deleted(&shard).await;
}

/// As if the process had ended between the checkpoint that drops a segment and the removal of its file.
async fn leave_a_dropped_segment(shard: Shard) {
    delete(shard.clone()).await;
    let id = shard.id_of(partition(&shard, "t", 0)).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    shard.checkpoint().await.expect("a checkpoint");
    while shard.reactor().open(&path, Open::Read).await.is_ok() {
        shard.0.retention.dropped(partition(&shard, "t", 0));
        shard.reactor().sleep(Duration::from_millis(1)).await;
    }
    shard.stop().await;
    shard.reactor().open(&path, Open::Create).await.expect("it is made");
    shard.reactor().sync_dir(&paths::partition(&shard.0.config.data_dir, id)).await.expect("it stays");
}

async fn see_it_go(shard: Shard) {
    let id = shard.id_of(partition(&shard, "t", 0)).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    while shard.reactor().open(&path, Open::Read).await.is_ok() {
        shard.reactor().sleep(Duration::from_millis(1)).await;
    }
    check_deleted(&shard).await;
}

async fn delete_topic(shard: Shard) {
    for round in 0..2 {
        create(&shard, "t", 1, &[]).await;
        let to = partition(&shard, "t", 0);
        append_range(&shard, to, 0..10, 3000).await;
        if round == 1 {
            shard.checkpoint().await.expect("a checkpoint");
        }
        shard.command(Command::DeleteTopic { name: "t".into() }).await.expect("it goes");
        assert_eq!(shard.describe(to), None, "a stale handle opens nothing");
    }
    create(&shard, "t", 1, &[]).await;
    append_range(&shard, partition(&shard, "t", 0), 0..2, 100).await;
}

async fn read_made_again(shard: Shard) {
    expect_range(&shard, partition(&shard, "t", 0), 0..2, 100).await;
    let topics = shard.reactor().list_dir(&shard.0.config.data_dir.join("topics")).await.expect("a directory");
    assert!(topics.len() <= 2, "the deleted topics' files are gone: {topics:?}");
}

/// With timestamps of now: a segment of old records would be rolled before the next append.
async fn append_to_two(shard: Shard) {
    create(&shard, "t", 2, &[]).await;
    for index in 0..2 {
        append_young(&shard, partition(&shard, "t", index), 0..50, 700).await;
    }
    shard.stop().await;
}

/// As [`append_range`], with records that retention leaves alone.
async fn append_young(shard: &Shard, to: PartitionHandle, range: std::ops::Range<u64>, bytes: usize) {
    for n in range {
        append(shard, to, &batch(&[&numbered(n, bytes)], shard.reactor().wall_clock().0)).await;
    }
}

async fn lose_a_segment(shard: Shard) {
    let (lost, other) = (partition(&shard, "t", 0), partition(&shard, "t", 1));
    let id = shard.id_of(lost).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    shard.reactor().remove_file(&path).await.expect("it was there");
    let (session, bytes) = (Session::new(1), batch(&[b"more"], 1));
    shard.append(lost, &bytes, &session, 0).expect("it waits for its segment");
    assert!(matches!(outcome(&session).await, Err(AppendError::Fenced(_))));
    let read = shard.read_disk(lost, Offset(0), 1, &mut Cursor::default(), &mut Outgoing::new()).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "{read:?}");
    assert!(shard.append(lost, &bytes, &session, 0).is_err());
    expect_range(&shard, other, 0..50, 700).await;
    append_range(&shard, other, 50..60, 700).await;
    assert_eq!(shard.counters().reopenings.get(), 0, "the others were not disturbed");
}

async fn cut_a_segment(shard: Shard) {
    let (cut, other) = (partition(&shard, "t", 0), partition(&shard, "t", 1));
    let id = shard.id_of(cut).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    file.truncate(3 * BLOCK).await.expect("it is cut within a batch");
    let (mut cursor, mut from) = (Cursor::default(), Offset(0));
    let refused = loop {
        match shard.read_disk(cut, from, 1, &mut cursor, &mut Outgoing::new()).await {
            Ok(Read::Data { next, .. }) => from = next,
            other => break other,
        }
    };
    assert!(matches!(refused, Err(ReadError::Fenced(_))), "{refused:?}");
    expect_range(&shard, other, 0..50, 700).await;
}

/// What the journal has continues each partition's segment in its middle. One goes, as if while the server was down.
async fn lose_it(shard: Shard) {
    create(&shard, "t", 2, &[]).await;
    for range in [0..50, 50..70] {
        shard.checkpoint().await.expect("a checkpoint");
        for index in 0..2 {
            append_range(&shard, partition(&shard, "t", index), range.clone(), 700).await;
        }
    }
    let id = shard.id_of(partition(&shard, "t", 0)).expect("it is there");
    let root = &shard.0.config.data_dir;
    shard.reactor().remove_file(&paths::segment(root, id, Offset(0))).await.expect("it was there");
    shard.reactor().sync_dir(&paths::partition(root, id)).await.expect("it is gone for good");
}

async fn be_fenced(shard: Shard) {
    let (lost, other) = (partition(&shard, "t", 0), partition(&shard, "t", 1));
    let status = shard.describe(lost).expect("it is there");
    assert!(status.fenced.is_some() && status.next == Offset(70), "{status:?}");
    let written = shard.append(lost, &batch(&[b"more"], 1), &Session::new(1), 1);
    assert!(matches!(written, Err(AppendError::Fenced(_))), "{written:?}");
    let read = shard.read_disk(lost, Offset(0), 1, &mut Cursor::default(), &mut Outgoing::new()).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "{read:?}");
    expect_range(&shard, other, 0..70, 700).await;
    let (reactor, root) = (shard.reactor(), &shard.0.config.data_dir);
    let path = paths::segment(root, shard.id_of(lost).expect("it is there"), Offset(0));
    let file = reactor.open(&path, Open::Read).await.expect("it was made to look at its length");
    let why = "the next start would not see the hole, had this one ended before its checkpoint";
    assert_eq!(file.length().await.expect("it has one"), 0, "{why}");
    let kept = reactor.list_dir(root).await.expect("it is there");
    let kept = kept.iter().filter(|entry| entry.name.starts_with(paths::DAMAGED_JOURNAL));
    assert_eq!(kept.count(), 1, "what was to be written there is kept, once");
}

/// The journal has the end of a segment whose file is dropped before a checkpoint says so.
async fn roll_behind_a_checkpoint(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "65536")]).await;
    let of = partition(&shard, "t", 0);
    append_range(&shard, of, 0..50, 700).await;
    shard.checkpoint().await.expect("a checkpoint");
    append_range(&shard, of, 50..150, 700).await;
    assert_eq!(shard.delete_records(of, Offset(120)).await, Ok(Offset(120)));
    let id = shard.id_of(of).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    while shard.reactor().open(&path, Open::Read).await.is_ok() {
        shard.reactor().sleep(Duration::from_millis(1)).await;
    }
}

async fn miss_nothing(shard: Shard) {
    let of = partition(&shard, "t", 0);
    let status = shard.describe(of).expect("it is there");
    assert!(status.fenced.is_none() && status.first == Offset(120), "{status:?}");
    expect_range(&shard, of, 120..150, 700).await;
}

/// A block of the segment that begins at `base` is damaged, and its index file, if there is one, removed.
async fn damage_a_block(shard: &Shard, base: Offset, block: u64) {
    let id = shard.id_of(partition(shard, "t", 0)).expect("it is there");
    let path = paths::segment(&shard.0.config.data_dir, id, base);
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    let mut damage = shard.reactor().pool().buffer(BLOCK as usize).expect("there is memory");
    damage.fill(7);
    file.write_at(block * BLOCK, damage.freeze(), WriteSync::Data).await.expect("it is written");
    let _ = shard.reactor().remove_file(&paths::index(&shard.0.config.data_dir, id, base)).await;
}

const DAMAGED_BLOCK: u64 = 100;

async fn damage_the_newest(shard: Shard) {
    let base = newest_segment(&shard);
    assert!(base > Offset(0), "there are some before it");
    damage_a_block(&shard, base, DAMAGED_BLOCK).await;
}

async fn damage_the_oldest(shard: Shard) {
    damage_a_block(&shard, Offset(0), DAMAGED_BLOCK).await;
}

async fn read_up_to_the_newest(shard: Shard) {
    read_up_to_damage(&shard, newest_segment(&shard)).await;
}

async fn read_up_to_the_oldest(shard: Shard) {
    read_up_to_damage(&shard, Offset(0)).await;
}

fn newest_segment(shard: &Shard) -> Offset {
    let partitions = shard.0.partitions.borrow();
    let partition = partitions.get(partition(shard, "t", 0)).expect("it is there");
    partition.active.as_ref().expect("it has one").base
}

/// All before the damaged block is read from the beginning, by whoever asks, and then the damage is told.
async fn read_up_to_damage(shard: &Shard, segment: Offset) {
    let of = partition(shard, "t", 0);
    let bytes = batch(&[&numbered(0, spliced::BYTES)], 1000).len() as u64;
    let whole = DAMAGED_BLOCK * BLOCK / bytes;
    for max_bytes in [1, 300_000] {
        let (mut cursor, mut from, mut values) = (Cursor::default(), Offset(0), Vec::new());
        let refused = loop {
            let mut out = Outgoing::new();
            match shard.read_disk(of, from, max_bytes, &mut cursor, &mut out).await {
                Ok(Read::Data { .. }) => take_values(&out.to_vec(), &mut from, &mut values),
                other => break other,
            }
        };
        assert!(matches!(refused, Err(ReadError::Fenced(_))), "{refused:?}");
        assert_eq!(values.len() as u64, segment.0 as u64 + whole);
    }
}

/// The length is not even one of whole blocks.
async fn cut_the_journal(shard: Shard) {
    append_some(shard.clone()).await;
    shard.checkpoint().await.expect("a checkpoint");
    append_range(&shard, partition(&shard, "t", 0), 50..60, 700).await;
    let config = &shard.0.config;
    let path = paths::shard(&config.data_dir, config.generation, shard.id()).join(paths::JOURNAL);
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    file.truncate(config.journal_bytes - 1).await.expect("it is cut");
    file.sync_data().await.expect("it stays so");
}

async fn be_told(shard: Shard) {
    let of = partition(&shard, "t", 0);
    let status = shard.describe(of).expect("it is there");
    assert!(status.fenced.is_some() && status.next == Offset(50), "{status:?}");
    let read = shard.read_disk(of, status.next, 1, &mut Cursor::default(), &mut Outgoing::new()).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "what was acknowledged there is missing: {read:?}");
    let session = Session::new(1);
    shard.watch(of, status.next, &session, 3).expect("it is there");
    assert!(matches!(session.pop(), Some(Completed::Readable { ticket: 3 })), "there is nothing to wait for");
}

/// An entry that was acknowledged is lost, and behind it the topic `hidden` was made.
async fn damage_the_topics_log(shard: Shard) {
    append_some(shard.clone()).await;
    shard.checkpoint().await.expect("a checkpoint");
    let at = shard.0.journal.borrow().next.0 % shard.0.config.journal_bytes;
    append_range(&shard, partition(&shard, "t", 0), 50..52, 700).await;
    create(&shard, "hidden", 1, &[]).await;
    append_range(&shard, partition(&shard, "hidden", 0), 0..3, 700).await;
    damage_entry(&shard, at).await;
}

/// Writes over the journal's entry that begins here.
async fn damage_entry(shard: &Shard, at: u64) {
    let config = &shard.0.config;
    let path = paths::shard(&config.data_dir, config.generation, shard.id()).join(paths::JOURNAL);
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    let mut damage = shard.reactor().pool().buffer(BLOCK as usize).expect("there is memory");
    damage.fill(7);
    file.write_at(at, damage.freeze(), WriteSync::Data).await.expect("it is written");
}

/// Of a shard that took no checkpoint yet.
async fn damage_the_first_entry(shard: Shard) {
    let at = shard.0.journal.borrow().next.0 % shard.0.config.journal_bytes;
    create(&shard, "t", 1, &[]).await;
    append_range(&shard, partition(&shard, "t", 0), 0..5, 100_000).await;
    assert_eq!(shard.counters().checkpoints.get(), 0);
    damage_entry(&shard, at).await;
}

async fn keep_all_files(shard: Shard) {
    let metadata = shard.handle_of(PartitionId::METADATA).expect("it is there");
    assert!(shard.is_fenced(metadata), "that there are no topics is not known");
    let command = Command::CreateTopic { name: "t".into(), partitions: 1, settings: Vec::new() };
    assert!(shard.command(command).await.is_err(), "it may be there");
    let topics = shard.reactor().list_dir(&paths::topics(&shard.0.config.data_dir)).await.expect("it is there");
    assert!(!topics.is_empty());
    shard.checkpoint().await.expect("a checkpoint");
    shard.reactor().sleep(Duration::from_millis(10)).await;
}

/// A partition that no checkpoint knows, for nothing had been appended to it.
async fn damage_all_of_one(shard: Shard) {
    append_some(shard.clone()).await;
    create(&shard, "late", 1, &[]).await;
    shard.checkpoint().await.expect("a checkpoint");
    let at = shard.0.journal.borrow().next.0 % shard.0.config.journal_bytes;
    append_range(&shard, partition(&shard, "late", 0), 0..5, 100_000).await;
    damage_entry(&shard, at).await;
}

async fn keep_it_lost(shard: Shard) {
    let late = partition(&shard, "late", 0);
    let status = shard.describe(late).expect("it is there");
    assert!(status.fenced.is_some() && status.next == Offset(0), "{status:?}");
    let read = shard.read_disk(late, Offset(0), 1, &mut Cursor::default(), &mut Outgoing::new()).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "{read:?}");
    let written = shard.append(late, &batch(&[b"over it"], 1), &Session::new(1), 1);
    assert!(matches!(written, Err(AppendError::Fenced(_))), "{written:?}");
    shard.stop().await;
}

async fn keep_what_is_not_known(shard: Shard) {
    let metadata = shard.handle_of(PartitionId::METADATA).expect("it is there");
    assert!(shard.is_fenced(metadata));
    assert_eq!(shard.catalog().topics().count(), 1);
    let topics = shard.reactor().list_dir(&paths::topics(&shard.0.config.data_dir)).await.expect("it is there");
    assert_eq!(topics.len(), 3, "the metadata log, the topic that is known, and the one that is not");
}

async fn seal_what_was_deleted(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "65536")]).await;
    let of = partition(&shard, "t", 0);
    append_young(&shard, of, 0..5, 5000).await;
    assert_eq!(shard.delete_records(of, Offset(5)).await, Ok(Offset(5)));
    shard.checkpoint().await.expect("a checkpoint");
    shard.0.partitions.borrow_mut().get_mut(of).expect("it is there").seal();
    append_young(&shard, of, 5..6, 5000).await;
    shard.checkpoint().await.expect("a checkpoint");
    let id = shard.id_of(of).expect("it is there");
    let file = shard.0.checkpoints.file.borrow();
    let state = &file.as_ref().expect("a checkpoint file").state.partitions[&id];
    assert_eq!(state.sealed.keys().collect::<Vec<_>>(), Vec::<&Offset>::new(), "no file of these will be there");
}

async fn open_at_once(shard: Shard) {
    let of = partition(&shard, "t", 0);
    let open = || {
        let shard = shard.clone();
        let reactor = shard.reactor().clone();
        reactor.spawn(async move { shard.segment_file(of, Offset(0)).await.expect("no error").expect("a file") })
    };
    let (one, other) = (open(), open());
    let (one, other) = (one.await, other.await);
    assert!(Rc::ptr_eq(&one, &other), "a file that is read is known to be in use");
}

/// All of the pool that is left, in blocks as large as there are.
fn hoard(shard: &Shard) -> Vec<Buffer> {
    let pool = shard.reactor().pool();
    let sizes = (12..26).rev().map(|shift| 1 << shift);
    let hoard = sizes.flat_map(|size| std::iter::from_fn(move || pool.buffer(size))).collect();
    assert_eq!(pool.free_bytes(), 0);
    hoard
}

async fn checkpoint_beside_hoards(shard: Shard) {
    append_some(shard.clone()).await;
    let hoard = hoard(&shard);
    let before = shard.counters().checkpoints.get();
    shard.0.checkpoints.request();
    while shard.counters().checkpoints.get() == before {
        shard.reactor().sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(shard.counters().reopenings.get(), 0);
    drop(hoard);
}

/// Behind the first batch that a reader takes from the disk, the segment's last block is damaged; then an append loads it.
/// What a future says when it is looked at once.
async fn looked_at<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Poll<T> {
    poll_fn(|context| Poll::Ready(Pin::new(&mut *future).poll(context))).await
}

async fn give_way(shard: Shard) {
    let to = partition(&shard, "t", 0);
    let all = shard.0.config.read_bytes;
    {
        let (mut one, mut other) = (pin!(shard.leave(Rank::Reader, all)), pin!(shard.leave(Rank::Reader, all)));
        let leaves = (looked_at(&mut one).await, looked_at(&mut other).await);
        let (Poll::Ready(one), Poll::Ready(other)) = leaves else { panic!("without commits nobody waits") };
        assert_eq!((one.bytes, other.bytes), (all, all));
    }
    append_range(&shard, to, 50..51, 700).await;
    let (mut one, mut other) = (pin!(shard.leave(Rank::Reader, all)), pin!(shard.leave(Rank::Reader, all)));
    let Poll::Ready(leave) = looked_at(&mut one).await else { panic!("no commit is under way") };
    assert!(looked_at(&mut other).await.is_pending(), "one at a time");
    drop(leave);
    assert!(looked_at(&mut other).await.is_ready());
    let session = Session::new(1);
    shard.append(to, &batch(&[&numbered(51, 700)], 1051), &session, 1).expect("it is taken");
    while shard.0.commits.under_way.get() == 0 {
        shard.reactor().yield_now().await;
    }
    let mut behind = pin!(shard.leave(Rank::Reader, all));
    assert!(looked_at(&mut behind).await.is_pending(), "the commit goes first");
    outcome(&session).await.expect("it is durable");
    shard.reactor().yield_now().await;
    assert!(looked_at(&mut behind).await.is_ready());
    expect_range(&shard, to, 0..52, 700).await;
}

async fn append_much(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    append_range(&shard, partition(&shard, "t", 0), 0..80, 8000).await;
    shard.stop().await;
}

async fn read_ahead(shard: Shard) {
    let (of, mut cursor, mut from) = (partition(&shard, "t", 0), Cursor::default(), Offset(0));
    let counted = || shard.reactor().counters().bytes_read.get();
    let begin = counted();
    let window = shard.0.config.read_bytes as u64;
    // The second window shows that the reader goes through the segment.
    while counted() < begin + window + 1 {
        let read = shard.read_disk(of, from, 1, &mut cursor, &mut Outgoing::new()).await;
        let Ok(Read::Data { next, .. }) = read else { panic!("{read:?}") };
        from = next;
    }
    shard.reactor().sleep(Duration::from_millis(500)).await;
    assert!(counted() > begin + 2 * window, "the third was read though nobody asked for it");
    expect_range(&shard, of, 0..80, 8000).await;
}

async fn spoil_the_last_block(shard: Shard) {
    let of = partition(&shard, "t", 0);
    let id = shard.id_of(of).expect("it is there");
    let (mut cursor, mut out, mut from) = (Cursor::default(), Outgoing::new(), Offset(0));
    let end = shard.describe(of).expect("it is there").next;
    while from.0 + 1 < end.0 {
        out.clear();
        let read = shard.read_disk(of, from, 1, &mut cursor, &mut out).await.expect("it is whole");
        let Read::Data { next, .. } = read else { panic!("{read:?}") };
        from = next;
    }
    cursor.release();
    let path = paths::segment(&shard.0.config.data_dir, id, Offset(0));
    let file = shard.reactor().open(&path, Open::ReadWrite).await.expect("it is there");
    // Space is reserved behind it: the last block that holds anything.
    let mut at = file.length().await.expect("a length");
    let (mut block, used) = loop {
        at -= BLOCK;
        let (read, block) = file.read_at(at, shard.reactor().pool().buffer(BLOCK as usize).expect("a buffer")).await;
        read.expect("a block");
        if let Some(used) = block.iter().rposition(|byte| *byte != 0) {
            break (block, used);
        }
    };
    block[used] ^= 1;
    file.write_at(at, block.freeze(), WriteSync::None).await.expect("written");
    append_range(&shard, of, 50..51, 700).await;
    assert_eq!(shard.describe(of).expect("it is there").segments, 1, "it goes on in the same block");
    out.clear();
    let read = shard.read_disk(of, from, 1, &mut cursor, &mut out).await;
    assert!(matches!(read, Err(ReadError::Fenced(_))), "{read:?}");
}

async fn list_offsets(shard: Shard) {
    create(&shard, "t", 1, &[("segment.bytes", "65536")]).await;
    let of = partition(&shard, "t", 0);
    assert_eq!(shard.list_offset(of, OffsetQuery::MaxTimestamp).await, Ok(None));
    append_range(&shard, of, 0..60, 5000).await;
    for _ in 0..2 {
        let at = |time| shard.list_offset(of, OffsetQuery::At(Timestamp(time)));
        assert_eq!(at(0).await, Ok(Some((Offset(0), Timestamp(1000)))));
        assert_eq!(at(1033).await, Ok(Some((Offset(33), Timestamp(1033)))));
        assert_eq!(at(1060).await, Ok(None));
        let newest = shard.list_offset(of, OffsetQuery::MaxTimestamp).await;
        assert_eq!(newest, Ok(Some((Offset(59), Timestamp(1059)))));
        assert_eq!(shard.list_offset(of, OffsetQuery::Latest).await, Ok(Some((Offset(60), Timestamp(-1)))));
        shard.checkpoint().await.expect("a checkpoint");
        shard.release_idle();
    }
    for codec in [Codec::None, Codec::Zstd] {
        find_within_a_batch(&shard, codec).await;
    }
}

/// Records whose times do not rise, in one batch.
async fn find_within_a_batch(shard: &Shard, codec: Codec) {
    let name = codec.name();
    create(shard, name, 1, &[]).await;
    let of = partition(shard, name, 0);
    let mut builder = BatchBuilder::new(1 << 20, codec);
    for time in [50, 20, 80, 80, 60] {
        builder.append(None, Some(&[7; 500]), &[], time).expect("it fits");
    }
    append(shard, of, &builder.build().expect("it is not empty")).await;
    append(shard, of, &batch(&[b"later"], 70)).await;
    let found = async |query| shard.list_offset(of, query).await.map(|found| found.map(|(at, time)| (at.0, time.0)));
    let at = async |time| found(OffsetQuery::At(Timestamp(time))).await;
    assert_eq!(at(0).await, Ok(Some((0, 50))));
    assert_eq!(at(51).await, Ok(Some((2, 80))), "the first in the order of offsets, whatever its time");
    assert_eq!(at(81).await, Ok(None));
    assert_eq!(found(OffsetQuery::MaxTimestamp).await, Ok(Some((2, 80))));
    shard.delete_records(of, Offset(4)).await.expect("they go");
    assert_eq!(at(0).await, Ok(Some((4, 60))));
    assert_eq!(at(61).await, Ok(Some((5, 70))), "what was deleted is not found");
}

async fn refuse(shard: Shard) {
    create(&shard, "t", 1, &[("max.message.bytes", "2000")]).await;
    let (to, session) = (partition(&shard, "t", 0), Session::new(1));
    let good = batch(&[b"x"], 1);
    let mut flipped = good.clone();
    *flipped.last_mut().expect("bytes") ^= 1;
    assert!(matches!(shard.append(to, &flipped, &session, 1), Err(AppendError::Invalid(_))));
    assert!(matches!(shard.append(to, &[], &session, 1), Err(AppendError::Invalid(_))));
    assert!(matches!(shard.append(to, &good[..good.len() - 1], &session, 1), Err(AppendError::Invalid(_))));
    let large = batch(&[&numbered(1, 3000)], 1);
    assert!(matches!(shard.append(to, &large, &session, 1), Err(AppendError::TooLarge { max: 2000, .. })));
    create(&shard, "s", 1, &[("segment.bytes", "65536")]).await;
    let longer_than_a_segment =
        shard.append(partition(&shard, "s", 0), &batch(&[&numbered(1, 70_000)], 1), &session, 1);
    assert!(matches!(longer_than_a_segment, Err(AppendError::TooLarge { max: 65536, .. })));
    let read = shard.read(to, Offset(1), 1, &mut Cursor::default(), &mut Outgoing::new());
    assert_eq!(read, Err(ReadError::OutOfRange { first: Offset(0), next: Offset(0) }));
    assert_eq!(append(&shard, to, &good).await, (Offset(0), Offset(0)), "the partition is unharmed");
}

async fn watch(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    let (of, session) = (partition(&shard, "t", 0), Session::new(1));
    shard.watch(of, Offset(0), &session, 5).expect("it is there");
    shard.watch(of, Offset(0), &session, 6).expect("it is there");
    shard.unwatch(of, &session, 6);
    assert!(session.pop().is_none());
    append(&shard, of, &batch(&[b"x"], 1)).await;
    session.completed().await;
    assert!(matches!(session.pop(), Some(Completed::Readable { ticket: 5 })));
    assert!(session.pop().is_none());
    shard.watch(of, Offset(0), &session, 7).expect("it is there");
    assert!(matches!(session.pop(), Some(Completed::Readable { ticket: 7 })), "at once");
}

/// Entries that are flushed come behind ones that are not: they must not be lost with them.
async fn mix_durability(shard: Shard) {
    create(&shard, "t", 1, &[]).await;
    create(&shard, "w", 1, &[("durability", "write")]).await;
    create(&shard, "m", 1, &[("durability", "memory")]).await;
    let (flushed, written, memory) = (partition(&shard, "t", 0), partition(&shard, "w", 0), partition(&shard, "m", 0));
    for n in 0..20 {
        let bytes = if n % 5 == 0 { 100_000 } else { 500 };
        append_range(&shard, written, n..n + 1, bytes).await;
        append_range(&shard, memory, n..n + 1, bytes).await;
        append_range(&shard, flushed, n..n + 1, 500).await;
    }
    append_range(&shard, written, 20..25, 500).await;
    assert_eq!(read_all(&shard, memory, Offset(0)).await.len(), 20);
}

async fn write_without_flushes(shard: Shard) {
    create(&shard, "w", 1, &[("durability", "write")]).await;
    let (to, entry) = (partition(&shard, "w", 0), shard.0.config.entry_bytes_max as u64);
    append_range(&shard, to, 0..1, 500).await;
    let (mut unflushed, mut longest) = (0, 0);
    for n in 1..60 {
        let before = shard.0.journal.borrow().flushed;
        append_range(&shard, to, n..n + 1, 30_000).await;
        let flushed = shard.0.journal.borrow().flushed != before;
        unflushed = if flushed { 0 } else { unflushed + 30_000 };
        longest = longest.max(unflushed);
    }
    assert!(longest > entry && longest <= 3 * entry, "{longest} bytes without a flush, of entries of {entry}");
}

async fn read_flushed(shard: Shard) {
    expect_range(&shard, partition(&shard, "t", 0), 0..20, 500).await;
    for name in ["t", "w", "m"] {
        let of = partition(&shard, name, 0);
        assert_eq!(shard.describe(of).expect("it is there").fenced, None, "a lost write is no damage");
        // All that was handed over before the last flush is there.
        assert!(read_all(&shard, of, Offset(0)).await.len() >= 19, "{name}");
    }
}

async fn many_topics(shard: Shard) {
    for n in 0..400 {
        create(&shard, &format!("a-topic-with-a-rather-long-name-{n:04}-{}", "x".repeat(180)), 1, &[]).await;
    }
}

async fn read_many_topics(shard: Shard) {
    assert_eq!(shard.catalog().len(), 400);
    let metadata = shard.handle_of(PartitionId::METADATA).expect("it is there");
    assert!(shard.describe(metadata).expect("it is there").first > Offset(0), "a snapshot took the place of changes");
}

mod simulated {
    use super::*;
    use crate::model::ShardId;
    use crate::reactor::sim::{CrashKind, World, WorldOptions};
    use std::cell::Cell;

    fn run(case: &Case, seed: u64, kind: CrashKind) {
        let world = World::new(seed, WorldOptions::default());
        let node = world.add_node("n");
        for phase in case.phases {
            let done = Rc::new(Cell::new(false));
            let (finished, phase) = (done.clone(), *phase);
            world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
                let shard = start(&reactor, config(Path::new("data"))).await;
                phase(shard).await;
                finished.set(true);
                std::future::pending::<()>().await;
            });
            let ended = world.run_until(Duration::from_secs(600), || done.get());
            assert!(ended, "{} ends, seed {seed}", case.name);
            world.crash(node, kind);
        }
    }

    #[test]
    fn every_case_survives_kills() {
        for case in CASES {
            for seed in 0..3 {
                run(case, seed, CrashKind::Kill);
            }
        }
    }

    #[test]
    fn every_case_survives_power_cuts() {
        for case in CASES {
            for seed in 0..5 {
                run(case, seed, CrashKind::PowerCut);
            }
        }
    }
}

/// Entries of the journal that a checkpoint frees are needed until it is durable, and with them what they wrote to segments.
#[test]
fn a_segment_is_not_dropped_before_the_checkpoint_that_covers_it_is_durable() {
    use crate::model::ShardId;
    use crate::reactor::sim::{DiskOp, Fault, World, WorldOptions};
    use std::cell::Cell;
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("n");
    let step = Rc::new(Cell::new(0));
    let steps = step.clone();
    world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
        let shard = start(&reactor, config(Path::new("data"))).await;
        create(&shard, "t", 1, &[("segment.bytes", "131072")]).await;
        let of = partition(&shard, "t", 0);
        append_young(&shard, of, 0..8, 100_000).await;
        let path = paths::segment(&shard.0.config.data_dir, shard.id_of(of).expect("it is there"), Offset(0));
        let is_there = async || reactor.open(&path, Open::Read).await.is_ok();
        steps.set(1);
        while steps.get() == 1 {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        let checkpoint = reactor.spawn({
            let shard = shard.clone();
            async move { shard.checkpoint().await }
        });
        reactor.sleep(Duration::from_millis(50)).await;
        assert_eq!(shard.delete_records(of, Offset(5)).await, Ok(Offset(5)));
        reactor.sleep(Duration::from_millis(50)).await;
        assert_eq!(shard.counters().checkpoints.get(), 0, "the checkpoint waits for its flush");
        assert!(is_there().await);
        checkpoint.await.expect("it is done");
        shard.0.retention.dropped(of);
        reactor.sleep(Duration::from_millis(50)).await;
        assert!(!is_there().await);
        steps.set(3);
        std::future::pending::<()>().await;
    });
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 1));
    world.faults_mut(node).script(DiskOp::Flush, 0, Fault::Slow(1_000_000_000));
    step.set(2);
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 3));
}

/// A disk that takes a second for a flush, or a core that others use, must not leave readers a piece a second.
/// Retention may be at work when the shard is told to stop, and find something to delete when no lane is left to write it.
#[test]
fn a_stop_ends_whatever_comes_behind_the_last_lane() {
    use crate::model::ShardId;
    use crate::reactor::sim::{DiskOp, Fault, World, WorldOptions};
    use std::cell::Cell;
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("n");
    let step = Rc::new(Cell::new(0));
    let steps = step.clone();
    world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
        let shard = start(&reactor, config(Path::new("data"))).await;
        append_some(shard.clone()).await;
        steps.set(1);
        while steps.get() == 1 {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        shard.0.checkpoints.request();
        reactor.sleep(Duration::from_millis(50)).await;
        let stop = reactor.spawn({
            let shard = shard.clone();
            async move { shard.stop().await }
        });
        reactor.sleep(Duration::from_millis(50)).await;
        assert_eq!(shard.counters().checkpoints.get(), 0, "the checkpoint waits for its flush");
        {
            let (of, mut partitions) = (partition(&shard, "t", 0), shard.0.partitions.borrow_mut());
            shard.advance_first(of, partitions.get_mut(of).expect("it is there"), Offset(10));
        }
        stop.await;
        steps.set(3);
        std::future::pending::<()>().await;
    });
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 1));
    world.faults_mut(node).script(DiskOp::Flush, 0, Fault::Slow(1_000_000_000));
    step.set(2);
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 3), "it ends");
}

/// In simulated time: so many producers as are remembered, one more, and a day without any.
#[test]
fn producers_that_are_silent_make_room_and_are_forgotten() {
    use crate::model::ShardId;
    use crate::reactor::sim::{World, WorldOptions};
    use std::cell::Cell;
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("n");
    let done = Rc::new(Cell::new(false));
    let told = done.clone();
    world.start_shard(node, ShardId(0), 1, 64 << 20, move |reactor| async move {
        let shard = start(&reactor, config(Path::new("data"))).await;
        create(&shard, "t", 1, &[KEPT]).await;
        let (to, session) = (partition(&shard, "t", 0), Session::new(1));
        let known =
            || shard.producers(to).expect("it is there").iter().map(|newest| newest.producer.0).collect::<Vec<_>>();
        for producer in 0..16 {
            append(&shard, to, &numbered_by(producer, 0, 100)).await;
        }
        reactor.sleep(Duration::from_secs(30)).await;
        append(&shard, to, &numbered_by(3, 1, 100)).await;
        let full = shard.append(to, &numbered_by(16, 0, 100), &session, 1);
        assert!(matches!(full, Err(AppendError::Producers)), "{full:?}");
        append(&shard, to, &batch(&[b"not numbered"], 1)).await;
        reactor.sleep(Duration::from_secs(40)).await;
        append(&shard, to, &numbered_by(16, 0, 100)).await;
        assert_eq!(known(), [3, 16], "who was heard of lately");
        append(&shard, to, &numbered_by(3, 2, 100)).await;
        reactor.sleep(Duration::from_secs(3600 - 2)).await;
        assert_eq!(known(), [3, 16]);
        reactor.sleep(Duration::from_secs(10)).await;
        assert_eq!(known(), [0; 0], "their time is over");
        append(&shard, to, &numbered_by(3, 9, 100)).await;
        shard.stop().await;
        told.set(true);
    });
    assert!(world.run_until(Duration::from_secs(8000), || done.get()), "it ends");
}

/// A group's name that begins so and is written where the group `a` is.
fn of_one_partition(begins: &str) -> String {
    let wanted = partition_of("a", PARTITIONS);
    let names = (0..).map(|number| format!("{begins}{number}"));
    names.into_iter().find(|name| partition_of(name, PARTITIONS) == wanted).expect("there is one")
}

/// What was committed long ago, and again lately: while the log of groups is read, only the first is known for a while.
#[test]
fn nothing_is_over_before_all_of_it_is_read() {
    use crate::model::ShardId;
    use crate::reactor::sim::{CrashKind, World, WorldOptions};
    use std::cell::Cell;
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("n");
    for phase in 0..3 {
        let done = Rc::new(Cell::new(0));
        let told = done.clone();
        world.start_shard(node, ShardId(0), 1, 64 << 20, move |reactor| async move {
            let shard = start(&reactor, config(Path::new("data"))).await;
            let alone = member("", -1);
            if phase == 0 {
                create(&shard, "t", 20, &[]).await;
                shard.make_groups().await.expect("there is room for them");
                let week = GroupSettings::default().offsets_retention.as_millis() as i64;
                let nearly_over = Timestamp(reactor.wall_clock().0 - week + 3000);
                let old = committed(1).into_iter().map(|(place, old)| (place, Committed { at: nearly_over, ..old }));
                shard.commit_offsets("a", &alone, old.collect()).await.expect("it is taken");
                // More than is read at once, behind it in the log whenever that is written anew.
                let long = Committed { metadata: "x".repeat(METADATA_BYTES_MAX), ..committed(1).remove(0).1 };
                let place = |partition| Place { topic: "t".to_owned(), partition };
                for group in ["b", "c", "d", "e", "f", "g", "h", "i", "j"] {
                    let all = (0..20).map(|partition| (place(partition), long.clone())).collect();
                    shard.commit_offsets(&of_one_partition(group), &alone, all).await.expect("it is taken");
                }
                shard.commit_offsets("a", &alone, committed(99)).await.expect("it is taken");
                assert!(reactor.wall_clock() < Timestamp(nearly_over.0 + week), "nothing is over yet");
                reactor.sleep(Duration::from_secs(5)).await;
            }
            told.set(1);
            while told.get() == 1 {
                reactor.sleep(Duration::from_millis(1)).await;
            }
            let known = shard.committed_offsets("a", None).await.expect("it is read");
            assert_eq!(known, committed(99).into_iter().collect());
            reactor.sleep(Duration::from_secs(1)).await;
            told.set(3);
            std::future::pending::<()>().await;
        });
        assert!(world.run_until(Duration::from_secs(600), || done.get() == 1), "it starts");
        (world.faults_mut(node).slow, world.faults_mut(node).slow_ns_max) = (1_000_000, 1_000_000_000_000);
        done.set(2);
        assert!(world.run_until(Duration::from_secs(60_000), || done.get() == 3), "it ends");
        world.faults_mut(node).slow = 0;
        world.crash(node, CrashKind::Kill);
    }
}

#[test]
fn readers_do_not_wait_for_a_commit_that_takes_long() {
    use crate::model::ShardId;
    use crate::reactor::sim::{DiskOp, Fault, World, WorldOptions};
    use std::cell::Cell;
    let world = World::new(1, WorldOptions::default());
    let node = world.add_node("n");
    let step = Rc::new(Cell::new(0));
    let steps = step.clone();
    world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
        let shard = start(&reactor, config(Path::new("data"))).await;
        append_some(shard.clone()).await;
        steps.set(1);
        while steps.get() == 1 {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        let (session, to) = (Session::new(1), partition(&shard, "t", 0));
        shard.append(to, &batch(&[&numbered(50, 700)], 1050), &session, 1).expect("it is taken");
        while shard.0.commits.under_way.get() == 0 {
            reactor.yield_now().await;
        }
        let began = reactor.now();
        for _ in 0..10 {
            drop(shard.leave(Rank::Reader, 64 << 10).await);
        }
        assert!(reactor.now().since(began) < Duration::from_millis(100), "{:?}", reactor.now().since(began));
        assert!(session.pop().is_none(), "the commit is still under way");
        steps.set(3);
        std::future::pending::<()>().await;
    });
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 1));
    for kind in [DiskOp::Flush, DiskOp::Write] {
        world.faults_mut(node).script(kind, 0, Fault::Slow(1_000_000_000));
    }
    step.set(2);
    assert!(world.run_until(Duration::from_secs(60), || step.get() == 3));
}

/// What recovery needs is its own, so that clients cannot keep a shard from serving again.
#[test]
fn a_log_is_opened_again_while_clients_hold_all_memory() {
    use crate::model::ShardId;
    use crate::reactor::sim::{DiskOp, Fault, World, WorldOptions};
    use std::cell::Cell;
    for seed in 0..10 {
        let world = World::new(seed, WorldOptions::default());
        let node = world.add_node("n");
        let (hoarded, done) = (Rc::new(Cell::new(false)), Rc::new(Cell::new(false)));
        let (tell, finished) = (hoarded.clone(), done.clone());
        world.start_shard(node, ShardId(0), 1, 64 << 20, |reactor| async move {
            let shard = start(&reactor, config(Path::new("data"))).await;
            create(&shard, "t", 1, &[]).await;
            append_young(&shard, partition(&shard, "t", 0), 0..50, 700).await;
            let hoard = hoard(&shard);
            tell.set(true);
            while shard.counters().reopenings.get() == 0 {
                shard.0.checkpoints.request();
                reactor.sleep(Duration::from_millis(1)).await;
            }
            let of = partition(&shard, "t", 0);
            let read = shard.read_disk(of, Offset(0), 1, &mut Cursor::default(), &mut Outgoing::new()).await;
            assert_eq!(read, Err(ReadError::Busy), "there is no memory for a reader, and the shard is not to blame");
            drop(hoard);
            expect_range(&shard, of, 0..50, 700).await;
            finished.set(true);
            std::future::pending::<()>().await;
        });
        assert!(world.run_until(Duration::from_secs(60), || hoarded.get()));
        world.faults_mut(node).script(DiskOp::Flush, seed % 2, Fault::Error(5));
        assert!(world.run_until(Duration::from_secs(60), || done.get()), "seed {seed}");
    }
}

/// A change whose journal entry fails is in the log or not; the topics are what the log says, then and after a restart.
#[test]
fn the_topics_are_what_the_log_says_after_a_failure() {
    use crate::model::ShardId;
    use crate::reactor::sim::{CrashKind, DiskOp, Fault, World, WorldOptions};
    use std::cell::RefCell;
    let (mut made, mut not_made) = (0, 0);
    for seed in 0..60 {
        let world = World::new(seed, WorldOptions::default());
        let node = world.add_node("n");
        let seen = Rc::new(RefCell::new(Vec::new()));
        for run in 0..2 {
            let told = seen.clone();
            world.start_shard(node, ShardId(0), 1, 64 << 20, move |reactor| async move {
                let shard = start(&reactor, config(Path::new("data"))).await;
                let names = |shard: &Shard| -> Vec<_> {
                    shard.catalog().topics().map(|topic| topic.name.as_str().to_owned()).collect()
                };
                told.borrow_mut().push((names(&shard), None));
                if run == 1 {
                    return;
                }
                reactor.sleep(Duration::from_millis(50)).await;
                for n in 0..6 {
                    let create = Command::CreateTopic { name: "t".into(), partitions: 1, settings: Vec::new() };
                    let command = if n % 2 == 0 { create } else { Command::DeleteTopic { name: "t".into() } };
                    let outcome = shard.command(command).await;
                    told.borrow_mut().push((names(&shard), Some(outcome.is_ok())));
                    while shard.check_running().is_err() {
                        reactor.sleep(Duration::from_millis(1)).await;
                    }
                }
                std::future::pending::<()>().await;
            });
            world.run_for(Duration::from_millis(40));
            world.faults_mut(node).script(DiskOp::Write, seed % 6, Fault::Error(5));
            world.run_for(Duration::from_secs(5));
            world.crash(node, CrashKind::Kill);
            *world.faults_mut(node) = Default::default();
        }
        let seen = seen.take();
        assert_eq!(seen.len(), 8, "seed {seed}: all commands came to an end, and the node started again: {seen:?}");
        assert_eq!(seen[6].0, seen[7].0, "seed {seed}");
        made += seen.iter().filter(|(_, outcome)| *outcome == Some(true)).count();
        not_made += seen.iter().filter(|(_, outcome)| *outcome == Some(false)).count();
    }
    assert!(made > 0 && not_made > 0, "{made} made, {not_made} not");
}

mod on_the_ring {
    use super::*;
    use crate::reactor::ring::Options;
    use crate::reactor::run_ring;

    fn run(case: &Case) {
        // In the source tree and not in the system's one for temporary files: that is often without direct I/O.
        let scratch = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).expect("a directory");
        for phase in case.phases {
            let data = scratch.path().join("data");
            let options = Options { pool_bytes: 64 << 20, log: |_| (), ..Options::default() };
            let ran = run_ring(options, |reactor| async move {
                let shard = start(&reactor, config(&data)).await;
                phase(shard).await;
            });
            ran.unwrap_or_else(|error| panic!("{}: {error}", case.name));
        }
    }

    #[test]
    fn every_case_survives_the_end_of_its_process() {
        CASES.iter().for_each(run);
    }
}

/// The first offset advances whenever it likes, also while a checkpoint says that segments were written anew.
#[test]
fn records_are_deleted_while_a_slow_disk_takes_what_was_written_anew() {
    use crate::model::ShardId;
    use crate::reactor::sim::{World, WorldOptions};
    use std::cell::Cell;
    for seed in 0..6 {
        let world = World::new(seed, WorldOptions::default());
        let node = world.add_node("n");
        let done = Rc::new(Cell::new(false));
        let told = done.clone();
        (world.faults_mut(node).slow, world.faults_mut(node).slow_ns_max) = (1_000_000, 20_000_000);
        world.start_shard(node, ShardId(0), 1, 64 << 20, move |reactor| async move {
            let shard = start(&reactor, config(Path::new("data"))).await;
            delete_what_is_swapped(shard).await;
            told.set(true);
        });
        assert!(world.run_until(Duration::from_secs(600), || done.get()), "it ends, seed {seed}");
    }
}
