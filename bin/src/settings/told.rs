//! What Kafka's clients are told that ask for a broker's settings.

use super::gather::Given;
use super::server::Settings;
use super::table::{KAFKA, TOPIC_DEFAULTS};
use corelog_engine::metadata::{Shown, TopicSettings};
use corelog_net::kafka::NodeSettings;
use corelog_net::limits::Limits;
use std::time::Duration;

impl Given {
    /// What Kafka's clients are told of the node.
    pub(crate) fn told(&self, settings: &Settings, limits: &Limits) -> NodeSettings {
        let given = KAFKA.iter().filter_map(|setting| {
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

fn topic_defaults() -> impl Iterator<Item = Shown> {
    let defaults = TopicSettings::default().show();
    TOPIC_DEFAULTS.into_iter().filter_map(move |(key, of_topic)| {
        let shown = defaults.iter().find(|shown| shown.key == of_topic)?;
        Some(Shown { key, value: shown.value.clone(), is_default: true })
    })
}
