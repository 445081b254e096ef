//! Settings of the node under Kafka's names: those that can be given, and what clients that ask for a broker's settings are told.

use crate::settings::{Given, Kind, Setting, Settings, SettingsError};
use corelog_engine::limits::TOPIC_PARTITIONS_MAX;
use corelog_engine::metadata::{Shown, TopicSettings};
use corelog_engine::shard::{GROUP_MEMBERS_MAX, GROUP_METADATA_BYTES_MAX, GroupSettings};
use corelog_net::kafka::NodeSettings;
use corelog_net::limits::Limits;
use std::time::Duration;

/// What can be given, in the file or by `--set`. Kafka's brokers have the same defaults.
pub(crate) const TABLE: [Setting; 10] = [
    Setting { name: "auto.create.topics.enable", default: "true", kind: Kind::Switch },
    Setting { name: "connections.max.idle.ms", default: "600000", kind: Kind::Number },
    Setting { name: "group.initial.rebalance.delay.ms", default: "3000", kind: Kind::Number },
    Setting { name: "group.max.session.timeout.ms", default: "1800000", kind: Kind::Number },
    Setting { name: "group.max.size", default: "10000", kind: Kind::Number },
    Setting { name: "group.min.session.timeout.ms", default: "6000", kind: Kind::Number },
    Setting { name: "num.partitions", default: "1", kind: Kind::Number },
    Setting { name: "offset.metadata.max.bytes", default: "4096", kind: Kind::Number },
    Setting { name: "offsets.retention.minutes", default: "10080", kind: Kind::Number },
    Setting { name: "offsets.topic.num.partitions", default: "50", kind: Kind::Number },
];

/// What they say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KafkaSettings {
    /// A topic that is asked for comes into being.
    pub(crate) creates_topics: bool,
    /// Partitions of a topic that is created without a number.
    pub(crate) partitions: u32,
    /// A client that says nothing for so long is cut off.
    pub(crate) idle_time: Duration,
    /// How groups are coordinated.
    pub(crate) groups: GroupSettings,
}

const WEEK_MS: u64 = 7 * 86_400_000;
const MINUTE_MS: u64 = 60_000;
/// Kafka counts these minutes in 32 bits.
const MINUTES_MAX: u64 = i32::MAX as u64;

impl Given {
    pub(crate) fn kafka(&self) -> Result<KafkaSettings, SettingsError> {
        let number = |name, least: u64, most: u64| {
            let allowed = format!("a number from {least} to {most}");
            self.read(name, &allowed, |text| text.parse().ok().filter(|value| (least..=most).contains(value)))
        };
        let ms = |name, least| number(name, least, WEEK_MS).map(Duration::from_millis);
        let partitions = |name| number(name, 1, TOPIC_PARTITIONS_MAX.into()).map(|value| value as u32);
        let groups = GroupSettings {
            initial_rebalance_delay: ms("group.initial.rebalance.delay.ms", 0)?,
            session_min: ms("group.min.session.timeout.ms", 1)?,
            session_max: ms("group.max.session.timeout.ms", 1)?,
            offsets_retention: Duration::from_millis(number("offsets.retention.minutes", 1, MINUTES_MAX)? * MINUTE_MS),
            members_max: number("group.max.size", 1, GROUP_MEMBERS_MAX as u64)? as usize,
            partitions: partitions("offsets.topic.num.partitions")?,
            metadata_bytes_max: number("offset.metadata.max.bytes", 0, GROUP_METADATA_BYTES_MAX as u64)? as usize,
            ..GroupSettings::default()
        };
        if groups.session_min > groups.session_max {
            let most = groups.session_max.as_millis();
            let allowed = format!("at most {most}, which is group.max.session.timeout.ms");
            self.read("group.min.session.timeout.ms", &allowed, |_| None::<()>)?;
        }
        Ok(KafkaSettings {
            creates_topics: self.read("auto.create.topics.enable", "true or false", |text| text.parse().ok())?,
            partitions: partitions("num.partitions")?,
            idle_time: ms("connections.max.idle.ms", 1)?,
            groups,
        })
    }

    /// What Kafka's clients are told of the node.
    pub(crate) fn told(&self, settings: &Settings, limits: &Limits) -> NodeSettings {
        let given = TABLE.iter().filter_map(|setting| {
            let (value, is_default) = self.value(setting.name)?;
            Some(Shown { key: setting.name, value, is_default })
        });
        let mut shown: Vec<Shown> = given.chain(follows(settings, limits)).chain(topic_defaults()).collect();
        shown.sort_by_key(|shown| shown.key);
        NodeSettings {
            creates_topics: settings.kafka.creates_topics,
            partitions: settings.kafka.partitions,
            shown: shown.into(),
        }
    }
}

/// What Kafka has settings for and follows here from others, or cannot be but what it is.
fn follows(settings: &Settings, limits: &Limits) -> impl Iterator<Item = Shown> {
    let ms = |time: Duration| time.as_millis().to_string();
    let fixed = |key, value: &str| (key, value.to_owned());
    let told = [
        fixed("default.replication.factor", "1"),
        fixed("delete.topic.enable", "true"),
        ("log.cleaner.backoff.ms", ms(settings.compaction_interval)),
        fixed("log.cleaner.enable", "true"),
        ("log.dirs", settings.data_dir.display().to_string()),
        ("log.retention.check.interval.ms", ms(settings.retention_check_interval)),
        fixed("offsets.topic.replication.factor", "1"),
        ("producer.id.expiration.ms", ms(settings.producer_expiration)),
        ("socket.request.max.bytes", limits.body_bytes_max.to_string()),
    ];
    told.into_iter().map(|(key, value)| Shown { key, value, is_default: true })
}

/// Kafka's names for what a topic has that was not told otherwise.
const TOPIC_DEFAULTS: [(&str, &str); 11] = [
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

fn topic_defaults() -> impl Iterator<Item = Shown> {
    let defaults = TopicSettings::default().show();
    TOPIC_DEFAULTS.into_iter().filter_map(move |(key, of_topic)| {
        let shown = defaults.iter().find(|shown| shown.key == of_topic)?;
        Some(Shown { key, value: shown.value.clone(), is_default: true })
    })
}

/// The setting of topics whose default a name stands for at Kafka's brokers: here it is set for each of them.
pub(crate) fn setting_of_topics(name: &str) -> Option<&'static str> {
    TOPIC_DEFAULTS.iter().find(|(key, _)| *key == name).map(|(_, of_topic)| *of_topic)
}
