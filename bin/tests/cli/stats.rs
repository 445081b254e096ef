//! `stats` and `/metrics`: what a real server counts, as an operator sees it.

use crate::run::Server;
use std::io::{Read, Write};
use std::net::TcpStream;

fn loaded(more: &[&str]) -> (tempfile::TempDir, Server) {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start_with(dir.path(), &[&["--listen", "127.0.0.1:0", "--smp", "2"][..], more].concat());
    server.run(&["topic", "create", "t", "--partitions", "4"]).ok();
    let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
    assert_eq!(server.run_with(&["produce", "t"], lines.as_bytes()).status, Some(0));
    (dir, server)
}

#[test]
fn every_shard_has_a_column_and_every_stage_a_line() {
    let (_dir, server) = loaded(&[]);
    let text = server.run(&["stats"]).ok();
    assert!(text.starts_with("COUNT"), "{text}");
    let row = |name: &str| -> Vec<String> {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(name));
        line.unwrap_or_else(|| panic!("{name} in {text}")).split_whitespace().map(str::to_owned).collect()
    };
    let records = row("appended_records");
    assert_eq!(records.len(), 4, "{records:?}");
    // And the record of the topic itself.
    assert_eq!(records[3], "1001");
    for stage in ["receive", "validate", "queue", "write", "flush", "send"] {
        assert_eq!(row(stage).len(), 8, "{stage}");
    }
    assert_ne!(row("flush")[5], "0.0");
    let one: serde_json::Value = serde_json::from_str(&server.run(&["stats", "--json", "--shard", "1"]).ok()).unwrap();
    assert_eq!((&one["shards"][0]["shard"], one["shards"].as_array().unwrap().len()), (&1.into(), 1));
    server
        .run(&["stats", "--shard", "2"])
        .fails(1, "corelog: stats was refused: invalid_request (200): there is no shard 2: the node has 2");
}

#[test]
fn rates_come_a_line_an_interval() {
    let (_dir, server) = loaded(&[]);
    let text = server.run(&["stats", "--every", "20ms", "--count", "3"]).ok();
    assert_eq!(text.lines().count(), 4, "{text}");
    let lines = server.run(&["stats", "--every", "20ms", "--count", "2", "--json"]).ok();
    for line in lines.lines() {
        let rates: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(rates["records_per_second"], 0.0, "nobody writes");
        assert!(rates["seconds"].as_f64().unwrap() >= 0.02);
    }
    let ended = server.run(&["stats", "--every", "1ms"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.contains("it must be a duration from 10ms to 1d"), "{}", ended.stderr);
}

#[test]
fn metrics_are_served_where_the_start_lines_say() {
    let (_dir, server) = loaded(&["--admin-listen", "127.0.0.1:0"]);
    let said = server.start_lines.iter().find_map(|line| line.strip_prefix("metrics at http://"));
    let address = said.and_then(|url| url.strip_suffix("/metrics")).unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\ncorelog_appended_records_total{shard=\"1\"} "), "{answer}");
}
