//! What the settings under Kafka's names say.

use super::gather::{Given, SettingsError};
use corelog_engine::group::consumer::Times;
use corelog_engine::limits::TOPIC_PARTITIONS_MAX;
use corelog_engine::shard::{GROUP_MEMBERS_MAX, GROUP_METADATA_BYTES_MAX, GroupSettings};
use std::time::Duration;

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
    pub(super) fn kafka(&self) -> Result<KafkaSettings, SettingsError> {
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
            consumer: Times {
                session: ms("group.consumer.session.timeout.ms", 1)?,
                heartbeat: ms("group.consumer.heartbeat.interval.ms", 1)?,
            },
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
        if groups.consumer.heartbeat >= groups.consumer.session {
            let session = groups.consumer.session.as_millis();
            let allowed = format!("less than {session}, which is group.consumer.session.timeout.ms");
            self.read("group.consumer.heartbeat.interval.ms", &allowed, |_| None::<()>)?;
        }
        Ok(KafkaSettings {
            creates_topics: self.read("auto.create.topics.enable", "true or false", |text| text.parse().ok())?,
            partitions: partitions("num.partitions")?,
            idle_time: ms("connections.max.idle.ms", 1)?,
            groups,
        })
    }
}
