//! What shards have counted, as a client sees it: to be shown, subtracted and added up.

use std::collections::BTreeMap;
use std::time::Duration;

/// What a shard has counted since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ShardStats {
    /// Which shard.
    pub shard: u16,
    /// Numbers by name, in the server's order.
    pub counts: Vec<CountInfo>,
    /// Where the time of appends went, in the order in which they pass the stages.
    pub stages: Vec<StageInfo>,
}

/// A number that an operator looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CountInfo {
    /// Its name, unit included.
    pub name: String,
    /// Whether it is counted since the start and only grows; else it is as it is now.
    pub total: bool,
    /// The number.
    pub value: u64,
}

/// How long appends were in one part of their way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageInfo {
    /// Which.
    pub name: String,
    /// The times of all appends together.
    pub sum: Duration,
    /// Times in ascending order, each with how many appends were in the stage for no longer than that, nor for as short as
    /// the one before.
    pub buckets: BTreeMap<Duration, u64>,
}

impl ShardStats {
    /// The number of a name; 0 where the server has none of that name.
    pub fn count(&self, name: &str) -> u64 {
        self.counts.iter().find(|count| count.name == name).map_or(0, |count| count.value)
    }

    /// What was counted since `earlier`, of the same shard. Numbers that do not only grow stay as they are.
    #[must_use]
    pub fn since(&self, earlier: &ShardStats) -> ShardStats {
        let mut stats = self.clone();
        for count in stats.counts.iter_mut().filter(|count| count.total) {
            count.value = count.value.saturating_sub(earlier.count(&count.name));
        }
        for stage in &mut stats.stages {
            if let Some(before) = earlier.stages.iter().find(|before| before.name == stage.name) {
                stage.subtract(before);
            }
        }
        stats
    }

    /// Adds what another shard counted.
    pub fn add(&mut self, other: &ShardStats) {
        for more in &other.counts {
            match self.counts.iter_mut().find(|count| count.name == more.name) {
                Some(count) => count.value = count.value.saturating_add(more.value),
                None => self.counts.push(more.clone()),
            }
        }
        for more in &other.stages {
            match self.stages.iter_mut().find(|stage| stage.name == more.name) {
                Some(stage) => stage.add(more),
                None => self.stages.push(more.clone()),
            }
        }
    }
}

impl StageInfo {
    /// How many appends passed it.
    pub fn count(&self) -> u64 {
        self.buckets.values().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// The mean time; nothing where there were none. Means of the stages add up to the mean of the whole.
    pub fn mean(&self) -> Duration {
        let nanoseconds = self.sum.as_nanos().checked_div(u128::from(self.count())).unwrap_or(0);
        Duration::from_nanos(nanoseconds as u64)
    }

    /// The time that this part of the appends, from 0 to 1, did not exceed; nothing where there were none.
    pub fn quantile(&self, part: f64) -> Duration {
        let rank = ((self.count() as f64 * part).ceil() as u64).max(1);
        let mut passed = 0;
        let reached = self.buckets.iter().find(|(_, count)| {
            passed = count.saturating_add(passed);
            passed >= rank
        });
        reached.or(self.buckets.last_key_value()).map_or(Duration::ZERO, |(up_to, _)| *up_to)
    }

    fn add(&mut self, other: &StageInfo) {
        self.sum = self.sum.saturating_add(other.sum);
        for (up_to, more) in &other.buckets {
            let count = self.buckets.entry(*up_to).or_default();
            *count = count.saturating_add(*more);
        }
    }

    fn subtract(&mut self, earlier: &StageInfo) {
        self.sum = self.sum.saturating_sub(earlier.sum);
        for (up_to, count) in &mut self.buckets {
            *count = count.saturating_sub(earlier.buckets.get(up_to).copied().unwrap_or(0));
        }
        self.buckets.retain(|_, count| *count > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(buckets: &[(u64, u64)]) -> StageInfo {
        let sum = buckets.iter().map(|(us, count)| us * count).sum();
        let buckets = buckets.iter().map(|&(us, count)| (Duration::from_micros(us), count)).collect();
        StageInfo { name: "flush".into(), sum: Duration::from_micros(sum), buckets }
    }

    fn stats(appends: u64, connections: u64, flush: StageInfo) -> ShardStats {
        let count = |name: &str, total, value| CountInfo { name: name.into(), total, value };
        let counts = vec![count("appends", true, appends), count("connections", false, connections)];
        ShardStats { shard: 0, counts, stages: vec![flush] }
    }

    #[test]
    fn quantiles_are_the_times_that_so_many_did_not_exceed() {
        let stage = stage(&[(10, 50), (20, 49), (1000, 1)]);
        let of = |part| stage.quantile(part).as_micros();
        assert_eq!((of(0.0), of(0.5), of(0.51), of(0.99), of(0.991), of(1.0)), (10, 10, 20, 20, 1000, 1000));
        assert_eq!(stage.mean(), Duration::from_nanos(24_800));
        assert_eq!(StageInfo::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn a_difference_has_what_came_later_and_the_present_state() {
        let before = stats(5, 9, stage(&[(10, 5)]));
        let after = stats(8, 2, stage(&[(10, 6), (30, 2)]));
        assert_eq!(after.since(&before), stats(3, 2, stage(&[(10, 1), (30, 2)])));
        let mut both = before.clone();
        both.add(&after.since(&before));
        assert_eq!(both.count("appends"), 8);
        assert_eq!(both.stages, after.stages);
        assert_eq!(both.count("nothing of that name"), 0);
    }
}
