//! `serve`: what it says, what it refuses, and what it keeps.

use crate::run::{Ended, PATIENCE, Server, corelog, run_with};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

fn serve(data_dir: &Path, arguments: &[&str]) -> Ended {
    let mut command = corelog(&["serve", "--memory", "1GiB", "--smp", "1", "--journal-bytes", "32MiB", "--data-dir"]);
    command.arg(data_dir).args(arguments);
    run_with(command, b"")
}

#[test]
fn the_start_lines_say_where_why_and_what_next() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let text = server.start_lines.join("\n");
    assert!(text.contains("2 shards on core"), "{text}");
    assert!(text.contains("  in all: 2 shards, at most "), "{text}");
    let (status, rest) = server.stop();
    assert_eq!(status, Some(0));
    assert!(rest.contains(" topic create clicks --partitions 8"), "{rest}");
}

/// A command with what a shell's `ulimit` sets.
fn limited(ulimits: &str, data_dir: &Path, arguments: &[&str]) -> Command {
    let limited = corelog(arguments);
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{ulimits} && exec \"$0\" \"$@\"")]).arg(limited.get_program());
    command.args(limited.get_args()).arg("--data-dir").arg(data_dir);
    command.env_clear();
    command
}

const SERVE: [&str; 8] = ["serve", "--memory", "1GiB", "--journal-bytes", "32MiB", "--listen", "127.0.0.1:0", "--smp"];

#[test]
fn with_little_allowed_it_serves_with_less_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = limited("ulimit -n 300 && ulimit -l 64", dir.path(), &[&SERVE[..], &["2"]].concat());
    let server = Server::started(&mut command);
    server.run(&["topic", "create", "t", "--partitions", "500"]).ok();
    let lines: String = (0..5000).map(|number| format!("{number}\n")).collect();
    let produced = server.run_with(&["produce", "t", "--batch-bytes", "100", "--key-separator", "x"], lines.as_bytes());
    assert_eq!(produced.status, Some(0), "{}", produced.stderr);
    let consumed = server.run(&["consume", "t", "--from", "beginning", "--exit-at-end"]).ok();
    assert_eq!(consumed.lines().count(), 5000);
    let said = server.start_lines.join("\n");
    assert!(said.contains("open files: 300: a shard takes 22 connections instead of 1024: run `ulimit -n"), "{said}");
    assert!(said.contains("locked memory: 64 KiB: rings of 64 entries instead of 1024: run `ulimit -l`"), "{said}");
    assert_eq!(server.stop().0, Some(0));
}

#[test]
fn too_few_open_files() {
    let dir = tempfile::tempdir().unwrap();
    run_with(limited("ulimit -n 40", dir.path(), &[&SERVE[..], &["1"]].concat()), b"").refuses(
        "corelog: this process may have 40 files open; with 1 shard it must be at least 144: run `ulimit -n 144` (or \
         LimitNOFILE=) before the server, better with 65536",
    );
    let checked = run_with(limited("ulimit -n 40", dir.path(), &["tune", "check"]), b"");
    assert_eq!(checked.status, Some(3), "{}", checked.text());
    assert!(checked.text().contains("this process may have 40 files open"), "{}", checked.text());
}

#[test]
fn a_port_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    serve(dir.path(), &["--listen", &address]).refuses(&format!(
        "corelog: cannot listen on {address}: another program uses this port; stop it, or give --listen"
    ));
}

#[test]
fn shards_listen_on_the_ports_that_are_given() {
    let dir = tempfile::tempdir().unwrap();
    let first = two_free_ports();
    let shard_port = first.to_string();
    let arguments = ["--listen", "127.0.0.1:0", "--smp", "2", "--shard-port", &shard_port];
    let server = Server::start_with(dir.path(), &arguments);
    let ports = format!("shards on ports {first}, {}", first + 1);
    assert_eq!(server.start_lines.last(), Some(&ports));
    server.run(&["topic", "create", "t", "--partitions", "2"]).ok();
    let state: serde_json::Value =
        serde_json::from_str(&server.run(&["topic", "describe", "t", "--json"]).ok()).unwrap();
    for partition in state["partitions"].as_array().unwrap() {
        assert_eq!(partition["port"].as_u64(), partition["shard"].as_u64().map(|shard| shard + u64::from(first)));
    }
    let other = tempfile::tempdir().unwrap();
    serve(other.path(), &["--listen", "127.0.0.1:0", "--shard-port", &(first + 1).to_string()]).refuses(&format!(
        "corelog: cannot listen on 127.0.0.1:{}: another program uses this port; stop it, or give --shard-port",
        first + 1
    ));
}

/// The first of two neighbouring ports that nobody uses, below those that the kernel gives away.
fn two_free_ports() -> u16 {
    let free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let from = 10_000 + (std::process::id() % 10_000) as u16;
    (from..from + 1000).step_by(2).find(|port| free(*port) && free(port + 1)).unwrap()
}

#[test]
fn a_second_server_on_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let ended = serve(dir.path(), &["--listen", "127.0.0.1:0"]);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert!(ended.stderr.contains(dir.path().to_str().unwrap()), "{}", ended.stderr);
    server.run(&["topic", "create", "t"]).ok();
}

#[test]
fn a_foreign_directory() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), "years of work").unwrap();
    let ended = serve(dir.path(), &["--listen", "127.0.0.1:0"]);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(dir.path().to_str().unwrap()), "{}", ended.stderr);
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["thesis.tex"], "a refusal leaves a foreign directory as it was");
}

#[test]
fn a_directory_that_is_none() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let ended = serve(file.path(), &["--listen", "127.0.0.1:0"]);
    assert_eq!(ended.status, Some(1), "{}", ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    assert!(ended.stderr.contains(file.path().to_str().unwrap()), "{}", ended.stderr);
}

#[test]
fn what_was_acknowledged_outlives_stop_and_kill_and_another_number_of_shards() {
    let dir = tempfile::tempdir().unwrap();
    let with = |smp| Server::start_with(dir.path(), &["--listen", "127.0.0.1:0", "--smp", smp]);
    let all = ["consume", "t", "--from", "beginning", "--exit-at-end"];
    let server = with("2");
    server.run(&["topic", "create", "t", "--partitions", "4"]).ok();
    let mut expected: Vec<String> = Vec::new();
    let mut write = |server: &Server, name: &str| {
        let lines: Vec<String> = (0..1000).map(|i| format!("{name} {i}")).collect();
        let input = lines.join("\n");
        assert_eq!(server.run_with(&["produce", "t"], input.as_bytes()).status, Some(0));
        expected.extend(lines);
        expected.sort();
        let mut found: Vec<String> = server.run(&all).ok().lines().map(str::to_owned).collect();
        found.sort();
        assert!(found == expected, "{name}");
    };
    write(&server, "first");
    assert_eq!(server.stop().0, Some(0));
    let server = with("1");
    write(&server, "after a stop, on one shard");
    server.kill();
    let server = with("3");
    write(&server, "after a kill, on three");
}

#[test]
fn a_directory_that_cannot_be_written_to() {
    let ended = serve(Path::new("/proc/corelog"), &["--listen", "127.0.0.1:0"]);
    let sentence = "corelog: cannot create data directory /proc/corelog: No such file or directory (os error 2)";
    ended.refuses(sentence);
}

#[test]
fn a_directory_of_a_newer_program() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("node"), "format = 99\n").unwrap();
    serve(dir.path(), &["--listen", "127.0.0.1:0"]).refuses(&format!(
        "corelog: cannot use data directory {}: it has format 99, this program knows formats up to 1: use a newer corelog",
        dir.path().display()
    ));
}

#[test]
fn a_disk_full_to_its_reserve_refuses_records_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let all = ["consume", "t", "--from", "beginning", "--exit-at-end"];
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t"]).ok();
    assert_eq!(server.run_with(&["produce", "t"], b"before\n").status, Some(0));
    server.kill();
    let server = Server::start_with(dir.path(), &["--listen", "127.0.0.1:0", "--smp", "1", "--disk-reserve", "1000T"]);
    let ended = server.run_with(&["produce", "t", "--timeout", "1s"], b"more\n");
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains("storage_full (301)"), "{}", ended.stderr);
    assert!(ended.stderr.trim_end().ends_with("; 0 records acknowledged, 1 not written"), "{}", ended.stderr);
    assert_eq!(server.run(&all).ok(), "before\n");
    server.run(&["topic", "delete", "t"]).ok();
}

#[test]
fn retention_shows_in_the_first_offset_and_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--smp", "1", "--retention-check-interval", "50ms"];
    let server = Server::start_with(dir.path(), &arguments);
    let create = ["topic", "create", "t", "--config", "segment.bytes=65536", "--config", "retention.bytes=65536"];
    server.run(&create).ok();
    let lines = "0123456789abcdef0123456789abcdef\n".repeat(10_000);
    assert_eq!(server.run_with(&["produce", "t", "--batch-bytes", "4KiB"], lines.as_bytes()).status, Some(0));
    let begun = Instant::now();
    let first = loop {
        let state = server.run(&["topic", "describe", "t", "--json"]).ok();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let partition = &state["partitions"][0];
        assert_eq!(partition["next"], 10_000);
        // Whole segments go: what stays is less than two of them.
        if partition["bytes"].as_u64().unwrap() <= 2 * 65536 {
            break partition["first"].as_i64().unwrap();
        }
        assert!(begun.elapsed() < PATIENCE, "{state}");
    };
    assert!(first > 0);
    let ended = server.run(&["consume", "t", "--from", "0", "-n", "1"]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.contains(&format!("it holds {first} to 10000")), "{}", ended.stderr);
    let kept = server.run(&["consume", "t", "--from", "beginning", "--exit-at-end"]).ok();
    assert_eq!(kept.lines().count() as i64, 10_000 - first);
}
