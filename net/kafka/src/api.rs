//! Which requests are served, in which versions.

/// The versions of a request that are served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub min: i16,
    /// The last.
    pub max: i16,
    /// The first with compact lengths and tagged fields.
    pub flexible: i16,
}

impl Versions {
    /// Whether this one is served.
    pub fn contains(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }
}

macro_rules! apis {
    ($($(#[$about:meta])* $name:ident = $key:literal $min:literal..=$max:literal flexible $flexible:literal,)*) => {
        /// A request.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(i16)]
        pub enum Api { $($(#[$about])* $name = $key,)* }

        impl Api {
            /// All that are served, in the order of their keys.
            pub const ALL: &[Api] = &[$(Api::$name,)*];

            /// The request with this key.
            pub fn of_key(key: i16) -> Option<Api> {
                match key {
                    $($key => Some(Api::$name),)*
                    _ => None,
                }
            }

            /// Its name in Kafka's protocol.
            pub fn name(self) -> &'static str {
                match self { $(Api::$name => stringify!($name),)* }
            }

            /// The versions that are served.
            pub fn versions(self) -> Versions {
                match self { $(Api::$name => Versions { min: $min, max: $max, flexible: $flexible },)* }
            }
        }
    };
}

apis! {
    /// Appends record batches.
    Produce = 0 0..=11 flexible 9,
    /// Reads record batches, waiting for them if asked to.
    Fetch = 1 4..=13 flexible 12,
    /// Offset by end or by time.
    ListOffsets = 2 1..=8 flexible 6,
    /// Who serves which partition at which address.
    Metadata = 3 0..=12 flexible 9,
    /// Keeps how far a group has come.
    OffsetCommit = 8 2..=9 flexible 8,
    /// How far a group has come.
    OffsetFetch = 9 1..=9 flexible 6,
    /// Who coordinates a group.
    FindCoordinator = 10 0..=4 flexible 3,
    /// Makes a member of a group.
    JoinGroup = 11 0..=9 flexible 6,
    /// A member of a group is alive.
    Heartbeat = 12 0..=4 flexible 4,
    /// Takes members out of a group.
    LeaveGroup = 13 0..=5 flexible 4,
    /// What a member of a group is to read.
    SyncGroup = 14 0..=5 flexible 4,
    /// Groups, with their members.
    DescribeGroups = 15 0..=5 flexible 5,
    /// The groups that there are.
    ListGroups = 16 0..=5 flexible 3,
    /// Which requests are served.
    ApiVersions = 18 0..=3 flexible 3,
    /// Creates topics.
    CreateTopics = 19 2..=7 flexible 5,
    /// Deletes topics.
    DeleteTopics = 20 1..=6 flexible 4,
    /// Moves first offsets forward.
    DeleteRecords = 21 0..=2 flexible 2,
    /// Numbers by which a producer's batches are recognised when they come again.
    InitProducerId = 22 0..=4 flexible 2,
    /// Where the records of a leader's time end.
    OffsetForLeaderEpoch = 23 2..=4 flexible 4,
    /// Settings in force.
    DescribeConfigs = 32 1..=4 flexible 4,
    /// Replaces the settings of topics.
    AlterConfigs = 33 0..=2 flexible 2,
    /// What partitions take of the disk.
    DescribeLogDirs = 35 1..=4 flexible 2,
    /// Adds partitions to topics.
    CreatePartitions = 37 0..=3 flexible 2,
    /// Forgets groups.
    DeleteGroups = 42 0..=2 flexible 2,
    /// Changes single settings of topics.
    IncrementalAlterConfigs = 44 0..=1 flexible 1,
    /// Forgets how far a group has come.
    OffsetDelete = 47 0..=0 flexible 1,
    /// The brokers.
    DescribeCluster = 60 0..=1 flexible 0,
    /// Who numbers batches of a partition.
    DescribeProducers = 61 0..=0 flexible 0,
    /// A member of a group that is assigned by its coordinator is alive, or comes, or goes.
    ConsumerGroupHeartbeat = 68 0..=1 flexible 0,
    /// Such groups, with their members.
    ConsumerGroupDescribe = 69 0..=1 flexible 0,
}

impl Api {
    /// Whether this version has compact lengths and tagged fields.
    pub fn is_flexible(self, version: i16) -> bool {
        version >= self.versions().flexible
    }

    /// Whether the header of its response ends with tagged fields. That of ApiVersions never does: who asks for versions need
    /// not know yet how to read it.
    pub fn has_response_tags(self, version: i16) -> bool {
        self != Api::ApiVersions && self.is_flexible(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_in_order_and_name_one_request() {
        assert!(Api::ALL.is_sorted_by_key(|api| *api as i16));
        for api in Api::ALL {
            assert_eq!(Api::of_key(*api as i16), Some(*api));
            let Versions { min, max, .. } = api.versions();
            assert!(min <= max, "{}", api.name());
        }
        assert_eq!(Api::of_key(7), None);
    }

    #[test]
    fn the_page_says_what_is_served() {
        let page = include_str!("../../../docs/kafka.md");
        let rows = Api::ALL.iter().map(|api| {
            let Versions { min, max, .. } = api.versions();
            format!("| {} | {} | {min} to {max} |\n", api.name(), *api as i16)
        });
        let rows: String = rows.collect();
        assert!(page.contains(&rows), "docs/kafka.md is to have\n{rows}");
    }
}
