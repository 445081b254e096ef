//! The settings that there are.

/// One setting: the row of a table that flags, file and `--print-config` share.
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) default: &'static str,
    /// How its value stands in TOML.
    pub(crate) kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    Number,
    /// A number of bytes, or text with a unit.
    Size,
    Switch,
}

/// What is corelog's own. Flags have the same names.
pub(super) const OWN: [Setting; 18] = [
    Setting { name: "data-dir", default: "./corelog-data", kind: Kind::Text },
    Setting { name: "listen", default: "127.0.0.1:7092", kind: Kind::Text },
    Setting { name: "shard-port", default: AUTO, kind: Kind::Number },
    Setting { name: "kafka-listen", default: "127.0.0.1:9092", kind: Kind::Text },
    Setting { name: "kafka-advertise", default: AUTO, kind: Kind::Text },
    Setting { name: "admin-listen", default: OFF, kind: Kind::Text },
    Setting { name: "smp", default: AUTO, kind: Kind::Number },
    Setting { name: "cpuset", default: AUTO, kind: Kind::Text },
    Setting { name: "memory", default: AUTO, kind: Kind::Size },
    Setting { name: "journal-bytes", default: "128MiB", kind: Kind::Size },
    Setting { name: "produce-rate-max", default: OFF, kind: Kind::Size },
    Setting { name: "disk-reserve", default: "512MiB", kind: Kind::Size },
    Setting { name: "retention-check-interval", default: "5m", kind: Kind::Text },
    Setting { name: "compaction-interval", default: "15s", kind: Kind::Text },
    Setting { name: "producer-expiration", default: "1d", kind: Kind::Text },
    Setting { name: "fetch-path", default: AUTO, kind: Kind::Text },
    Setting { name: "spin", default: "50us", kind: Kind::Text },
    Setting { name: "insecure", default: "false", kind: Kind::Switch },
];

/// What has Kafka's names, to be given in the file or by `--set`. Kafka's brokers have the same defaults.
pub(super) const KAFKA: [Setting; 12] = [
    Setting { name: "auto.create.topics.enable", default: "true", kind: Kind::Switch },
    Setting { name: "connections.max.idle.ms", default: "600000", kind: Kind::Number },
    Setting { name: "group.consumer.heartbeat.interval.ms", default: "5000", kind: Kind::Number },
    Setting { name: "group.consumer.session.timeout.ms", default: "45000", kind: Kind::Number },
    Setting { name: "group.initial.rebalance.delay.ms", default: "3000", kind: Kind::Number },
    Setting { name: "group.max.session.timeout.ms", default: "1800000", kind: Kind::Number },
    Setting { name: "group.max.size", default: "10000", kind: Kind::Number },
    Setting { name: "group.min.session.timeout.ms", default: "6000", kind: Kind::Number },
    Setting { name: "num.partitions", default: "1", kind: Kind::Number },
    Setting { name: "offset.metadata.max.bytes", default: "4096", kind: Kind::Number },
    Setting { name: "offsets.retention.minutes", default: "10080", kind: Kind::Number },
    Setting { name: "offsets.topic.num.partitions", default: "50", kind: Kind::Number },
];

/// All of them.
pub(super) fn all() -> impl Iterator<Item = &'static Setting> {
    OWN.iter().chain(&KAFKA)
}

/// The value of a setting that is left to the machine.
pub(super) const AUTO: &str = "auto";

/// The value of a setting for something that is not done.
pub(super) const OFF: &str = "off";

/// Kafka's names for what a topic has that was not told otherwise.
pub(super) const TOPIC_DEFAULTS: [(&str, &str); 11] = [
    ("compression.type", "compression.type"),
    ("log.cleaner.delete.retention.ms", "delete.retention.ms"),
    ("log.cleanup.policy", "cleanup.policy"),
    ("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms"),
    ("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms"),
    ("log.message.timestamp.type", "message.timestamp.type"),
    ("log.retention.bytes", "retention.bytes"),
    ("log.retention.ms", "retention.ms"),
    ("log.segment.bytes", "segment.bytes"),
    ("message.max.bytes", "max.message.bytes"),
    ("min.insync.replicas", "min.insync.replicas"),
];

/// The setting of topics whose default a name stands for at Kafka's brokers: here it is set for each of them.
pub(super) fn setting_of_topics(name: &str) -> Option<&'static str> {
    TOPIC_DEFAULTS.iter().find(|(key, _)| *key == name).map(|(_, of_topic)| *of_topic)
}

/// The setting whose name is the likeliest to be meant by one that there is not.
pub(super) fn nearest(name: &str) -> &'static str {
    // Underscores for dashes are the likeliest slip and should not count as one.
    let name: String = name.chars().take(64).collect::<String>().to_lowercase().replace('_', "-");
    let distance = |setting: &&Setting| strsim::damerau_levenshtein(setting.name, &name);
    all().min_by_key(distance).map_or("", |setting| setting.name)
}
