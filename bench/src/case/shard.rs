//! A shard in this process, without server and network: what the log by itself takes.

use crate::error::{BenchError, Result};
use crate::server::{embedded, interrupt};
use corelog_engine::error::AppendError;
use corelog_engine::model::PartitionId;
use corelog_engine::node::{self, Stop};
use corelog_engine::shard::{Command, Completed, PartitionHandle, Session, Shard};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

/// Enough for 10,000 partitions and little more, so that all of it was touched before long: a first touch of a page is the
/// machine's cost, not the log's.
const MEMORY: u64 = 700 << 20;
/// Between two tries of an append that found the shard at a bound.
const BUSY_PAUSE: Duration = Duration::from_micros(100);

/// Runs a node of one shard, its data in a directory below `parent`, until `work` is done.
pub(crate) fn on_a_shard<T, F>(parent: &Path, work: impl Fn(Shard) -> F + Send + Sync + Clone + 'static) -> Result<T>
where
    T: Send + 'static,
    F: Future<Output = std::result::Result<T, String>> + 'static,
{
    let directory = interrupt::scratch(parent)?;
    let config = embedded::config(directory.path().join("data"), MEMORY);
    let (tell, told) = mpsc::channel();
    let runs = interrupt::Node::runs();
    let ran = node::run(&config, &Stop::default(), move |start| {
        let (tell, work) = (tell.clone(), work.clone());
        async move {
            let result = work(start.shard.clone()).await?;
            // The receiver outlives the node.
            tell.send(result).map_err(|error| error.to_string())
        }
    });
    drop(runs);
    let failed = |why: String| BenchError::Server(format!("the shard could not be measured: {why}"));
    ran.map_err(|error| failed(error.to_string()))?;
    told.recv().map_err(|error| failed(error.to_string()))
}

/// Commits the same batch again and again, to each of some partitions at once.
pub(crate) struct Committer {
    shard: Shard,
    session: Session,
    handles: Vec<PartitionHandle>,
    body: Vec<u8>,
}

impl Committer {
    /// Makes a topic of so many partitions for it.
    pub(crate) async fn new(shard: &Shard, partitions: u32, body: Vec<u8>) -> std::result::Result<Committer, String> {
        let create = Command::CreateTopic { name: "bench".into(), partitions, settings: Vec::new() };
        shard.command(create).await.map_err(|error| error.to_string())?;
        let ids: Vec<PartitionId> = shard.catalog().topics().flat_map(|topic| topic.partition_ids()).collect();
        let open = |id| shard.open(id).ok_or_else(|| format!("{id} does not open"));
        let handles = ids.into_iter().map(open).collect::<std::result::Result<_, _>>()?;
        Ok(Committer { shard: shard.clone(), session: Session::new(partitions as usize), handles, body })
    }

    /// Appends the batch to the first `partitions` and waits for all acknowledgements.
    pub(crate) async fn commit(&mut self, partitions: u32) -> std::result::Result<(), String> {
        let handles = &self.handles[..partitions as usize];
        for (ticket, handle) in handles.iter().enumerate() {
            loop {
                match self.shard.append(*handle, &self.body, &self.session, ticket as u64) {
                    Ok(()) => break,
                    // A checkpoint frees memory; the wait for it is part of this commit's time.
                    Err(AppendError::Busy) => self.shard.reactor().sleep(BUSY_PAUSE).await,
                    Err(error) => return Err(error.to_string()),
                }
            }
        }
        let mut waiting = handles.len();
        while waiting > 0 {
            self.session.completed().await;
            while let Some(outcome) = self.session.pop() {
                match outcome {
                    Completed::Appended { .. } => waiting -= 1,
                    other => return Err(format!("{other:?}")),
                }
            }
        }
        Ok(())
    }
}
