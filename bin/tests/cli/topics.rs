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
        .fails(1, "corelog: there is no topic clicks; `corelog topic list` shows what there is");
}

#[test]
fn partitions_and_settings_are_altered_by_one_command() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t"]).ok();
    let alter = |partitions, setting| {
        server.run(&["topic", "alter", "t", "--partitions", partitions, "--config", setting, "--unset", "segment.ms"])
    };
    let state = || -> (usize, String) {
        let state = server.run(&["topic", "describe", "t", "--json"]).ok();
        let state: serde_json::Value = serde_json::from_str(&state).unwrap();
        let value = state["settings"]["retention.ms"]["value"].as_str().unwrap().to_owned();
        (state["partitions"].as_array().unwrap().len(), value)
    };
    assert_eq!(alter("3", "retention.ms=1000").ok(), "altered topic t with 3 partitions\n");
    assert_eq!(state(), (3, "1000".to_owned()));
    // The settings come first, so that a refusal of theirs leaves all as it was.
    assert_eq!(alter("4", "retention.ms=soon").status, Some(1));
    assert_eq!(state(), (3, "1000".to_owned()));
    let ended = alter("2", "retention.ms=2000");
    assert_eq!((ended.status, ended.text()), (Some(1), ""));
    assert!(ended.stderr.contains("invalid_partitions (215)"), "{}", ended.stderr);
    assert!(ended.stderr.trim_end().ends_with("; the settings were changed before that"), "{}", ended.stderr);
    assert_eq!(state(), (3, "2000".to_owned()));
}

#[test]
fn records_are_deleted_up_to_an_offset_or_all() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    server.run(&["topic", "create", "t", "--partitions", "2"]).ok();
    for (partition, lines) in [("0", &b"a\nb\nc\n"[..]), ("1", b"x\n")] {
        assert_eq!(server.run_with(&["produce", "t", "-p", partition], lines).status, Some(0));
    }
    let delete = |arguments: &[&str]| server.run(&[&["topic", "delete-records", "t"][..], arguments].concat());
    let left = |partition| server.run(&["consume", "t", "--from", "beginning", "--exit-at-end", "-p", partition]).ok();
    assert_eq!(delete(&["--before", "2", "-p", "0"]).ok(), "PARTITION  FIRST\n        0      2\n");
    assert_eq!((left("0"), left("1")), ("c\n".to_owned(), "x\n".to_owned()));
    delete(&["--before", "3"]).fails(
        1,
        "corelog: partition 1 holds offsets 0 up to 1, so that --before 3 is beyond its end; nothing was deleted",
    );
    delete(&["--before", "0", "-p", "7"]).fails(1, "corelog: topic t has no partition 7: it has 2, numbered from 0");
    assert_eq!((left("0"), left("1")), ("c\n".to_owned(), "x\n".to_owned()));
    let firsts: serde_json::Value = serde_json::from_str(&delete(&["--before", "end", "--json"]).ok()).unwrap();
    let expected = serde_json::json!({
        "name": "t",
        "partitions": [{ "partition": 0, "first": 3 }, { "partition": 1, "first": 1 }],
    });
    assert_eq!(firsts, expected);
    assert_eq!((left("0"), left("1")), (String::new(), String::new()));
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
        (&["describe", "nosuch"], "there is no topic nosuch; `corelog topic list`"),
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
    for twice in [&["--config", "retention.ms=2"][..], &["--unset", "retention.ms"]] {
        let once = ["topic", "alter", "clicks", "--config", "retention.ms=1"];
        server
            .run(&[&once[..], twice].concat())
            .fails(2, "corelog: retention.ms is given more than once; give it one value, or --unset it");
    }
    assert!(server.run(&["topic", "list"]).ok().lines().count() == 2, "a refusal changes nothing");
}
