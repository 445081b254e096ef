//! What shards count is told by any of them, and to Prometheus.

use crate::harness::*;
use corelog_wire::*;
use std::collections::BTreeMap;

/// Counts and, of each stage, how many appends passed it.
async fn stats(wire: &mut crate::harness::Wire, shard: u16) -> (BTreeMap<String, u64>, BTreeMap<String, u64>) {
    let answer = wire.call(Operation::Stats, 0, &StatsRequest { shard }).await;
    let Response::Stats(stats) = answer.response() else { panic!("{answer:?}") };
    assert_eq!(stats.shard, shard);
    let counts = stats.counts.iter().map(|count| (count.name.as_str().to_owned(), count.value)).collect();
    let passed = |stage: StageTimes<'_>| stage.buckets.iter().map(|bucket| bucket.count).sum();
    (counts, stats.stages.iter().map(|stage| (stage.name.as_str().to_owned(), passed(stage))).collect())
}

#[test]
fn what_was_appended_and_read_is_counted_and_every_stage_was_passed() {
    run_default(|client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        let (before, _) = stats(&mut wire, 0).await;
        for _ in 0..10 {
            wire.put(handles[0], &["one", "two"]).await;
        }
        let fetched = wire.fetch(handles[0], 0, 0).await;
        let (after, stages) = stats(&mut wire, 0).await;
        let more = |name: &str| after[name] - before[name];
        assert_eq!((more("appends"), more("appended_records")), (10, 20));
        assert_eq!(more("appended_bytes"), 10 * batch(&["one", "two"]).len() as u64);
        assert_eq!(more("read_bytes"), fetched.batches().bytes.len() as u64);
        assert_eq!((more("requests"), more("refusals")), (12, 0), "and the one that asked");
        assert!((1..=10).contains(&more("commits")) && more("flushes") >= more("commits"), "{after:?}");
        assert_eq!((after["connections"], after["fenced_partitions"]), (1, 0));
        assert!(after["journal_bytes"] >= 4096 * more("commits"));
        // The metadata log has appends too, which came by no connection.
        for (stage, passed) in &stages {
            let by_connection = stage == "receive" || stage == "send";
            assert!(if by_connection { *passed == 10 } else { *passed >= 10 }, "{stage} {passed}");
        }
        assert_eq!(stages.len(), 6);
        assert_eq!(wire.try_open("nowhere", 0).await.status(), Status::UnknownTopic);
        assert_eq!(stats(&mut wire, 0).await.0["refusals"] - after["refusals"], 1);
    });
}

#[test]
fn the_operations_page_has_every_count_and_stage() {
    run_default(|client| async move {
        let page = include_str!("../../../docs/operations.md");
        let (_, section) = page.split_once("\n## What it counts\n").unwrap();
        let section = section.split("\n## ").next().unwrap();
        let mut wire = client.connect().await;
        let (counts, stages) = stats(&mut wire, 0).await;
        for name in counts.keys().chain(stages.keys()) {
            let told = section.lines().filter(|line| line.starts_with('|') && line.contains(&format!("`{name}`")));
            assert!(told.count() > 0, "docs/operations.md lacks {name}");
        }
    });
}

#[test]
fn any_shard_tells_what_another_has_counted() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let (mut first, mut second) = (client.connect_to(0).await, client.connect_to(1).await);
        second.create("t", 1, &[]).await;
        for wire in [&mut first, &mut second] {
            let mut appends = 0;
            for shard in 0..2 {
                appends += stats(wire, shard).await.0["appends"];
            }
            assert_eq!(appends, 1, "the topic's record in the metadata log");
            let refused = wire.call(Operation::Stats, 0, &StatsRequest { shard: 2 }).await;
            assert_eq!(refused.status(), Status::InvalidRequest);
            assert_eq!(refused.failure().message.as_str(), "there is no shard 2: the node has 2");
        }
    });
}

#[test]
fn prometheus_gets_a_line_for_each_shard() {
    run(Setup { shards: 2, ..Setup::default() }, |client| async move {
        let (mut wire, handles) = client.with_topic("t", 1).await;
        wire.put(handles[0], &["one"]).await;
        let answer = client.http("GET /metrics HTTP/1.1\r\nHost: here\r\n\r\n").await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{head}");
        let value = |name: &str| -> u64 {
            let lines = body.lines().filter(|line| line.starts_with(name));
            lines.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
        };
        assert_eq!(value("corelog_appended_records_total{"), 2, "one of them the metadata log's");
        assert_eq!(body.matches("\ncorelog_connections{shard=").count(), 2);
        assert!(value("corelog_append_stage_seconds_count{shard=\"0\",stage=\"flush\"}") > 0, "{body}");
    });
}

#[test]
fn what_is_no_request_for_metrics_is_answered_and_harms_nobody() {
    run_default(|client| async move {
        for (request, status) in [
            ("GET / HTTP/1.1\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405"),
            ("nonsense\r\n\r\n", "400"),
            (&"x".repeat(10_000), "431"),
        ] {
            let answer = client.http(request).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        }
        // Who never ends his request, nor his connection, keeps his place for a time only.
        let silent = |_| {
            let (reactor, client) = (client.reactor.clone(), client.clone());
            reactor.spawn(async move { client.http("GET /met").await })
        };
        let waiting: Vec<_> = (0..20).map(silent).collect();
        let begun = client.reactor.now();
        assert!(client.http("GET /metrics HTTP/1.1\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
        assert!(client.reactor.now().since(begun) <= std::time::Duration::from_secs(31));
        for answer in waiting {
            assert_eq!(answer.await, "");
        }
        client.assert_server_is_well().await;
    });
}
