//! `dump-log` on the files of a real server.

use crate::run::{Server, run};
use std::path::{Path, PathBuf};

/// A data directory with 300 records in one topic, written by a server that was then stopped or killed.
fn written(stop: fn(Server)) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t"]).ok();
    let lines: String = (0..300).map(|i| format!("k{i}:value {i}\n")).collect();
    let ended = server.run_with(&["produce", "t", "--key-separator", ":", "--linger", "50ms"], lines.as_bytes());
    assert_eq!(ended.status, Some(0), "{}", ended.stderr);
    stop(server);
    dir
}

/// The only segment of a topic that is not the metadata's.
fn segment(data_dir: &Path) -> PathBuf {
    let topics = std::fs::read_dir(data_dir.join("topics")).unwrap().map(|entry| entry.unwrap().path());
    let metadata = "00000000-0000-0000-0000-000000000001";
    let topic = topics.into_iter().find(|path| !path.ends_with(metadata)).unwrap();
    topic.join("0").join("00000000000000000000.log")
}

fn dump(path: &Path, more: &[&str]) -> crate::run::Ended {
    run(&[&["dump-log", path.to_str().unwrap()][..], more].concat())
}

#[test]
fn batches_records_and_journal_entries_are_shown() {
    let dir = written(|server| assert_eq!(server.stop().0, Some(0)));
    let text = dump(&segment(dir.path()), &["--records"]).ok();
    assert!(text.starts_with("segment  path "), "{text}");
    assert!(text.contains("\n  batch  position 0 "), "{text}");
    assert!(text.contains("key \"k299\"  value \"value 299\""), "{text}");
    let json = dump(&segment(dir.path()), &["--records", "--json"]).ok();
    let lines: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records: Vec<_> = lines.iter().filter(|line| line["what"] == "record").collect();
    assert_eq!(records.len(), 300);
    assert_eq!((&records[7]["key"], &records[7]["offset"]), (&"k7".into(), &7.into()));
    let whole = dump(dir.path(), &[]).ok();
    for what in ["\njournal  path ", "\ncheckpoint  path ", "\nsegment  path "] {
        assert!(whole.contains(what), "{what}: {whole}");
    }
}

#[test]
fn what_a_server_leaves_behind_verifies() {
    for stop in [|server: Server| assert_eq!(server.stop().0, Some(0)), Server::kill] {
        let dir = written(stop);
        let summary = dump(dir.path(), &["--verify"]).ok();
        assert!(summary.lines().last().unwrap().contains(": 0 errors, 0 warnings, "), "{summary}");
    }
}

#[test]
fn a_flipped_bit_is_found() {
    let dir = written(|server| assert_eq!(server.stop().0, Some(0)));
    let path = segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ended = dump(dir.path(), &["--verify"]);
    assert_eq!(ended.status, Some(3), "{}{}", ended.text(), ended.stderr);
    assert!(ended.text().starts_with("error: ") && ended.text().contains(path.to_str().unwrap()), "{}", ended.text());
    let json = dump(dir.path(), &["--verify", "--json"]);
    let finding: serde_json::Value = serde_json::from_str(json.text().lines().next().unwrap()).unwrap();
    assert_eq!((json.status, &finding["severity"]), (Some(3), &"error".into()));
}

#[test]
fn doctor_says_what_is_wrong_and_what_to_do() {
    let dir = written(|server| assert_eq!(server.stop().0, Some(0)));
    let root = dir.path().to_str().unwrap();
    let healthy = run(&["doctor", root]).ok();
    assert!(healthy.starts_with(&format!("{root} is healthy: ")), "{healthy}");
    let path = segment(dir.path());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let ended = run(&["doctor", root]);
    let text = ended.text();
    assert_eq!(ended.status, Some(3), "{text}{}", ended.stderr);
    for line in [
        format!("  file     {}, byte 0", path.display()),
        "  topic    t, partition 0".into(),
        "  records  lost, unless there is a copy".into(),
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line}: {text}");
    }
    assert!(text.contains("  do       The server serves what lies before the damage"), "{text}");
    assert!(text.contains(&format!("{root} is damaged, with acknowledged records lost")), "{text}");
    let json = run(&["doctor", root, "--json"]);
    let lines: Vec<serde_json::Value> = json.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((json.status, &lines[0]["topic"], &lines[0]["risk"]), (Some(3), &"t".into(), &"lost".into()));
    assert_eq!(lines.last().unwrap()["errors"], 1);
}

#[test]
fn a_directory_without_its_node_file_is_damaged() {
    let dir = written(|server| assert_eq!(server.stop().0, Some(0)));
    let node = dir.path().join("node");
    std::fs::remove_file(&node).unwrap();
    let doctor = run(&["doctor", dir.path().to_str().unwrap()]);
    let verified = dump(dir.path(), &["--verify"]);
    for (ended, sentence) in
        [(&doctor, "Restore it from a backup"), (&verified, "its node file is missing; restore it from a backup")]
    {
        assert_eq!(ended.status, Some(3), "{}{}", ended.text(), ended.stderr);
        assert!(ended.text().contains(sentence), "{}", ended.text());
        assert!(ended.text().contains(node.to_str().unwrap()), "{}", ended.text());
    }
}

#[test]
fn doctor_examines_data_directories_of_stopped_servers() {
    let dir = tempfile::tempdir().unwrap();
    let sentence = format!("corelog: {} is no data directory of corelog: it has no node file", dir.path().display());
    run(&["doctor", dir.path().to_str().unwrap()]).fails(2, &sentence);
    let _server = Server::start(dir.path());
    let sentence = format!("corelog: {} is in use by a server: stop that first", dir.path().display());
    run(&["doctor", dir.path().to_str().unwrap()]).fails(1, &sentence);
}

#[test]
fn what_is_not_ours_or_in_use_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let ended = dump(dir.path(), &[]);
    assert_eq!((ended.status, ended.text()), (Some(2), ""));
    assert!(ended.stderr.contains("is not of a corelog data directory"), "{}", ended.stderr);
    assert_eq!(dump(&dir.path().join("nothing"), &[]).status, Some(1));
    let _server = Server::start(dir.path());
    let ended = dump(dir.path(), &["--verify"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("is in use by a server: stop that first"), "{}", ended.stderr);
}
