//! What a shard has counted: any shard answers for any other.

use super::dialect::Connection;
use super::refusal::Refusal;
use super::state::State;
use corelog_engine::model::ShardId;
use corelog_engine::shard::{CountKind, ShardStats};
use corelog_wire::{Bucket, Count, Header, List, StageTimes, StatsRequest, Status, Text};
use std::rc::Rc;

impl State {
    pub(super) fn stats(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        request: StatsRequest,
    ) -> Result<(), Refusal> {
        let shard = connection.shard().clone();
        let asked = ShardId(request.shard);
        if asked.0 >= shard.shards() {
            let message = format!("there is no shard {asked}: the node has {}", shard.shards());
            return Err(Refusal::new(Status::InvalidRequest, message));
        }
        let asking = async move {
            let busy = || Refusal::busy("too much is on its way to other shards");
            let stats = shard.stats_of(asked).await.ok_or_else(busy)?;
            Ok(move |state: &mut State, _: &Rc<Connection>| {
                state.reply_stats(header, &stats);
                Ok(())
            })
        };
        self.errand(connection, header, asking);
        Ok(())
    }

    fn reply_stats(&mut self, header: Header, stats: &ShardStats) {
        let count = |count: &corelog_engine::shard::Count| Count {
            name: Text::truncated(count.name),
            total: count.kind == CountKind::Total,
            value: count.value,
        };
        let counts: Vec<_> = stats.counts.iter().map(count).collect();
        let bucket = |bucket: &corelog_engine::shard::Bucket| Bucket {
            up_to_ns: bucket.up_to.as_nanos() as u64,
            count: bucket.count,
        };
        let buckets: Vec<Vec<_>> =
            stats.stages.iter().map(|stage| stage.buckets.iter().map(bucket).collect()).collect();
        let times = stats.stages.iter().zip(&buckets).map(|(stage, buckets)| StageTimes {
            name: Text::truncated(stage.stage.name()),
            sum_ns: stage.sum.as_nanos() as u64,
            buckets: List::of(buckets),
        });
        let stages: Vec<_> = times.collect();
        let body =
            corelog_wire::ShardStats { shard: stats.shard.0, counts: List::of(&counts), stages: List::of(&stages) };
        self.reply(header.response(), &body);
    }
}
