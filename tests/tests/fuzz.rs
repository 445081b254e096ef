//! The fuzz targets with stable Rust: over their corpora, and over random changes of them.
//!
//! ```text
//! CORELOG_FUZZ_ROUNDS=1000000 cargo test --profile proof -p corelog-tests --test fuzz   # longer
//! CORELOG_WRITE_CORPUS=1 cargo test -p corelog-tests --test fuzz                        # the corpora, anew
//! ```
//! A change that finds something is written to `tests/fuzz/found/<target>`, and then belongs in the corpus.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "all of this is a test: what is broken is to stop it"
)]

#[path = "fuzz/kafka_requests.rs"]
mod kafka_requests;

use corelog_tests::fuzz::{TARGETS, Target};
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// Changed inputs per target that the integration server tries.
const ROUNDS_DEFAULT: u64 = 20_000;
/// No input grows beyond this.
const INPUT_BYTES_MAX: usize = 64 << 10;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let directory = here("fuzz/corpus").join(name);
    let mut paths: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).unwrap()).collect()
}

#[test]
fn corpora_and_changes_of_them_are_told_for_what_they_are() {
    write_corpora();
    let rounds = std::env::var("CORELOG_FUZZ_ROUNDS").map_or(ROUNDS_DEFAULT, |rounds| rounds.parse().unwrap());
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has a corpus");
        corpus.iter().for_each(|input| try_one(name, target, input));
        let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
        for _ in 0..rounds {
            let mut input = chance.pick(&corpus).clone();
            for _ in 0..=chance.below(4) {
                change(&mut chance, &mut input, &corpus);
            }
            try_one(name, target, &input);
        }
    }
}

fn try_one(name: &str, target: Target, input: &[u8]) {
    if catch_unwind(|| target(input)).is_err() {
        let directory = here("fuzz/found").join(name);
        fs::create_dir_all(&directory).unwrap();
        let path = directory.join(format!("{:08x}", corelog_batch::crc32c(input)));
        fs::write(&path, input).unwrap();
        panic!("{name} fails with {}", path.display());
    }
}

/// xorshift64*: the same changes on every machine.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Numbers at which parsers trip.
const EDGES: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, i64::MAX as u64, u64::MAX];

fn change(chance: &mut Chance, input: &mut Vec<u8>, corpus: &[Vec<u8>]) {
    // As a rule where the structure is: near the beginning, or near a block's.
    let near = [input.len(), input.len().min(300), 4096 + 300][chance.below(3)];
    let at = chance.below(near.min(input.len()));
    match chance.below(7) {
        0 if !input.is_empty() => input[at] ^= 1 << chance.below(8),
        1 if !input.is_empty() => input[at] = chance.next() as u8,
        2 => input.truncate(at),
        3 => put(input, at, &edge(chance)),
        4 => {
            let other = chance.pick(corpus);
            let from = chance.below(other.len());
            let until = from + chance.below(other.len() - from).min(512);
            put(input, at, &other[from..until]);
        }
        5 => {
            let piece = input[at..(at + chance.below(64)).min(input.len())].to_vec();
            input.splice(at..at, piece);
        }
        _ => {
            let until = (at + chance.below(16)).min(input.len());
            input.drain(at..until);
        }
    }
    input.truncate(INPUT_BYTES_MAX);
}

fn edge(chance: &mut Chance) -> Vec<u8> {
    let value = *chance.pick(&EDGES);
    let width = *chance.pick(&[1, 2, 4, 8]);
    match chance.below(2) {
        0 => value.to_le_bytes()[..width].to_vec(),
        _ => value.to_be_bytes()[8 - width..].to_vec(),
    }
}

fn put(input: &mut [u8], at: usize, bytes: &[u8]) {
    let length = bytes.len().min(input.len() - at);
    input[at..at + length].copy_from_slice(&bytes[..length]);
}

/// From the golden files and the documented examples, when they have changed.
fn write_corpora() {
    if std::env::var_os("CORELOG_WRITE_CORPUS").is_none() {
        return;
    }
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let directory = here("fuzz/corpus").join(target);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(name), bytes).unwrap();
    };
    let golden = |name: &str| fs::read(here("../engine/golden").join(name)).unwrap();
    let journal = golden("journal-v1.bin");
    write("journal", "sections", &journal[..4096]);
    write("journal", "empty", &journal[4096..]);
    write("checkpoint", "golden", &golden("checkpoint-v1.bin"));
    write("index", "golden", &golden("index-v1.bin"));
    let segment = golden("segment-v1.bin");
    write("segment", "golden", &segment);
    for (at, batch) in corelog_batch::batches(&segment).map_while(Result::ok).enumerate() {
        write("batch", &format!("golden-{at}"), batch.bytes());
    }
    for codec in corelog_batch::Codec::ALL {
        let mut builder = corelog_batch::BatchBuilder::new(4096, codec);
        let header = corelog_batch::Header { key: b"h", value: None };
        builder.append(Some(b"key"), Some(&[b'v'; 100]), &[header], 1_700_000_000_000).unwrap();
        builder.append(None, None, &[], 1_700_000_000_001).unwrap();
        write("batch", codec.name(), &builder.build().unwrap());
    }
    let protocol = fs::read_to_string(here("../docs/protocol.md")).unwrap();
    for block in protocol.split("```hex ").skip(1) {
        let (name, rest) = block.split_once('\n').unwrap();
        let lines = rest.split("```").next().unwrap().lines();
        let digits = lines.flat_map(|line| line.split('#').next().unwrap_or("").split_whitespace());
        let bytes: Vec<u8> = digits.map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
        write("frame", name, &bytes);
    }
    for (at, record) in metadata_records().into_iter().enumerate() {
        write("metadata", &format!("{at}"), &record);
    }
    for (name, request) in kafka_requests::all() {
        write("kafka", &name, &request);
    }
}

fn metadata_records() -> Vec<Vec<u8>> {
    use corelog_engine::metadata::{MetadataRecord, TopicInfo, TopicName, TopicSettings};
    use corelog_engine::model::TopicId;
    let id = TopicId(uuid::Uuid::from_u128(7));
    let settings = TopicSettings::parse(&[("durability", "write")]).unwrap();
    let name = TopicName::parse("clicks").unwrap();
    let topic = TopicInfo { id, name, partitions: 8, placement: 3, settings };
    let records = [
        MetadataRecord::TopicCreated(topic.clone()),
        MetadataRecord::TopicDeleted { id },
        MetadataRecord::SettingsChanged { id, settings },
        MetadataRecord::PartitionsAdded { id, partitions: 9 },
        MetadataRecord::SnapshotBegin { topics: 1, next_placement: 4 },
        MetadataRecord::SnapshotTopic(topic),
        MetadataRecord::SnapshotEnd,
    ];
    let encoded = |record: MetadataRecord| {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        bytes
    };
    records.into_iter().map(encoded).collect()
}
