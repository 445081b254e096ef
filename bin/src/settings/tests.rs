use super::gather::*;
use super::kafka::KafkaSettings;
use super::server::Settings;
use super::table::all;
use corelog_engine::limits;
use corelog_engine::shard::GroupSettings;
use std::path::PathBuf;
use std::time::Duration;

fn gather(flags: &[(&str, &str)], environment: &[(&str, &str)], file: &str) -> Result<Given, SettingsError> {
    let answer = |from: &[(&str, &str)], name: &str| {
        from.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Given::gather(|name| answer(flags, name), |name| answer(environment, name), Some(("corelog.toml", file)))
}

fn error(flags: &[(&str, &str)], file: &str) -> String {
    gather(flags, &[], file).and_then(|given| given.settings()).unwrap_err().to_string()
}

#[test]
fn the_operations_page_has_every_setting() {
    let page = include_str!("../../../docs/operations.md");
    for setting in all() {
        let row = format!("\n| `{}` | ", setting.name);
        assert!(page.contains(&row), "docs/operations.md lacks {}", setting.name);
    }
}

#[test]
fn defaults() {
    let settings = gather(&[], &[], "").unwrap().settings().unwrap();
    let expected = Settings {
        data_dir: "./corelog-data".into(),
        listen: "127.0.0.1:7092".parse().unwrap(),
        shard_port: None,
        kafka_listen: Some("127.0.0.1:9092".parse().unwrap()),
        kafka_advertise: None,
        admin_listen: None,
        smp: None,
        cpuset: None,
        memory_bytes: None,
        journal_bytes: limits::JOURNAL_BYTES_DEFAULT,
        produce_rate_max: None,
        disk_reserve_bytes: 512 << 20,
        retention_check_interval: Duration::from_secs(300),
        compaction_interval: Duration::from_secs(15),
        producer_expiration: Duration::from_secs(86_400),
        fetch_path: None,
        spin: Duration::from_micros(50),
        insecure: false,
        kafka: KafkaSettings {
            creates_topics: true,
            partitions: 1,
            idle_time: Duration::from_secs(600),
            groups: GroupSettings::default(),
        },
    };
    assert_eq!(settings, expected);
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let file = "smp = 2\nmemory = \"1GiB\"\n\ndata-dir = \"/file\"\n";
    let environment = [("CORELOG_MEMORY", "2G"), ("CORELOG_DATA_DIR", "/environment"), ("CORELOG_LISTEN", "")];
    let given = gather(&[("data-dir", "/flag")], &environment, file).unwrap();
    let settings = given.settings().unwrap();
    assert_eq!(settings.data_dir, PathBuf::from("/flag"));
    assert_eq!((settings.memory_bytes, settings.smp), (Some(2 << 30), Some(2)));
    let printed = given.print(&[("cpuset", "0-1".into())]);
    let expected = r#"
data-dir = "/flag"                           # --data-dir
listen = "127.0.0.1:7092"                    # default
shard-port = "auto"                          # default
kafka-listen = "127.0.0.1:9092"              # default
kafka-advertise = "auto"                     # default
admin-listen = "off"                         # default
smp = 2                                      # corelog.toml line 1
cpuset = "0-1"                               # default: auto
memory = "2G"                                # CORELOG_MEMORY
journal-bytes = "128MiB"                     # default
produce-rate-max = "off"                     # default
disk-reserve = "512MiB"                      # default
retention-check-interval = "5m"              # default
compaction-interval = "15s"                  # default
producer-expiration = "1d"                   # default
fetch-path = "auto"                          # default
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
    assert_eq!(printed, expected.trim_start());
    let again = gather(&[], &[], &printed).unwrap().settings().unwrap();
    assert_eq!(again.data_dir, settings.data_dir, "what is printed is a settings file");
}

#[test]
fn a_slip_in_the_environment_is_remarked_on() {
    let given = ["CORELOG_SMPP", "CORELOG_SMP", "CORELOG_BOOTSTRAP", "CORELOG_SEED", "CORELOGS_SMP", "HOME"];
    let remarks = remarks_on_variables(given.map(String::from).into_iter());
    assert_eq!(remarks, ["CORELOG_SMPP in the environment is no setting and has no effect; did you mean CORELOG_SMP?"]);
}

#[test]
fn kafkas_names_are_settings_too() {
    let file = "smp = 1\ngroup.max.session.timeout.ms = 60_000\nnum.partitions = 3\n\n[group]\nmax.size = 7\n";
    let text = error(&[], file);
    assert!(text.starts_with("corelog.toml line 5 is not TOML: "), "a table cannot be opened twice: {text}");
    let file = file.replace("[group]\nmax.size", "group.max.size").replace("60_000", "60000");
    let environment = [("CORELOG_AUTO_CREATE_TOPICS_ENABLE", "false")];
    let given = gather(&[("offsets.retention.minutes", "2")], &environment, &file).unwrap();
    let kafka = given.settings().unwrap().kafka;
    assert!(!kafka.creates_topics);
    assert_eq!((kafka.partitions, kafka.groups.members_max), (3, 7));
    assert_eq!(kafka.groups.session_max, Duration::from_secs(60));
    assert_eq!(kafka.groups.offsets_retention, Duration::from_secs(120));
    let printed = given.print(&[]);
    for line in ["offsets.retention.minutes = 2 ", "group.max.size = 7 ", "auto.create.topics.enable = false "] {
        assert!(printed.contains(line), "{line}: {printed}");
    }
    assert_eq!(gather(&[], &[], &printed).unwrap().settings().unwrap().kafka, kafka);
    let shown = given.told(&given.settings().unwrap(), &corelog_net::limits::Limits::default()).shown;
    let told = |key: &str| shown.iter().find(|shown| shown.key == key).map(|s| (s.value.as_str(), s.is_default));
    assert_eq!(told("num.partitions"), Some(("3", false)));
    assert_eq!(told("group.min.session.timeout.ms"), Some(("6000", true)));
    assert_eq!(told("message.max.bytes"), Some(("1048588", true)));
    assert!(shown.is_sorted_by_key(|shown| shown.key));
}

#[test]
fn a_wrong_value_of_kafkas_is_refused() {
    let refused = "(corelog.toml line 1) is not allowed: it must be";
    for (file, text) in [
        ("num.partitions = 0", format!("num.partitions = `0` {refused} a number from 1 to 10000")),
        ("auto.create.topics.enable = 1", format!("auto.create.topics.enable = `1` {refused} true or false, without quotes")),
        (
            "group.consumer.heartbeat.interval.ms = 45000",
            format!("group.consumer.heartbeat.interval.ms = `45000` {refused} less than 45000, which is group.consumer.session.timeout.ms"),
        ),
        (
            "group.min.session.timeout.ms = 1800001",
            format!("group.min.session.timeout.ms = `1800001` {refused} at most 1800000, which is group.max.session.timeout.ms"),
        ),
        ("num.partition = 1", "corelog.toml line 1: there is no setting `num.partition`; did you mean `num.partitions`?".to_owned()),
        (
            "log.retention.ms = 1",
            "log.retention.ms (corelog.toml line 1) is not a setting of the server here: set `retention.ms` of the topics that are to have it".to_owned(),
        ),
        ("[group]", "corelog.toml line 1: there is no setting `group`; did you mean `smp`?".to_owned()),
    ] {
        assert_eq!(error(&[], file), text);
    }
    let set = |given: &str| parse_set(&[given.to_owned()]).map_err(|error| error.to_string());
    assert_eq!(set("num.partitions=3"), Ok([("num.partitions", "3".to_owned())].into()));
    assert_eq!(set("num.partitions").unwrap_err(), "--set num.partitions: it is NAME=VALUE, like num.partitions=3");
    assert_eq!(
        set("num.partition=3").unwrap_err(),
        "there is no setting `num.partition` (--set); did you mean `num.partitions`?"
    );
    assert!(
        set("log.segment.bytes=3")
            .unwrap_err()
            .contains("(--set) is not a setting of the server here: set `segment.bytes`")
    );
}

#[test]
fn a_typo_names_the_nearest_setting() {
    for (typo, meant) in [("data_dir", "data-dir"), ("lisen", "listen"), ("CPUSET", "cpuset"), ("memroy", "memory")] {
        let text = error(&[], &format!("# mine\n{typo} = \"x\"\n"));
        assert_eq!(text, format!("corelog.toml line 2: there is no setting `{typo}`; did you mean `{meant}`?"));
    }
    assert!(error(&[], "[server]\nsmp = 2\n").contains("there is no setting `server.smp`"));
}

#[test]
fn a_bad_value_names_setting_value_source_and_what_is_allowed() {
    let cases = [
        (
            "smp = 0",
            "smp = `0` (corelog.toml line 1) is not allowed: it must be auto or a number of shards from 1 to 256",
        ),
        ("smp = true", "smp = `true` (corelog.toml line 1) is not allowed: it must be a number"),
        (
            "insecure = \"yes\"",
            "insecure = `\"yes\"` (corelog.toml line 1) is not allowed: it must be true or false, without quotes",
        ),
        (
            "journal-bytes = 1024",
            "journal-bytes = `1024` (corelog.toml line 1) is not allowed: it must be a size from 32MiB to 64GiB in steps of 4096",
        ),
        (
            "retention-check-interval = \"0\"",
            "retention-check-interval = `0` (corelog.toml line 1) is not allowed: it must be a duration from 1ms, like 5m",
        ),
        (
            "produce-rate-max = \"1k\"",
            "produce-rate-max = `1k` (corelog.toml line 1) is not allowed: it must be off or a size from 2MiB, like 32MiB",
        ),
        (
            "fetch-path = \"sendfile\"",
            "fetch-path = `sendfile` (corelog.toml line 1) is not allowed: it must be auto, direct or splice",
        ),
        (
            "memory = false",
            "memory = `false` (corelog.toml line 1) is not allowed: it must be a number of bytes, or a size in quotes",
        ),
        (
            "shard-port = 65536",
            "shard-port = `65536` (corelog.toml line 1) is not allowed: it must be auto or a port from 1 to 65535",
        ),
        (
            "cpuset = \"3-1\"",
            "cpuset = `3-1` (corelog.toml line 1) is not allowed: it must be auto or a list of cores like 0-3,8",
        ),
    ];
    for (file, text) in cases {
        assert_eq!(error(&[], file), text);
    }
    let text = error(&[("listen", "7092")], "");
    assert_eq!(text, "listen = `7092` (--listen) is not allowed: it must be HOST:PORT, like 127.0.0.1:7092");
}

#[test]
fn a_file_that_is_not_toml_is_refused_by_line() {
    for file in ["smp = 2\nlisten = ", "smp = 2\nsmp = 3\n"] {
        let text = error(&[], file);
        assert!(text.starts_with("corelog.toml line 2 is not TOML: "), "{text}");
    }
}

#[test]
fn every_shard_needs_a_port_of_its_own() {
    let check = |shard_port: &str, shards| {
        let given = gather(&[("shard-port", shard_port)], &[], "").unwrap();
        given.check_ports(&given.settings().unwrap(), shards).map_err(|error| error.to_string())
    };
    for (shard_port, shards) in [("auto", 256), ("7093", 4), ("7091", 1), ("65532", 4), ("7088", 4)] {
        assert_eq!(check(shard_port, shards), Ok(()), "{shard_port}");
    }
    let refused = "is not allowed: it must be";
    let text = format!(
        "shard-port = `65533` (--shard-port) {refused} at most 65532, because shard N of 4 shards listens on that port + N"
    );
    assert_eq!(check("65533", 4), Err(text));
    let text = format!(
        "shard-port = `7090` (--shard-port) {refused} such that no shard has the port of listen: shard 2 would listen on 7092"
    );
    assert_eq!(check("7090", 4), Err(text));
    assert!(check("7092", 1).is_err() && check("7089", 4).is_err());
}

#[test]
fn only_loopback_without_insecure() {
    let text = error(&[("listen", "0.0.0.0:7092")], "");
    assert!(text.starts_with("listen = `0.0.0.0:7092` (--listen) can be reached from other machines"), "{text}");
    let text = error(&[("admin-listen", "0.0.0.0:7093")], "");
    assert!(text.starts_with("admin-listen = `0.0.0.0:7093` (--admin-listen) can be reached"), "{text}");
    let open = gather(&[("listen", "0.0.0.0:7092"), ("insecure", "true")], &[], "").unwrap();
    assert!(open.settings().unwrap().insecure);
    for listen in ["127.0.0.1:0", "[::1]:7092", "localhost:7092"] {
        assert!(gather(&[("listen", listen)], &[], "").unwrap().settings().is_ok(), "{listen}");
    }
}
