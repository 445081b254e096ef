//! What holds for every batch and for any bytes.
#![cfg(feature = "codecs")]
#![allow(clippy::unwrap_used, reason = "a test that meets what it did not expect should end there and then")]

use corelog_batch::{
    AppendRefused, BatchBuilder, BatchError, BatchView, Codec, Header, Limits, Repack, Unpacker, batches, frame_length,
    number, validate,
};
use proptest::prelude::*;
use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

const LIMITS: Limits = Limits { batch_bytes_max: 1 << 22 };
const DECOMPRESSED_MAX: usize = 1 << 22;

type OwnedRecord = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>);

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    // Runs as well as noise, so that codecs meet both.
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..40),
        (any::<u8>(), 0..3000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ]
}

fn record() -> impl Strategy<Value = OwnedRecord> {
    let header = (bytes(), proptest::option::of(bytes()));
    let headers = proptest::collection::vec(header, 0..3);
    (-1..5_000_000_000_000_i64, proptest::option::of(bytes()), proptest::option::of(bytes()), headers)
}

fn codec() -> impl Strategy<Value = Codec> {
    proptest::sample::select(Codec::ALL.to_vec())
}

fn build(codec: Codec, records: &[OwnedRecord]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(DECOMPRESSED_MAX, codec);
    for (timestamp, key, value, headers) in records {
        let headers = headers.iter().map(|(key, value)| Header { key, value: value.as_deref() }).collect::<Vec<_>>();
        builder.append(key.as_deref(), value.as_deref(), &headers, *timestamp).unwrap();
    }
    builder.build().unwrap()
}

fn read(batch: &BatchView<'_>, max: usize) -> Result<Vec<OwnedRecord>, BatchError> {
    let mut scratch = Vec::new();
    let mut all = Vec::new();
    for (index, record) in batch.records(&mut scratch, max)?.enumerate() {
        let record = record?;
        assert_eq!(record.offset, batch.base_offset() + index as i64);
        let headers = record.headers.map(|header| (header.key.to_vec(), header.value.map(<[u8]>::to_vec)));
        let (key, value) = (record.key.map(<[u8]>::to_vec), record.value.map(<[u8]>::to_vec));
        all.push((record.timestamp, key, value, headers.collect()));
    }
    Ok(all)
}

/// What the check of a compressed batch says, and how often it paused.
fn check(unpacker: &mut Unpacker, batch: &[u8], max: usize) -> (Result<(), BatchError>, usize) {
    let view = BatchView::first(batch).unwrap();
    let pauses = Cell::new(0);
    let found = run(unpacker.check(&view, max, || paused(&pauses)));
    (found.map(drop), pauses.get())
}

/// The batch compressed anew, and how often that paused.
fn repack(unpacker: &mut Unpacker, batch: &[u8], how: &Repack) -> (Result<Vec<u8>, BatchError>, usize) {
    let view = BatchView::first(batch).unwrap();
    let pauses = Cell::new(0);
    let mut out = b"before".to_vec();
    let found = run(unpacker.repack(&view, how, &mut out, || paused(&pauses)));
    assert!(out.starts_with(b"before") && (found.is_ok() || out.len() == 6));
    assert!(out.capacity() <= out.len().max(how.bytes_max) / 8 * 9 + 64, "{} for {}", out.capacity(), out.len());
    (found.map(|_| out.split_off(6)), pauses.get())
}

fn paused(pauses: &Cell<usize>) -> impl Future<Output = ()> {
    pauses.set(pauses.get() + 1);
    let mut is_over = false;
    poll_fn(move |_| if std::mem::replace(&mut is_over, true) { Poll::Ready(()) } else { Poll::Pending })
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(found) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return found;
        }
    }
}

/// The batch with other bytes behind its header, and with what the header says of them corrected.
fn with_payload(batch: &[u8], codec: Codec, payload: &[u8]) -> Vec<u8> {
    let mut batch = [&batch[..61], payload].concat();
    batch[22] = codec.code();
    let length = batch.len() as i32 - 12;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = corelog_batch::crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch
}

/// Whatever the bytes are, nothing panics, and a walk ends.
fn poke(bytes: &[u8]) {
    let _ = validate(bytes, LIMITS);
    let _ = frame_length(bytes);
    for batch in batches(bytes).flatten() {
        let _ = check(&mut Unpacker::default(), batch.bytes(), 1 << 16);
        let mut scratch = Vec::new();
        if let Ok(records) = batch.records(&mut scratch, 1 << 16) {
            for record in records.flatten() {
                record.headers.for_each(drop);
            }
        }
        assert!(scratch.len() <= 1 << 17);
    }
}

proptest! {
    #[test]
    fn compressed_anew_only_the_compression_differs(
        from in codec(),
        to in codec(),
        records in proptest::collection::vec(record(), 1..20),
        sequence in 0..1000_i32,
    ) {
        let mut built = build(from, &records);
        number(&mut built, 7, 3, sequence).unwrap();
        let how = Repack { codec: to, bytes_max: 1 << 22, unpacked_max: 1 << 22 };
        let repacked = repack(&mut Unpacker::default(), &built, &how).0.unwrap();
        validate(&repacked, LIMITS).unwrap();
        let (before, after) = (BatchView::first(&built).unwrap(), BatchView::first(&repacked).unwrap());
        prop_assert_eq!(after.codec().unwrap(), to);
        prop_assert_eq!(check(&mut Unpacker::default(), &repacked, 1 << 22).0, Ok(()));
        prop_assert_eq!(read(&after, 1 << 22).unwrap(), read(&before, 1 << 22).unwrap());
        // Length, checksum and codec aside, which follow from it.
        prop_assert_eq!(&repacked[..8], &built[..8]);
        prop_assert_eq!(&repacked[12..17], &built[12..17]);
        prop_assert_eq!(&repacked[23..61], &built[23..61]);
        let tight = Repack { bytes_max: repacked.len() - 1, ..how };
        let refused = repack(&mut Unpacker::default(), &built, &tight).0;
        prop_assert_eq!(refused, Err(BatchError::TooLargeRepacked { codec: to.name(), max: repacked.len() - 1 }));
        prop_assert_eq!(repack(&mut Unpacker::default(), &built, &Repack { bytes_max: repacked.len(), ..how }).0, Ok(repacked));
    }

    #[test]
    fn built_is_valid_and_reads_back(codec in codec(), records in proptest::collection::vec(record(), 1..20)) {
        let built = build(codec, &records);
        let summary = validate(&built, LIMITS).unwrap();
        prop_assert_eq!(summary.record_count as usize, records.len());
        prop_assert_eq!(Some(summary.max_timestamp), records.iter().map(|record| record.0).max());
        let plain = build(Codec::None, &records);
        prop_assert_eq!(summary.length, built.len());
        prop_assert_eq!(summary.codec, if built.len() < plain.len() { codec } else { Codec::None });
        prop_assert!(built.len() <= plain.len());
        let view = BatchView::first(&built).unwrap();
        prop_assert_eq!(&read(&view, DECOMPRESSED_MAX).unwrap(), &records);
        prop_assert_eq!(check(&mut Unpacker::default(), &built, DECOMPRESSED_MAX).0, Ok(()));
        prop_assert_eq!(view.plain_records().is_ok(), summary.codec == Codec::None);
        let mut decompressed = vec![1, 2, 3];
        view.decompress_into(&mut decompressed, DECOMPRESSED_MAX).unwrap();
        prop_assert_eq!(&decompressed[3..], plain);
    }

    #[test]
    fn any_flipped_bit_of_what_is_summed_is_refused(
        codec in codec(), records in proptest::collection::vec(record(), 1..4), place: prop::sample::Index, bit in 0..8,
    ) {
        let mut built = build(codec, &records);
        let at = 16 + place.index(built.len() - 16);
        built[at] ^= 1_u8 << bit;
        prop_assert!(validate(&built, LIMITS).is_err());
        poke(&built);
    }

    #[test]
    fn of_compressed_records_the_same_is_said_as_of_plain_ones(
        records in proptest::collection::vec(record(), 1..20), huge in prop_oneof![0..1_usize, 30_000..40_000_usize],
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        cut in prop_oneof![0..1_usize, 1..5_usize], extra in prop_oneof![0..1_usize, 1..40_000_usize],
    ) {
        // One record beyond a piece, in their midst.
        let mut records = records;
        records[0].2 = Some(vec![7; huge]);
        let plain = build(Codec::None, &records);
        let mut payload = plain[61..].to_vec();
        for (place, byte) in changes {
            *place.get_mut(&mut payload) = byte;
        }
        payload.truncate(payload.len() - cut.min(payload.len()));
        payload.resize(payload.len() + extra, 0);
        let said = validate(&with_payload(&plain, Codec::None, &payload), LIMITS).map(drop);
        let block = snap::raw::Encoder::new().compress_vec(&payload).unwrap();
        let compressed = with_payload(&plain, Codec::Snappy, &block);
        prop_assert_eq!(check(&mut Unpacker::default(), &compressed, DECOMPRESSED_MAX).0, said);
    }

    #[test]
    fn any_truncation_is_refused(codec in codec(), records in proptest::collection::vec(record(), 1..4)) {
        let built = build(codec, &records);
        for length in (0..built.len()).step_by(7) {
            prop_assert!(validate(&built[..length], LIMITS).is_err());
        }
    }

    #[test]
    fn a_body_comes_apart_into_its_batches(bodies in proptest::collection::vec(record(), 1..5), cut: prop::sample::Index) {
        let each = bodies.iter().map(|record| build(Codec::None, std::slice::from_ref(record))).collect::<Vec<_>>();
        let body = each.concat();
        let apart = batches(&body).map(|batch| batch.unwrap().bytes()).collect::<Vec<_>>();
        prop_assert_eq!(apart, each.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let cut = cut.index(body.len());
        let whole = batches(&body[..cut]).flatten().map(|batch| batch.bytes().len()).sum::<usize>();
        prop_assert!(whole <= cut);
        prop_assert_eq!(batches(&body[..cut]).any(|batch| batch.is_err()), whole < cut);
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        poke(&bytes);
    }

    #[test]
    fn a_lying_payload_never_panics(code in 0..8_u8, count in -2..9_i32, payload in bytes(), prefix in any::<bool>()) {
        let mut batch = build(Codec::None, &[(5, None, None, vec![])]);
        batch.truncate(61);
        if prefix {
            batch.extend_from_slice(b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
        }
        batch.extend_from_slice(&payload);
        batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
        batch[57..61].copy_from_slice(&count.to_be_bytes());
        let payload = batch.split_off(61);
        let mut batch = with_payload(&batch, Codec::None, &payload);
        batch[22] = code;
        poke(&batch);
    }

    #[test]
    fn a_batch_never_outgrows_its_bound(max in 60..400_usize, sizes in proptest::collection::vec(0..300_usize, 1..30)) {
        let mut builder = BatchBuilder::new(max, Codec::None);
        for size in sizes {
            match builder.append(None, Some(&vec![1; size]), &[], 1) {
                Ok(()) => {}
                Err(AppendRefused::Full) => prop_assert!(builder.build().unwrap().len() <= max),
                Err(AppendRefused::TooLarge { size, .. }) => prop_assert!(size > max),
                Err(refused) => prop_assert!(false, "{refused}"),
            }
            prop_assert!(builder.is_empty() || builder.size() <= max);
        }
    }
}

#[test]
fn a_bomb_is_refused_by_every_codec() {
    let record = (5, None, Some(vec![0; 1 << 20]), vec![]);
    for codec in Codec::ALL.into_iter().skip(1) {
        let built = build(codec, std::slice::from_ref(&record));
        assert!(built.len() < 1 << 17, "{codec} leaves {}", built.len());
        let view = BatchView::first(&built).unwrap();
        assert_eq!(read(&view, 1 << 16), Err(BatchError::Bomb { max: 1 << 16 }), "{codec}");
        let mut plain = Vec::new();
        assert_eq!(view.decompress_into(&mut plain, 1 << 16), Err(BatchError::Bomb { max: 1 << 16 }), "{codec}");
        assert!(plain.is_empty());
        assert_eq!(read(&view, 1 << 21).unwrap().len(), 1);
        // One after another, as a server has them.
        let mut unpacker = Unpacker::default();
        for _ in 0..2 {
            assert_eq!(check(&mut unpacker, &built, 1 << 16).0, Err(BatchError::Bomb { max: 1 << 16 }), "{codec}");
            let (checked, pauses) = check(&mut unpacker, &built, 1 << 21);
            assert_eq!(checked, Ok(()), "{codec}");
            assert!((24..=80).contains(&pauses), "{codec} paused {pauses} times");
        }
    }
}

#[test]
fn a_bomb_is_not_compressed_anew() {
    let record = (5, None, Some(vec![0; 1 << 20]), vec![]);
    for (from, to) in Codec::ALL.into_iter().flat_map(|from| Codec::ALL.map(|to| (from, to))) {
        let built = build(from, std::slice::from_ref(&record));
        let how = Repack { codec: to, bytes_max: 1 << 21, unpacked_max: 1 << 16 };
        let mut unpacker = Unpacker::default();
        assert_eq!(repack(&mut unpacker, &built, &how).0, Err(BatchError::Bomb { max: 1 << 16 }), "{from} to {to}");
        let (repacked, pauses) = repack(&mut unpacker, &built, &Repack { unpacked_max: 1 << 21, ..how });
        assert!(repacked.is_ok() && pauses >= 256, "{from} to {to} paused {pauses} times");
        let (refused, pauses) =
            repack(&mut unpacker, &built, &Repack { codec: Codec::None, unpacked_max: 1 << 21, bytes_max: 1 << 16 });
        assert_eq!(refused, Err(BatchError::TooLargeRepacked { codec: "none", max: 1 << 16 }), "{from}");
        assert!(pauses <= 64, "{from} went on for {pauses} pauses");
    }
}

#[test]
fn padding_is_told_before_it_costs_much() {
    let plain = build(Codec::None, &[(5, None, Some(vec![3; 100]), vec![])]);
    let gzip = |data: &[u8]| {
        use std::io::Write;
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = |data: &[u8]| zstd::encode_all(data, 1).unwrap();
    for (codec, some, many) in [(Codec::Gzip, 100, 30_000), (Codec::Zstd, 1000, 60_000)] {
        let pack = if codec == Codec::Gzip { gzip(b"") } else { zstd(b"") };
        let end = if codec == Codec::Gzip { gzip(&plain[61..]) } else { zstd(&plain[61..]) };
        let padded = |count| with_payload(&plain, codec, &[pack.repeat(count), end.clone()].concat());
        assert_eq!(check(&mut Unpacker::default(), &padded(some), 1 << 20).0, Ok(()), "{codec}");
        let (checked, pauses) = check(&mut Unpacker::default(), &padded(many), 1 << 20);
        assert_eq!(checked, Err(BatchError::Padded { codec: codec.name() }));
        assert!((10..=3000).contains(&pauses), "{codec} paused {pauses} times");
    }
}

#[test]
fn empty_snappy_blocks_are_taken_one_at_a_time() {
    let plain = build(Codec::None, &[(5, None, Some(vec![3; 100]), vec![])]);
    let framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";
    let block = snap::raw::Encoder::new().compress_vec(&plain[61..]).unwrap();
    for (count, is_taken) in [(1000, true), (3000, false)] {
        let empty = [0, 0, 0, 1, 0].repeat(count);
        let payload = [&framed[..], &empty, &(block.len() as u32).to_be_bytes(), &block].concat();
        let batch = with_payload(&plain, Codec::Snappy, &payload);
        let (checked, pauses) = check(&mut Unpacker::default(), &batch, 1 << 20);
        assert_eq!((checked.is_ok(), pauses), (is_taken, count.min(1024)));
    }
}

#[test]
fn several_frames_are_one_payload_and_anything_else_behind_them_is_refused() {
    let plain = build(Codec::None, &[(5, None, Some(vec![3; 1000]), vec![]), (6, None, Some(vec![4; 1000]), vec![])]);
    let pack = |codec: Codec, data: &[u8]| {
        use std::io::Write;
        match codec {
            Codec::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
            Codec::Zstd => zstd::encode_all(data, 1).unwrap(),
            _ => {
                let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
                encoder.write_all(data).unwrap();
                encoder.finish().unwrap()
            }
        }
    };
    for codec in [Codec::Gzip, Codec::Lz4, Codec::Zstd] {
        let (one, other) = plain[61..].split_at(777);
        let two = [pack(codec, one), pack(codec, other)].concat();
        let batch = with_payload(&plain, codec, &two);
        assert_eq!(check(&mut Unpacker::default(), &batch, 1 << 20).0, Ok(()), "{codec}");
        assert_eq!(read(&BatchView::first(&batch).unwrap(), 1 << 20).unwrap().len(), 2, "{codec}");
        for junk in [&b"x"[..], &[7; 100], &pack(codec, b"more")] {
            let batch = with_payload(&plain, codec, &[&two, junk].concat());
            assert!(check(&mut Unpacker::default(), &batch, 1 << 20).0.is_err(), "{codec}: {junk:?}");
        }
    }
}

#[test]
fn noise_of_any_codec_comes_through_the_pauses() {
    let mut state = 1_u64;
    let mut noise = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        // Half a byte of chance each, so that there is something to compress.
        (state >> 60) as u8
    };
    let records: Vec<OwnedRecord> =
        (0..300).map(|_| (5, None, Some((0..1000).map(|_| noise()).collect()), vec![])).collect();
    for codec in Codec::ALL.into_iter().skip(1) {
        let built = build(codec, &records);
        let (checked, pauses) = check(&mut Unpacker::default(), &built, 1 << 20);
        assert_eq!(checked, Ok(()), "{codec}");
        assert!(pauses >= 8, "{codec} paused {pauses} times");
    }
}

#[test]
fn a_bare_snappy_block_is_read_too() {
    let built = build(Codec::None, &[(5, None, Some(vec![3; 100]), vec![])]);
    let block = snap::raw::Encoder::new().compress_vec(&built[61..]).unwrap();
    let batch = with_payload(&built, Codec::Snappy, &block);
    let view = BatchView::first(&batch).unwrap();
    assert_eq!(read(&view, 1 << 10).unwrap()[0].2.as_deref(), Some(&[3; 100][..]));
    assert_eq!(read(&view, 50), Err(BatchError::Bomb { max: 50 }));
}

/// Kafka's Java client ends at such a frame, so that nobody who uses it would get past it.
#[test]
fn lz4_frames_whose_blocks_depend_on_one_another_are_refused() {
    use lz4_flex::frame::{BlockMode, FrameEncoder, FrameInfo};
    use std::io::Write;
    let plain = build(Codec::None, &[(5, None, Some(vec![3; 200_000]), vec![])]);
    for (mode, refused) in [(BlockMode::Independent, false), (BlockMode::Linked, true)] {
        let mut encoder = FrameEncoder::with_frame_info(FrameInfo::new().block_mode(mode), Vec::new());
        encoder.write_all(&plain[61..]).unwrap();
        let batch = with_payload(&plain, Codec::Lz4, &encoder.finish().unwrap());
        let expected = if refused { Err(BatchError::Lz4Linked) } else { Ok(()) };
        assert_eq!(check(&mut Unpacker::default(), &batch, 1 << 20).0, expected);
    }
}

#[test]
fn frames_are_those_that_other_clients_read() {
    let built = |codec| build(codec, &[(5, None, Some(vec![3; 100]), vec![])]);
    assert_eq!(built(Codec::Gzip)[61..63], [0x1f, 0x8b]);
    assert_eq!(built(Codec::Snappy)[61..77], *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01");
    // LZ4 frame: magic, then version 1 with independent blocks and nothing that Kafka's Java reader refuses.
    assert_eq!(built(Codec::Lz4)[61..66], [0x04, 0x22, 0x4d, 0x18, 0x60]);
    assert_eq!(built(Codec::Zstd)[61..65], [0x28, 0xb5, 0x2f, 0xfd]);
}

#[test]
fn names_of_codecs() {
    for codec in Codec::ALL {
        assert_eq!(codec.name().parse(), Ok(codec));
        assert_eq!(Codec::from_code(codec.code()), Ok(codec));
    }
    assert!("lz5".parse::<Codec>().unwrap_err().to_string().contains("lz5"));
}
