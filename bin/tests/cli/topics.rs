//! Topics by the command line.

use crate::run::Server;

#[test]
fn create_list_describe_alter_delete() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    assert_eq!(server.run(&["topic", "list"]).ok(), "TOPIC  PARTITIONS  ID\n");

    let created = server.run(&["topic", "create", "clicks", "--partitions", "3", "--config", "retention.ms=1000"]);
    assert_eq!(created.ok(), "created topic clicks with 3 partitions\n");
    assert_eq!(server.run(&["topic", "create", "single"]).ok(), "created topic single with 1 partition\n");
    let listed: serde_json::Value = serde_json::from_str(&server.run(&["topic", "list", "--json"]).ok()).unwrap();
    let names: Vec<_> = listed.as_array().unwrap().iter().map(|topic| (&topic["name"], &topic["partitions"])).collect();
    assert_eq!(format!("{names:?}"), r#"[(String("clicks"), Number(3)), (String("single"), Number(1))]"#);

    let described = server.run(&["topic", "describe", "clicks"]).ok();
    let mut lines = described.lines();
    assert!(lines.next().unwrap().starts_with("topic clicks, id "));
    assert!(described.contains("\n  retention.ms = 1000\n"), "{described}");
    assert!(described.contains("\n  durability = flush  (default)\n"), "{described}");
    assert!(
        described.contains("\nPARTITION  SHARD   PORT  FIRST  NEXT  BYTES  SEGMENTS  CROSSINGS  NOTE\n"),
        "{described}"
    );
    assert_eq!(described.lines().rev().take_while(|line| !line.starts_with("PARTITION")).count(), 3);

    let more = ["topic", "alter", "clicks", "--partitions", "4"];
    assert_eq!(server.run(&more).ok(), "altered topic clicks with 4 partitions\n");
    let settings = ["topic", "alter", "clicks", "--unset", "retention.ms", "--config", "segment.bytes=65536"];
    assert_eq!(server.run(&settings).ok(), "altered topic clicks with 4 partitions\n");
    let state: serde_json::Value =
        serde_json::from_str(&server.run(&["topic", "describe", "clicks", "--json"]).ok()).unwrap();
    assert_eq!(state["partitions"].as_array().unwrap().len(), 4);
    assert_eq!(state["settings"]["segment.bytes"], serde_json::json!({ "value": "65536", "default": false }));
    assert_eq!(state["settings"]["retention.ms"]["default"], true);

    assert_eq!(server.run(&["topic", "delete", "clicks"]).ok(), "deleted topic clicks with 4 partitions\n");
    server
        .run(&["topic", "describe", "clicks"])
        .fails(1, "corelog: describe_topic was refused: unknown_topic (210): there is no topic clicks");
}

#[test]
fn what_the_server_refuses_is_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "clicks"]).ok();
    let cases: &[(&[&str], &str)] = &[
        (&["create", "clicks"], "topic_exists (212)"),
        (&["create", "no spaces"], "invalid_topic_name (213)"),
        (&["create", ".."], "invalid_topic_name (213)"),
        (&["create", "t", "--partitions", "100001"], "invalid_partitions (215)"),
        (&["create", "t", "--config", "retention.msec=1"], "did you mean \"retention.ms\"?"),
        (&["create", "t", "--config", "durability=maybe"], "it must be flush, write or memory"),
        (&["create", "t", "--config", "min.insync.replicas=2"], "replication is not available yet"),
        (&["alter", "clicks", "--partitions", "1"], "invalid_partitions (215)"),
        (&["alter", "nosuch", "--partitions", "2"], "unknown_topic (210)"),
        (&["delete", "nosuch"], "unknown_topic (210)"),
    ];
    for (arguments, words) in cases {
        let ended = server.run(&[&["topic"][..], arguments].concat());
        assert_eq!((ended.status, ended.text()), (Some(1), ""), "{arguments:?}");
        assert!(
            ended.stderr.starts_with("corelog: ") && ended.stderr.contains(words),
            "{arguments:?}: {}",
            ended.stderr
        );
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    }
    assert!(server.run(&["topic", "list"]).ok().lines().count() == 2, "a refusal changes nothing");
}
