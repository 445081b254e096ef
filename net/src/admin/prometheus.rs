//! What shards counted, in Prometheus' text format 0.0.4: a family per number, a line per shard.

use corelog_engine::shard::{Count, CountKind, ShardStats, StageStats};
use std::fmt::Write;
use std::time::Duration;

/// Upper ends of the buckets of a stage's histogram: 1, 2, 5 in each decade from a microsecond to ten seconds.
fn bounds() -> impl Iterator<Item = Duration> {
    let decades = (0..7).flat_map(|decade| [1, 2, 5].map(|step| step * 10_u64.pow(decade)));
    decades.chain([10_000_000]).map(Duration::from_micros)
}

const STAGE: &str = "corelog_append_stage_seconds";
const STAGE_HELP: &str = "How long appends were in each part of their way from arrival to acknowledgement";

/// Lines that belong together.
pub(super) enum Family<'a> {
    /// The program.
    Build,
    /// A number of each shard, by its place in their lists.
    Count { shards: &'a [ShardStats], place: usize },
    /// Where the time of appends went.
    Stages { shards: &'a [ShardStats] },
}

/// All there is to tell of these shards of a node.
pub(super) fn families(shards: &[ShardStats]) -> impl Iterator<Item = Family<'_>> {
    let counts = shards.first().map_or(0, |stats| stats.counts.len());
    let counts = (0..counts).map(move |place| Family::Count { shards, place });
    [Family::Build].into_iter().chain(counts).chain([Family::Stages { shards }])
}

impl Family<'_> {
    /// Writes heading and lines.
    pub(super) fn write(&self, text: &mut String) {
        // Writing to a String does not fail.
        let _ = match self {
            Family::Build => write_build(text),
            Family::Count { shards, place } => write_count(text, shards, *place),
            Family::Stages { shards } => write_stages(text, shards),
        };
    }
}

fn write_build(text: &mut String) -> std::fmt::Result {
    heading(text, "corelog_build_info", "The program that serves", "gauge")?;
    writeln!(text, "corelog_build_info{{version=\"{}\"}} 1", env!("CARGO_PKG_VERSION"))
}

fn heading(text: &mut String, name: &str, help: &str, kind: &str) -> std::fmt::Result {
    write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n")
}

fn write_count(text: &mut String, shards: &[ShardStats], place: usize) -> std::fmt::Result {
    let Some(Count { name, about, kind, .. }) = shards.first().and_then(|stats| stats.counts.get(place)) else {
        return Ok(());
    };
    let (suffix, kind) = match kind {
        CountKind::Total => ("_total", "counter"),
        CountKind::Now => ("", "gauge"),
    };
    let name = format!("corelog_{name}{suffix}");
    heading(text, &name, about, kind)?;
    for stats in shards {
        if let Some(count) = stats.counts.get(place) {
            writeln!(text, "{name}{{shard=\"{}\"}} {}", stats.shard, count.value)?;
        }
    }
    Ok(())
}

fn write_stages(text: &mut String, shards: &[ShardStats]) -> std::fmt::Result {
    heading(text, STAGE, STAGE_HELP, "histogram")?;
    for stats in shards {
        for stage in &stats.stages {
            write_stage(text, &format!("shard=\"{}\",stage=\"{}\"", stats.shard, stage.stage.name()), stage)?;
        }
    }
    Ok(())
}

fn write_stage(text: &mut String, labels: &str, stage: &StageStats) -> std::fmt::Result {
    let (mut buckets, mut passed) = (stage.buckets.iter().peekable(), 0);
    for bound in bounds() {
        while let Some(bucket) = buckets.next_if(|bucket| bucket.up_to <= bound) {
            passed += bucket.count;
        }
        writeln!(text, "{STAGE}_bucket{{{labels},le=\"{}\"}} {passed}", bound.as_secs_f64())?;
    }
    let count = passed + buckets.map(|bucket| bucket.count).sum::<u64>();
    writeln!(text, "{STAGE}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
    writeln!(text, "{STAGE}_sum{{{labels}}} {}", stage.sum.as_secs_f64())?;
    writeln!(text, "{STAGE}_count{{{labels}}} {count}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::model::ShardId;
    use corelog_engine::shard::{Bucket, Stage};

    fn stats(shard: u16, appends: u64) -> ShardStats {
        let count = |name, kind, value| Count { name, about: "About it", kind, value };
        let bucket = |us: u64, count| Bucket { up_to: Duration::from_nanos(us * 1000 - 1), count };
        let flush = StageStats {
            stage: Stage::Flush,
            sum: Duration::from_millis(1500),
            buckets: vec![bucket(90, 3), bucket(200, 4), bucket(20_000_000, 1)],
        };
        ShardStats {
            shard: ShardId(shard),
            counts: vec![count("appends", CountKind::Total, appends), count("connections", CountKind::Now, 2)],
            stages: vec![flush],
        }
    }

    #[test]
    fn every_family_stands_together_with_a_line_for_each_shard() {
        let shards = [stats(0, 7), stats(1, 9)];
        let mut text = String::new();
        families(&shards).for_each(|family| family.write(&mut text));
        let appends = "# HELP corelog_appends_total About it\n# TYPE corelog_appends_total counter\n\
                       corelog_appends_total{shard=\"0\"} 7\ncorelog_appends_total{shard=\"1\"} 9\n";
        assert!(text.contains(appends), "{text}");
        assert!(text.contains("# TYPE corelog_connections gauge\ncorelog_connections{shard=\"0\"} 2\n"), "{text}");
        assert_eq!(text.matches("# TYPE ").count(), 4);
    }

    #[test]
    fn buckets_are_cumulative_and_the_last_has_all() {
        let mut text = String::new();
        Family::Stages { shards: &[stats(3, 0)] }.write(&mut text);
        for (le, count) in [("0.00005", 0), ("0.0001", 3), ("0.0002", 7), ("10", 7), ("+Inf", 8)] {
            let line = format!("{STAGE}_bucket{{shard=\"3\",stage=\"flush\",le=\"{le}\"}} {count}\n");
            assert!(text.contains(&line), "{line}{text}");
        }
        assert!(text.ends_with(&format!(
            "{STAGE}_sum{{shard=\"3\",stage=\"flush\"}} 1.5\n{STAGE}_count{{shard=\"3\",stage=\"flush\"}} 8\n"
        )));
    }
}
