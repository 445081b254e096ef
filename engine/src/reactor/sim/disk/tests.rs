//! Each row of the module's table, and each thing it does not promise, as a property over many seeds: what must hold
//! holds for all, what may be lost is lost for some.

use super::*;

const SEEDS: u64 = 200;
const CAPACITY: u64 = 64 << 20;

fn disk(seed: u64) -> Disk {
    Disk::new(Random::new(seed), CAPACITY)
}

fn path(name: &str) -> &Path {
    Path::new(name)
}

fn create(disk: &mut Disk, name: &str) -> FileId {
    disk.open(path(name), Create::Must).unwrap()
}

fn filled(byte: u8, blocks: usize) -> Vec<u8> {
    vec![byte; blocks * BLOCK]
}

fn write(disk: &mut Disk, file: FileId, block: u64, byte: u8) {
    disk.write(file, block * BLOCK as u64, &filled(byte, 1), false).unwrap();
}

fn sync_all(disk: &mut Disk) {
    let mark = disk.mark();
    disk.sync_fs(mark).unwrap();
}

fn sync_file(disk: &mut Disk, file: FileId) {
    let mark = disk.mark();
    disk.sync_data(file, mark).unwrap();
}

/// The file's contents after the node came up again, or nothing if there is no such file.
fn contents(disk: &mut Disk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(path(name), Create::No).ok()?;
    let mut bytes = vec![0; disk.length(file) as usize];
    assert_eq!(disk.read(file, 0, &mut bytes), bytes.len());
    disk.close(file);
    Some(bytes)
}

/// A segment and a journal, both there and committed; the segment either zero-filled or fallocated.
fn prepared(seed: u64, zeroed: bool) -> (Disk, FileId, FileId) {
    let mut disk = disk(seed);
    let (segment, journal) = (create(&mut disk, "segment"), create(&mut disk, "journal"));
    disk.write(journal, 0, &filled(0, 4), false).unwrap();
    if zeroed {
        disk.write(segment, 0, &filled(0, 4), false).unwrap();
    } else {
        disk.allocate(segment, 0, 4 * BLOCK as u64).unwrap();
    }
    sync_all(&mut disk);
    (disk, segment, journal)
}

/// In how many of the seeds `run` lost something.
fn losses(run: impl Fn(u64) -> bool) -> u64 {
    (0..SEEDS).filter(|&seed| run(seed)).count() as u64
}

#[test]
fn a_flush_of_another_file_covers_zero_filled_blocks() {
    let lost = losses(|seed| {
        let (mut disk, segment, journal) = prepared(seed, true);
        write(&mut disk, segment, 1, 7);
        sync_file(&mut disk, journal);
        disk.power_cut();
        contents(&mut disk, "segment").unwrap()[BLOCK..2 * BLOCK] != filled(7, 1)
    });
    assert_eq!(lost, 0);
}

#[test]
fn a_flush_of_another_file_does_not_cover_fallocated_blocks() {
    let lost = losses(|seed| {
        let (mut disk, segment, journal) = prepared(seed, false);
        write(&mut disk, segment, 1, 7);
        sync_file(&mut disk, journal);
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        assert!(left[BLOCK..2 * BLOCK] == filled(7, 1) || left[BLOCK..2 * BLOCK] == filled(0, 1), "whole or zeros");
        left[BLOCK..2 * BLOCK] != filled(7, 1)
    });
    assert!((SEEDS / 4..SEEDS).contains(&lost), "{lost} of {SEEDS}");
}

#[test]
fn its_own_flush_covers_fallocated_blocks_and_no_other_files() {
    let mut others = 0;
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, false);
        let other = create(&mut disk, "other");
        disk.allocate(other, 0, 4 * BLOCK as u64).unwrap();
        sync_all(&mut disk);
        write(&mut disk, segment, 0, 7);
        write(&mut disk, other, 0, 8);
        sync_file(&mut disk, segment);
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment").unwrap()[..BLOCK], filled(7, 1));
        others += u64::from(contents(&mut disk, "other").unwrap()[..BLOCK] != filled(8, 1));
    }
    assert!(others > 0);
}

#[test]
fn a_barrier_of_the_file_system_covers_everything() {
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, false);
        write(&mut disk, segment, 2, 7);
        disk.create_dir(path("topics")).unwrap();
        disk.rename(path("segment"), path("topics/1")).unwrap();
        let extended = create(&mut disk, "topics/2");
        write(&mut disk, extended, 0, 9);
        sync_all(&mut disk);
        disk.power_cut();
        assert_eq!(contents(&mut disk, "topics/1").unwrap()[2 * BLOCK..3 * BLOCK], filled(7, 1));
        assert_eq!(contents(&mut disk, "topics/2").unwrap(), filled(9, 1));
        assert_eq!(contents(&mut disk, "segment"), None);
    }
}

#[test]
fn unflushed_writes_survive_in_any_part_torn_by_sector() {
    let (mut whole, mut none, mut torn) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, true);
        write(&mut disk, segment, 0, 7);
        disk.power_cut();
        let block = &contents(&mut disk, "segment").unwrap()[..BLOCK];
        assert!(
            block.chunks(SECTOR).all(|sector| sector == &filled(7, 1)[..SECTOR] || sector == &filled(0, 1)[..SECTOR])
        );
        match block.iter().filter(|&&b| b == 7).count() {
            0 => none += 1,
            BLOCK => whole += 1,
            _ => torn += 1,
        }
    }
    assert!(whole > 0 && none > 0 && torn > 0, "{whole} {none} {torn}");
}

#[test]
fn unflushed_writes_survive_independently_of_their_order() {
    let later_only = losses(|seed| {
        let (mut disk, segment, _) = prepared(seed, true);
        write(&mut disk, segment, 0, 1);
        write(&mut disk, segment, 1, 2);
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        left[..BLOCK] == filled(0, 1) && left[BLOCK..2 * BLOCK] == filled(2, 1)
    });
    assert!(later_only > 0);
}

#[test]
fn a_flush_does_not_cover_what_landed_after_it_began() {
    let lost = losses(|seed| {
        let (mut disk, segment, journal) = prepared(seed, true);
        write(&mut disk, segment, 0, 1);
        let mark = disk.mark();
        write(&mut disk, segment, 1, 2);
        disk.sync_data(journal, mark).unwrap();
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        assert_eq!(left[..BLOCK], filled(1, 1));
        left[BLOCK..2 * BLOCK] != filled(2, 1)
    });
    assert!(lost > 0);
}

#[test]
fn a_durable_write_covers_its_own_bytes_and_no_others() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        for zeroed in [true, false] {
            let (mut disk, segment, _) = prepared(seed, zeroed);
            write(&mut disk, segment, 0, 1);
            write(&mut disk, segment, 1, 2);
            disk.write(segment, BLOCK as u64, &filled(3, 1), true).unwrap();
            disk.power_cut();
            let left = contents(&mut disk, "segment").unwrap();
            assert_eq!(left[BLOCK..2 * BLOCK], filled(3, 1));
            lost += u64::from(left[..BLOCK] != filled(1, 1));
        }
    }
    assert!(lost > 0);
}

#[test]
fn a_durable_write_past_the_end_takes_the_length_along() {
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, true);
        disk.write(segment, 4 * BLOCK as u64, &filled(3, 1), true).unwrap();
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment").unwrap()[4 * BLOCK..], filled(3, 1));
    }
}

#[test]
fn a_longer_file_is_short_again_unless_its_own_flush_came() {
    let lost = losses(|seed| {
        let (mut disk, segment, journal) = prepared(seed, true);
        write(&mut disk, segment, 4, 9);
        sync_file(&mut disk, journal);
        disk.power_cut();
        contents(&mut disk, "segment").unwrap().len() == 4 * BLOCK
    });
    assert!(lost > 0 && lost < SEEDS);
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, true);
        write(&mut disk, segment, 4, 9);
        sync_file(&mut disk, segment);
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment").unwrap()[4 * BLOCK..], filled(9, 1));
    }
}

#[test]
fn a_new_file_needs_its_directory_synced_and_not_only_itself() {
    let lost = losses(|seed| {
        let mut disk = disk(seed);
        let file = create(&mut disk, "new");
        write(&mut disk, file, 0, 1);
        sync_file(&mut disk, file);
        disk.power_cut();
        contents(&mut disk, "new").is_none()
    });
    assert!(lost > 0 && lost < SEEDS);
    for seed in 0..SEEDS {
        let mut disk = disk(seed);
        let file = create(&mut disk, "new");
        write(&mut disk, file, 0, 1);
        sync_file(&mut disk, file);
        let mark = disk.mark();
        disk.sync_dir(path(""), mark).unwrap();
        disk.power_cut();
        assert_eq!(contents(&mut disk, "new"), Some(filled(1, 1)));
    }
}

#[test]
fn a_directory_that_was_lost_takes_its_synced_entries_along() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut disk = disk(seed);
        disk.create_dir(path("dir")).unwrap();
        create(&mut disk, "dir/file");
        let mark = disk.mark();
        disk.sync_dir(path("dir"), mark).unwrap();
        disk.power_cut();
        match disk.list_dir(path("dir")) {
            Ok(names) => assert_eq!(names, [("file".to_owned(), false)]),
            Err(e) => {
                assert_eq!(e.kind(), io::ErrorKind::NotFound);
                lost += 1;
            }
        }
    }
    assert!(lost > 0 && lost < SEEDS);
}

#[test]
fn a_rename_is_one_thing_and_needs_a_sync() {
    let (mut old, mut new) = (0, 0);
    for seed in 0..SEEDS {
        let mut disk = disk(seed);
        for (name, byte) in [("node", 1), ("node.tmp", 2)] {
            let file = create(&mut disk, name);
            write(&mut disk, file, 0, byte);
        }
        sync_all(&mut disk);
        disk.rename(path("node.tmp"), path("node")).unwrap();
        disk.power_cut();
        match (contents(&mut disk, "node").unwrap()[0], contents(&mut disk, "node.tmp").is_some()) {
            (1, true) => old += 1,
            (2, false) => new += 1,
            other => panic!("half a rename: {other:?}"),
        }
    }
    assert!(old > 0 && new > 0);
}

#[test]
fn a_removed_file_may_come_back_until_its_directory_is_synced() {
    let back = losses(|seed| {
        let (mut disk, _, _) = prepared(seed, true);
        disk.remove_file(path("segment")).unwrap();
        disk.power_cut();
        contents(&mut disk, "segment").is_some()
    });
    assert!(back > 0 && back < SEEDS);
    for seed in 0..SEEDS {
        let (mut disk, _, _) = prepared(seed, true);
        disk.remove_file(path("segment")).unwrap();
        let mark = disk.mark();
        disk.sync_dir(path(""), mark).unwrap();
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment"), None);
    }
}

#[test]
fn a_truncation_may_be_undone_until_the_file_is_synced() {
    let back = losses(|seed| {
        let (mut disk, segment, journal) = prepared(seed, true);
        disk.write(segment, 0, &filled(5, 4), false).unwrap();
        sync_all(&mut disk);
        disk.truncate(segment, BLOCK as u64 + 100);
        sync_file(&mut disk, journal);
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        assert!(left.iter().all(|&b| b == 5), "what was synced before is as it was, cut or not");
        left.len() == 4 * BLOCK
    });
    assert!(back > 0 && back < SEEDS);
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, true);
        disk.truncate(segment, 100);
        sync_file(&mut disk, segment);
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment").unwrap().len(), 100);
    }
}

#[test]
fn a_file_that_grows_again_reads_as_zeros_past_its_old_end() {
    let (mut disk, segment, _) = prepared(1, true);
    disk.write(segment, 0, &filled(5, 2), false).unwrap();
    disk.truncate(segment, 100);
    disk.truncate(segment, 2 * BLOCK as u64);
    let mut bytes = filled(1, 2);
    disk.read(segment, 0, &mut bytes);
    assert!(bytes[..100].iter().all(|&b| b == 5) && bytes[100..].iter().all(|&b| b == 0));
}

#[test]
fn after_a_failed_flush_no_later_flush_brings_the_writes_back() {
    let (mut gone_at_once, mut gone_later, mut kept) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (mut disk, segment, journal) = prepared(seed, true);
        write(&mut disk, segment, 0, 7);
        let mark = disk.mark();
        disk.fail_flush(mark);
        let before = contents(&mut disk, "segment").unwrap()[0];
        sync_file(&mut disk, journal);
        sync_file(&mut disk, segment);
        sync_all(&mut disk);
        disk.power_cut();
        match (before, contents(&mut disk, "segment").unwrap()[..BLOCK] == filled(7, 1)) {
            (0, false) => gone_at_once += 1,
            (7, false) => gone_later += 1,
            (7, true) => kept += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(gone_at_once > 0 && gone_later > 0 && kept > 0, "{gone_at_once} {gone_later} {kept}");
}

#[test]
fn a_block_written_again_after_a_failed_flush_is_covered_by_the_next() {
    for seed in 0..SEEDS {
        let (mut disk, segment, journal) = prepared(seed, true);
        write(&mut disk, segment, 0, 7);
        let mark = disk.mark();
        disk.fail_flush(mark);
        write(&mut disk, segment, 0, 8);
        sync_file(&mut disk, journal);
        disk.power_cut();
        assert_eq!(contents(&mut disk, "segment").unwrap()[..BLOCK], filled(8, 1));
    }
}

#[test]
fn a_crash_of_the_process_keeps_what_was_finished() {
    let (mut disk, segment, _) = prepared(3, false);
    write(&mut disk, segment, 0, 7);
    create(&mut disk, "new");
    disk.lock(path("lock")).unwrap();
    disk.close_all();
    assert_eq!(contents(&mut disk, "segment").unwrap()[..BLOCK], filled(7, 1));
    assert!(contents(&mut disk, "new").is_some());
    disk.lock(path("lock")).unwrap();
    assert_eq!(disk.lock(path("lock")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
}

#[test]
fn space_is_counted_and_runs_out() {
    let mut disk = Disk::new(Random::new(0), 8 * BLOCK as u64);
    let (a, b) = (create(&mut disk, "a"), create(&mut disk, "b"));
    disk.allocate(a, 0, 6 * BLOCK as u64).unwrap();
    write(&mut disk, a, 0, 1);
    assert_eq!((disk.allocated(a), disk.space().0), (6 * BLOCK as u64, 2 * BLOCK as u64));
    let full = disk.write(b, 0, &filled(1, 3), false).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.length(b), 0);
    disk.write(b, 0, &filled(1, 2), false).unwrap();
    disk.remove_file(path("a")).unwrap();
    assert_eq!(disk.space().0, 0, "still open");
    disk.close(a);
    assert_eq!(disk.space().0, 6 * BLOCK as u64);
    disk.truncate(b, 1);
    assert_eq!(disk.space().0, 7 * BLOCK as u64);
    disk.power_cut();
    disk.power_cut();
    let used = ["a", "b"].map(|name| contents(&mut disk, name).map_or(0, |bytes| bytes.len().div_ceil(BLOCK)));
    assert!(disk.space().0 >= (8 - used.iter().sum::<usize>() as u64) * BLOCK as u64);
}

#[test]
fn names_follow_the_rules_of_a_file_system() {
    let mut disk = disk(0);
    let kind = |result: io::Result<FileId>| result.unwrap_err().kind();
    assert_eq!(kind(disk.open(path("a"), Create::No)), io::ErrorKind::NotFound);
    create(&mut disk, "/a");
    assert_eq!(kind(disk.open(path("./a"), Create::Must)), io::ErrorKind::AlreadyExists);
    assert_eq!(kind(disk.open(path("no/a"), Create::Must)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.open(path("a/b"), Create::Must)), io::ErrorKind::NotADirectory);
    disk.create_dir(path("d")).unwrap();
    disk.create_dir(path("d")).unwrap();
    create(&mut disk, "d/z");
    create(&mut disk, "d/y");
    assert_eq!(disk.list_dir(path("d")).unwrap(), [("y".to_owned(), false), ("z".to_owned(), false)]);
    assert_eq!(disk.remove_dir(path("d")).unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
    disk.remove_file(path("d/y")).unwrap();
    disk.rename(path("d/z"), path("a")).unwrap();
    disk.remove_dir(path("d")).unwrap();
    assert_eq!(disk.list_dir(path("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(disk.list_dir(path("")).unwrap(), [("a".to_owned(), false)]);
}

#[test]
fn a_bit_that_flips_at_rest_is_read() {
    let (mut disk, segment, _) = prepared(0, true);
    write(&mut disk, segment, 1, 8);
    assert!(disk.flip_bit(segment, BLOCK as u64 + 5, 0));
    assert!(!disk.flip_bit(segment, 100 * BLOCK as u64, 0));
    assert_eq!(contents(&mut disk, "segment").unwrap()[BLOCK + 5], 9);
}

#[test]
fn a_cut_is_the_same_for_the_same_seed() {
    let run = |seed| {
        let (mut disk, segment, _) = prepared(seed, true);
        (0..4).for_each(|block| write(&mut disk, segment, block, block as u8 + 1));
        disk.power_cut();
        contents(&mut disk, "segment")
    };
    assert!((0..SEEDS).all(|seed| run(seed) == run(seed)));
    assert!((1..SEEDS).any(|seed| run(seed) != run(0)));
}

#[test]
fn an_unflushed_write_into_fallocated_blocks_is_never_torn() {
    let (mut whole, mut none) = (0, 0);
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, false);
        write(&mut disk, segment, 1, 7);
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        match left[BLOCK..2 * BLOCK].iter().filter(|&&b| b == 7).count() {
            0 => none += 1,
            BLOCK => whole += 1,
            count => panic!("{count} bytes: the conversion was committed before its data"),
        }
    }
    assert!(none > 0 && whole > 0);
}

#[test]
fn what_a_power_cut_left_is_there_to_stay() {
    for seed in 0..SEEDS {
        let (mut disk, segment, journal) = prepared(seed, false);
        (0..6).for_each(|block| write(&mut disk, segment, block, 7));
        write(&mut disk, journal, 1, 8);
        disk.rename(path("journal"), path("elsewhere")).unwrap();
        disk.power_cut();
        let left = |disk: &mut Disk| ["segment", "journal", "elsewhere"].map(|name| contents(disk, name));
        let (first, space) = (left(&mut disk), disk.space());
        disk.power_cut();
        assert_eq!(left(&mut disk), first, "seed {seed}");
        assert_eq!(disk.space(), space);
    }
}

#[test]
fn a_file_renamed_twice_keeps_one_name() {
    for seed in 0..SEEDS {
        let mut disk = disk(seed);
        let file = create(&mut disk, "a");
        write(&mut disk, file, 0, 1);
        sync_all(&mut disk);
        disk.rename(path("a"), path("b")).unwrap();
        disk.rename(path("b"), path("c")).unwrap();
        disk.power_cut();
        assert_eq!(disk.list_dir(path("")).unwrap().len(), 1, "seed {seed}");
    }
}

#[test]
fn a_lost_directory_takes_no_space() {
    let mut lost = 0;
    for seed in 0..SEEDS {
        let mut disk = disk(seed);
        disk.create_dir(path("dir")).unwrap();
        disk.create_dir(path("dir/sub")).unwrap();
        let file = create(&mut disk, "dir/sub/file");
        write(&mut disk, file, 0, 1);
        sync_all(&mut disk);
        disk.remove_file(path("dir/sub/file")).unwrap();
        disk.remove_dir(path("dir/sub")).unwrap();
        disk.remove_dir(path("dir")).unwrap();
        disk.power_cut();
        if disk.list_dir(path("dir")).is_err() {
            assert_eq!(disk.space().0, CAPACITY);
            lost += 1;
        }
    }
    assert!(lost > 0);
}

#[test]
fn a_second_power_cut_takes_nothing_from_before_the_first() {
    for seed in 0..SEEDS {
        let (mut disk, segment, _) = prepared(seed, true);
        (4..8).for_each(|block| write(&mut disk, segment, block, 7));
        disk.power_cut();
        let left = contents(&mut disk, "segment").unwrap();
        let segment = disk.open(path("segment"), Create::No).unwrap();
        write(&mut disk, segment, 9, 8);
        disk.power_cut();
        assert!(contents(&mut disk, "segment").unwrap().starts_with(&left), "seed {seed}");
    }
}

#[test]
fn flushes_of_one_asker_under_way_together_fail_together() {
    let (mut disk, segment, _) = prepared(1, true);
    write(&mut disk, segment, 0, 7);
    let (first, second) = (disk.mark(), disk.mark());
    disk.fail_flush(first);
    assert!(disk.sync_data(segment, second).is_err(), "what it was to cover is gone");
    disk.writer = 1;
    disk.sync_fs(second).unwrap();
    disk.writer = 0;
    sync_file(&mut disk, segment);
}
