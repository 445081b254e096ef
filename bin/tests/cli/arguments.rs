//! What is decided before a server is asked.

use crate::run::{corelog, run, run_with};
use std::path::Path;

fn serve_with_file(text: &str) -> crate::run::Ended {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("corelog.toml"), text).unwrap();
    let mut command = corelog(&["serve", "--config", "corelog.toml"]);
    command.current_dir(dir.path());
    run_with(command, b"")
}

#[test]
fn every_command_has_help_with_an_example() {
    let commands: &[&[&str]] = &[
        &[],
        &["serve"],
        &["topic"],
        &["topic", "create"],
        &["topic", "list"],
        &["topic", "describe"],
        &["topic", "alter"],
        &["topic", "delete"],
        &["topic", "delete-records"],
        &["produce"],
        &["consume"],
        &["doctor"],
        &["dump-log"],
        &["tune"],
        &["tune", "check"],
        &["bench"],
    ];
    for command in commands {
        let help = run(&[command, &["--help"][..]].concat()).ok();
        assert!(help.contains("Example") && help.contains("  corelog "), "{command:?}: {help}");
    }
}

#[test]
fn what_cannot_be_parsed_exits_2() {
    let wrong: &[&[&str]] = &[
        &[],
        &["nonsense"],
        &["produce"],
        &["produce", "t", "--linger", "5"],
        &["produce", "t", "--batch-bytes", "1KB"],
        &["produce", "t", "--key-separator", ""],
        &["produce", "t", "--compression", "brotli"],
        &["consume", "t", "--from", "yesterday"],
        &["consume", "t", "--format", "%q"],
        &["consume", "t", "--json", "--format", "%s"],
        &["consume", "t", "--group", "g", "-p", "1"],
        &["produce", "t", "--exactly-once", "--resend-unknown"],
        &["topic", "create", "t", "--partitions", "0"],
        &["topic", "create", "t", "--config", "retention.ms"],
        &["topic", "create", "t", "--config", "=1"],
        &["topic", "alter", "t"],
        &["topic", "delete-records", "t"],
        &["topic", "delete-records", "t", "--before", "-1"],
        &["topic", "delete-records", "t", "--before", "yesterday"],
    ];
    for arguments in wrong {
        let ended = run(arguments);
        assert_eq!(ended.status, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(!ended.stderr.is_empty());
    }
}

#[test]
fn a_value_that_cannot_be_is_named_with_what_is_allowed() {
    let wrong: &[(&[&str], &str, &str)] = &[
        (&["topic", "create", "t", "--partitions", "0"], "--partitions <N>", "a number of partitions, from 1"),
        (&["topic", "alter", "t", "--partitions", "-2"], "--partitions <N>", "a number of partitions, from 1"),
        (&["topic", "delete-records", "t", "--before", "-1"], "--before <OFFSET>", "an offset from 0, or end"),
        (&["produce", "t", "-p", "x"], "--partition <N>", "the number of a partition, from 0"),
        (&["produce", "t", "--inflight", "1025"], "--inflight <N>", "a number from 1 to 1024"),
        (&["consume", "t", "-p", "-1"], "--partition <N>", "the number of a partition, from 0"),
        (&["consume", "t", "-n", "ten"], "--count <N>", "a number of records"),
        (&["consume", "t", "--from", "-5"], "--from <WHERE>", "beginning, end, an offset, a time like"),
    ];
    for (arguments, name, allowed) in wrong {
        let ended = run(arguments);
        let value = arguments.last().unwrap();
        assert_eq!(ended.status, Some(2), "{arguments:?}: {}", ended.stderr);
        assert!(
            ended.stderr.starts_with(&format!("error: invalid value '{value}' for '{name}': ")),
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(&format!("it must be {allowed}")), "{}", ended.stderr);
    }
}

#[test]
fn nothing_listens_there() {
    // Bound but not listening: nobody else can have this port meanwhile.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    drop(taken);
    let ended = run(&["topic", "list", "-b", &address]);
    assert_eq!(ended.status, Some(1));
    assert!(ended.stderr.starts_with(&format!("corelog: cannot reach {address}: ")), "{}", ended.stderr);
    assert!(ended.stderr.trim_end().ends_with("; is `corelog serve` running there?"), "{}", ended.stderr);
}

#[test]
fn a_typo_in_the_settings_file_names_the_nearest_setting() {
    serve_with_file("# mine\nsmp = 1\ndata_dir = \"x\"\n")
        .fails(2, "corelog: corelog.toml line 3: there is no setting `data_dir`; did you mean `data-dir`?");
}

#[test]
fn a_bad_value_names_setting_value_source_and_what_is_allowed() {
    serve_with_file("listen = \"7092\"\n").fails(
        2,
        "corelog: listen = `7092` (corelog.toml line 1) is not allowed: it must be HOST:PORT, like 127.0.0.1:7092",
    );
    run(&["serve", "--smp", "many"])
        .fails(2, "corelog: smp = `many` (--smp) is not allowed: it must be auto or a number of shards from 1 to 256");
    let mut command = corelog(&["serve"]);
    command.env("CORELOG_MEMORY", "lots");
    run_with(command, b"").fails(
        2,
        "corelog: memory = `lots` (CORELOG_MEMORY) is not allowed: it must be auto or a size like 512MiB or 4G",
    );
}

#[test]
fn a_settings_file_that_cannot_be_read_is_named() {
    run(&["serve", "--config", "/nonexistent/corelog.toml"]).fails(
        2,
        "corelog: cannot read the settings file /nonexistent/corelog.toml: No such file or directory (os error 2)",
    );
}

#[test]
fn too_little_memory_and_missing_cores_are_refused() {
    let ended = run(&["serve", "--memory", "64MiB", "--smp", "2"]);
    assert_eq!(ended.status, Some(2));
    let sentence = "corelog: memory is 64 MiB; with 2 shards it must be at least ";
    assert!(ended.stderr.starts_with(sentence) && ended.stderr.lines().count() == 1, "{}", ended.stderr);
    let ended = run(&["serve", "--cpuset", "8000"]);
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.starts_with("corelog: cpuset names core 8000, but this process may run only on "));
}

#[test]
fn only_loopback_without_insecure() {
    run(&["serve", "--listen", "0.0.0.0:0"]).fails(
        2,
        "corelog: listen = `0.0.0.0:0` (--listen) can be reached from other machines, and there is no authentication \
         yet: listen on 127.0.0.1, or say --insecure",
    );
}

#[test]
fn shards_that_would_have_no_port_of_their_own() {
    let serve = |shard_port| run(&["serve", "--smp", "1", "--listen", "127.0.0.1:7092", "--shard-port", shard_port]);
    serve("7092").fails(
        2,
        "corelog: shard-port = `7092` (--shard-port) is not allowed: it must be such that no shard has the port of \
         listen: shard 0 would listen on 7092",
    );
    serve("70000").fails(
        2,
        "corelog: shard-port = `70000` (--shard-port) is not allowed: it must be auto or a port from 1 to 65535",
    );
    let mut command = corelog(&["serve", "--smp", "2"]);
    command.env("CORELOG_SHARD_PORT", "65535");
    run_with(command, b"").fails(
        2,
        "corelog: shard-port = `65535` (CORELOG_SHARD_PORT) is not allowed: it must be at most 65534, because shard N \
         of 2 shards listens on that port + N",
    );
}

#[test]
fn print_config_shows_what_is_in_force_and_why() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("corelog.toml"), "memory = \"600MiB\"\ncpuset = \"0\"\n").unwrap();
    let mut command = corelog(&["serve", "--config", "corelog.toml", "--listen", "127.0.0.1:0", "--print-config"]);
    command.current_dir(dir.path()).env("CORELOG_SMP", "1").env_remove("CORELOG_KAFKA_LISTEN");
    let expected = r#"data-dir = "./corelog-data"                  # default
listen = "127.0.0.1:0"                       # --listen
shard-port = "auto"                          # default
kafka-listen = "127.0.0.1:9092"              # default
kafka-advertise = "auto"                     # default
admin-listen = "off"                         # default
smp = 1                                      # CORELOG_SMP
cpuset = "0"                                 # corelog.toml line 2
memory = "600MiB"                            # corelog.toml line 1
journal-bytes = "128MiB"                     # default
produce-rate-max = "off"                     # default
disk-reserve = "512MiB"                      # default
retention-check-interval = "5m"              # default
compaction-interval = "15s"                  # default
producer-expiration = "1d"                   # default
fetch-path = "direct"                        # default: auto
spin = "50us"                                # default
insecure = false                             # default
auto.create.topics.enable = true             # default
connections.max.idle.ms = 600000             # default
group.consumer.heartbeat.interval.ms = 5000  # default
group.consumer.session.timeout.ms = 45000    # default
group.initial.rebalance.delay.ms = 3000      # default
group.max.session.timeout.ms = 1800000       # default
group.max.size = 10000                       # default
group.min.session.timeout.ms = 6000          # default
num.partitions = 1                           # default
offset.metadata.max.bytes = 4096             # default
offsets.retention.minutes = 10080            # default
offsets.topic.num.partitions = 50            # default
"#;
    assert_eq!(run_with(command, b"").ok(), expected);
    assert!(!Path::new(&dir.path().join("corelog-data")).exists(), "showing settings makes nothing");
}

#[test]
fn tune_check_shows_a_verdict_for_every_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let ended = run(&["tune", "check", "--data-dir", path, "--json"]);
    let checks: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let checks = checks.as_array().unwrap();
    let cannot = checks.iter().any(|check| check["verdict"] == "cannot");
    assert_eq!(ended.status, Some(if cannot { 3 } else { 0 }));
    for check in checks {
        let to_do = check["what_to_do"].as_str().unwrap();
        assert_eq!(check["verdict"] == "ok", to_do.is_empty(), "{check}");
    }
    let table = run(&["tune", "check", "--data-dir", path]);
    let table = table.text();
    assert!(table.starts_with("CHECK"), "{table}");
    assert_eq!(table.lines().count(), checks.len() + 1);
}

#[test]
fn a_machine_that_cannot_run_it_exits_3() {
    let ended = run(&["tune", "check", "--memory", "1000T"]);
    assert_eq!(ended.status, Some(3), "{}", ended.text());
    assert!(ended.text().contains("lower --memory, or raise the memory limit of the cgroup"));
}
