//! What a fuzzer runs: one function per parser of bytes that we do not trust. Each asks for more than that nothing
//! panics: what is accepted must be what would be written.
//!
//! Checksums keep random bytes away from what lies behind them, so that each input is also tried with its checksums made
//! to fit. `tests/fuzz` has the targets for cargo-fuzz, and `tests/tests/fuzz.rs` runs them with stable Rust.

use corelog_batch::{BatchView, Codec, Limits, Repack, Unpacker, batches, validate};
use corelog_engine::log::BLOCK;
use corelog_engine::log::checkpoint::{self, FILE_HEADER_BYTES, replay, snapshot};
use corelog_engine::log::frame::{Checksum, HEADER_BYTES};
use corelog_engine::log::index;
use corelog_engine::log::journal::{self, EntryWriter, Expected, Section};
use corelog_engine::log::segment::{ANY_EPOCH, scan};
use corelog_engine::metadata::MetadataRecord;
use corelog_engine::model::{Offset, Position};
use corelog_kafka::api::Api;
use corelog_kafka::fetch::Fetch;
use corelog_kafka::header::{FIXED_BYTES, Head, Request, frame_bytes};
use corelog_kafka::messages;
use corelog_kafka::produce::Produce;
use corelog_wire::decode_any;
use std::future::ready;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// A parser and what must hold of it.
pub type Target = fn(&[u8]);

/// All of them, with the names of their corpora.
pub const TARGETS: [(&str, Target); 8] = [
    ("frame", frame),
    ("kafka", kafka),
    ("batch", batch),
    ("journal", journal),
    ("checkpoint", checkpoint),
    ("index", index),
    ("segment", segment),
    ("metadata", metadata),
];

/// Frames of the native protocol, one after another.
pub fn frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some((header, message))) = decode_any(rest) {
        // Walks every list to its end.
        assert!(!format!("{message:?}").is_empty());
        let length = usize::try_from(header.length).expect("it was found in memory");
        rest = rest.get(16 + length..).expect("a frame that was decoded is all there");
    }
}

/// Requests of Kafka's protocol, one after another, in all versions that are served.
pub fn kafka(bytes: &[u8]) {
    let mut rest = bytes;
    while rest.len() >= FIXED_BYTES {
        let Some(frame) = frame_bytes(rest).and_then(|size| rest.get(..size)) else { return };
        let api = Api::of_key(Head::of(frame).key);
        if let Some(request) = api.and_then(|api| Request::parse(api, frame).ok()) {
            check_request(&request);
        }
        rest = &rest[frame.len()..];
    }
}

fn check_request(request: &Request<'_>) {
    match request.api {
        Api::Produce => {
            if let Ok(produce) = Produce::parse(request) {
                assert_eq!(produce.sections().count(), produce.partitions(), "what was counted is there");
            }
        }
        Api::Fetch => {
            if let Ok(fetch) = Fetch::parse(request) {
                assert_eq!(fetch.parts().count(), fetch.partitions(), "what was counted is there");
            }
        }
        // Its body is not looked at.
        Api::ApiVersions => {}
        Api::ListOffsets => check_message::<messages::ListOffsetsRequest>(request),
        Api::Metadata => check_message::<messages::MetadataRequest>(request),
        Api::CreateTopics => check_message::<messages::CreateTopicsRequest>(request),
        Api::DeleteTopics => check_message::<messages::DeleteTopicsRequest>(request),
        Api::DeleteRecords => check_message::<messages::DeleteRecordsRequest>(request),
        Api::OffsetCommit => check_message::<messages::OffsetCommitRequest>(request),
        Api::OffsetFetch => check_message::<messages::OffsetFetchRequest>(request),
        Api::FindCoordinator => check_message::<messages::FindCoordinatorRequest>(request),
        Api::JoinGroup => check_message::<messages::JoinGroupRequest>(request),
        Api::Heartbeat => check_message::<messages::HeartbeatRequest>(request),
        Api::LeaveGroup => check_message::<messages::LeaveGroupRequest>(request),
        Api::SyncGroup => check_message::<messages::SyncGroupRequest>(request),
        Api::DescribeGroups => check_message::<messages::DescribeGroupsRequest>(request),
        Api::ListGroups => check_message::<messages::ListGroupsRequest>(request),
        Api::DeleteGroups => check_message::<messages::DeleteGroupsRequest>(request),
        Api::OffsetDelete => check_message::<messages::OffsetDeleteRequest>(request),
        Api::InitProducerId => check_message::<messages::InitProducerIdRequest>(request),
        Api::ConsumerGroupHeartbeat => check_message::<messages::ConsumerGroupHeartbeatRequest>(request),
        Api::ConsumerGroupDescribe => check_message::<messages::ConsumerGroupDescribeRequest>(request),
        Api::DescribeProducers => check_message::<messages::DescribeProducersRequest>(request),
        Api::OffsetForLeaderEpoch => check_message::<messages::OffsetForLeaderEpochRequest>(request),
        Api::DescribeConfigs => check_message::<messages::DescribeConfigsRequest>(request),
        Api::AlterConfigs => check_message::<messages::AlterConfigsRequest>(request),
        Api::DescribeLogDirs => check_message::<messages::DescribeLogDirsRequest>(request),
        Api::CreatePartitions => check_message::<messages::CreatePartitionsRequest>(request),
        Api::IncrementalAlterConfigs => check_message::<messages::IncrementalAlterConfigsRequest>(request),
        Api::DescribeCluster => check_message::<messages::DescribeClusterRequest>(request),
    }
}

/// Neither the gate nor the message types behind it panic, whatever is declared.
fn check_message<M: messages::Message>(request: &Request<'_>) {
    let _ = messages::parse::<M>(request);
}

/// Record batches as a producer sends them.
pub fn batch(bytes: &[u8]) {
    check_batches(bytes);
    let mut fitting = bytes.to_vec();
    if fitting.len() > 21 {
        let sum = corelog_batch::crc32c(&fitting[21..]);
        fitting[17..21].copy_from_slice(&sum.to_be_bytes());
        check_batches(&fitting);
    }
}

fn check_batches(bytes: &[u8]) {
    const RECORDS_BYTES_MAX: usize = 1 << 20;
    let mut scratch = Vec::new();
    for batch in batches(bytes).map_while(Result::ok) {
        let valid = validate(batch.bytes(), Limits { batch_bytes_max: 1 << 20 });
        let is_open = batch.codec() == Ok(corelog_batch::Codec::None);
        let Ok(mut records) = batch.records(&mut scratch, RECORDS_BYTES_MAX) else {
            assert!(valid.is_err() || !is_open, "a valid batch can be read");
            continue;
        };
        let count = records.try_fold(0, |count, record| record.map(|_| count + 1));
        assert!(scratch.len() <= RECORDS_BYTES_MAX);
        let Ok(summary) = valid else { continue };
        assert_eq!(summary.length, batch.bytes().len());
        if is_open || unpacks(&batch, RECORDS_BYTES_MAX) {
            assert_eq!(count, Ok(summary.record_count), "what a server takes a client can read");
            check_repacked(&batch, RECORDS_BYTES_MAX);
        }
    }
}

/// Whether a server would take the compressed batch.
fn unpacks(batch: &BatchView<'_>, max: usize) -> bool {
    let mut unpacker = Unpacker::default();
    let checked = pin!(unpacker.check(batch, max, || ready(())));
    matches!(checked.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
}

/// Compressed anew it must be one that would be taken, with as many records.
fn check_repacked(batch: &BatchView<'_>, unpacked_max: usize) {
    let (mut unpacker, mut out) = (Unpacker::default(), Vec::new());
    let how = Repack { codec: Codec::Lz4, bytes_max: 1 << 20, unpacked_max };
    let is_repacked = {
        let repacked = pin!(unpacker.repack(batch, &how, &mut out, || ready(())));
        matches!(repacked.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(Ok(_)))
    };
    if is_repacked {
        let again = validate(&out, Limits { batch_bytes_max: 1 << 20 }).map(|summary| summary.record_count);
        assert_eq!(again.map(|count| i64::from(count) - 1), Ok(i64::from(batch.last_offset_delta())));
        assert!(BatchView::first(&out).is_ok_and(|again| unpacks(&again, unpacked_max)));
    }
}

/// Journal entries.
pub fn journal(bytes: &[u8]) {
    check_entry(bytes);
    let mut fitting = bytes.to_vec();
    reseal_frame(&mut fitting);
    check_entry(&fitting);
}

fn check_entry(bytes: &[u8]) {
    let Ok(head) = journal::inspect(bytes) else { return };
    let journal::EntryHeader { nonce, sequence, position, previous, .. } = head.header;
    let Ok(entry) = journal::parse(bytes, &Expected { nonce, sequence, position, previous }) else { return };
    let mut again = vec![0xee; head.length];
    let mut writer = EntryWriter::new(&mut again, head.header);
    for section in entry.sections() {
        let written = match &section {
            Section::Append { append, inline } => writer.append(append).map(|area| area.copy_from_slice(inline)),
            Section::Truncate(cut) => writer.truncate(cut),
            Section::Start(start) => writer.start(start),
            Section::Epoch(epoch) => writer.epoch(epoch),
            Section::HighWatermark(mark) => writer.high_watermark(mark),
            Section::Produced(section) => {
                writer.produced(section.partition, section.batches().collect::<Vec<_>>().into_iter())
            }
        };
        written.expect("what fitted once fits again");
    }
    let finished = writer.finish();
    assert_eq!((finished.length, finished.checksum), (head.length, head.checksum));
    assert_eq!(again, bytes[..head.length], "an entry has one form");
}

/// Makes the checksums of a frame fit; its length and its checksum if it has one that can be.
fn reseal_frame(bytes: &mut [u8]) -> Option<(usize, u32)> {
    let length = u32::from_le_bytes(*bytes.get(40..)?.first_chunk()?) as usize;
    let frame = bytes.get_mut(..length).filter(|frame| frame.len() >= HEADER_BYTES)?;
    let body = Checksum::of(&frame[HEADER_BYTES..]).0;
    frame[56..60].copy_from_slice(&body.to_le_bytes());
    let header = Checksum::of(&frame[..60]).0;
    frame[60..64].copy_from_slice(&header.to_le_bytes());
    Some((length, header))
}

/// Checkpoint files.
pub fn checkpoint(bytes: &[u8]) {
    check_checkpoint(bytes);
    let mut fitting = bytes.to_vec();
    reseal_checkpoint(&mut fitting);
    check_checkpoint(&fitting);
}

fn check_checkpoint(bytes: &[u8]) {
    let Ok(replayed) = replay(bytes) else { return };
    let (file, _) = snapshot(&replayed.state, &replayed.header, 2 * BLOCK);
    assert_eq!(replay(&file).expect("a snapshot is whole").state, replayed.state);
}

/// Makes a file's checksums fit, and chains as many groups as there are.
fn reseal_checkpoint(bytes: &mut [u8]) {
    let Some(header) = bytes.first_chunk_mut::<FILE_HEADER_BYTES>() else { return };
    let sum = Checksum::of(&header[..FILE_HEADER_BYTES - 4]).0;
    header[FILE_HEADER_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
    let Ok(file) = checkpoint::read_file_header(bytes) else { return };
    let (mut at, mut sequence, mut previous) = (FILE_HEADER_BYTES, 1u64, 0u32);
    while let Some(group) = bytes.get_mut(at..).filter(|group| group.len() >= BLOCK) {
        group[8..16].copy_from_slice(&file.nonce.0.to_le_bytes());
        group[16..24].copy_from_slice(&sequence.to_le_bytes());
        group[24..32].copy_from_slice(&(at as u64).to_le_bytes());
        group[52..56].copy_from_slice(&previous.to_le_bytes());
        let Some((length, sum)) = reseal_frame(group) else { return };
        (at, sequence, previous) = (at + length.max(BLOCK), sequence + 1, sum);
    }
}

/// Index files.
pub fn index(bytes: &[u8]) {
    check_index(bytes);
    let mut fitting = bytes.to_vec();
    if let Some((covered, sum)) = fitting.split_last_chunk_mut::<4>() {
        *sum = Checksum::of(covered).0.to_le_bytes();
        check_index(&fitting);
    }
}

fn check_index(bytes: &[u8]) {
    let Ok((identity, index)) = index::decode(bytes) else { return };
    let mut again = vec![0xee; index::FILE_BYTES_MAX];
    let length = index.encode(&identity, &mut again);
    assert_eq!(&again[..length], bytes, "an index has one form");
    for entry in index.entries() {
        assert_eq!(index.lookup(entry.offset), (entry.offset, entry.position));
    }
}

/// Segments.
pub fn segment(bytes: &[u8]) {
    let next = bytes.first_chunk().map_or(0, |base| i64::from_be_bytes(*base));
    let mut batches = scan(bytes, Position(0), Offset(next), ANY_EPOCH);
    let (mut position, mut next) = (Position(0), Offset(next));
    for batch in batches.by_ref() {
        assert_eq!((batch.position, batch.base), (position, next));
        assert!(batch.last >= batch.base);
        let whole = &bytes[position.0 as usize..][..batch.length];
        assert!(BatchView::first(whole).is_ok_and(|view| view.crc() == view.computed_crc()));
        (position, next) = (batch.end(), batch.next());
    }
    assert!(position.0 as usize <= bytes.len() && batches.stop().is_some());
}

/// Records of the metadata log.
pub fn metadata(bytes: &[u8]) {
    let Ok(record) = MetadataRecord::decode(bytes) else { return };
    let mut again = Vec::new();
    record.encode(&mut again);
    assert_eq!(MetadataRecord::decode(&again), Ok(record), "what is written is read again");
}
