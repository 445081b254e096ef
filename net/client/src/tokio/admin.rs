//! Topics, offsets, addresses.

use super::sockets::Sockets;
use crate::admin::{self, AdminCore, Answer, Caller, Request};
use crate::{
    ClientError, ClusterInfo, ConnectOptions, FoundOffset, ListOffsets, ShardStats, TopicChanges, TopicDescription,
    TopicFacts, TopicInfo, start,
};
use std::time::{Duration, Instant};

/// A connection for what is not records. One call at a time; reconnects by itself.
///
/// A call is tried again where nothing can have been done, until the request timeout. Where the connection is lost on the
/// way, a call that changes topics fails with [`ClientError::OutcomeUnknown`].
///
/// ```no_run
/// use corelog_client::ConnectOptions;
/// use corelog_client::tokio::Admin;
///
/// # async fn create() -> Result<(), corelog_client::ClientError> {
/// let mut admin = Admin::connect("127.0.0.1:7092", ConnectOptions::default()).await?;
/// admin.create_topic("clicks", 8, &[("retention.ms", "86400000")]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Admin {
    driver: Driver,
}

impl Admin {
    /// Connects to the first of `servers` (`host:port`, separated by commas) that welcomes it.
    ///
    /// # Errors
    /// `Unreachable` after the connect timeout.
    pub async fn connect(servers: &str, options: ConnectOptions) -> Result<Admin, ClientError> {
        let (cluster, _) = start::cluster(servers, &options)?;
        let core = AdminCore::new(cluster, servers, &options);
        let mut driver = Driver { core, sockets: Sockets::new(), within: options.connect_timeout };
        admin::ping(&mut driver).await?;
        driver.within = options.request_timeout;
        Ok(Admin { driver })
    }

    /// Asks for an answer and tells how long it took.
    ///
    /// # Errors
    /// `Unreachable`.
    pub async fn ping(&mut self) -> Result<Duration, ClientError> {
        let begun = Instant::now();
        admin::ping(&mut self.driver).await.map(|()| begun.elapsed())
    }

    /// Who is there.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut`.
    pub async fn cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        admin::cluster(&mut self.driver).await
    }

    /// What a shard of the node has counted.
    ///
    /// # Errors
    /// `Refused` where there is no such shard, `Unreachable`, `TimedOut`.
    pub async fn stats(&mut self, shard: u16) -> Result<ShardStats, ClientError> {
        admin::stats(&mut self.driver, shard).await
    }

    /// All topics, in the order of their names.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut`.
    pub async fn topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        admin::topics(&mut self.driver).await
    }

    /// One topic and who owns its partitions.
    ///
    /// # Errors
    /// `Refused` where there is none.
    pub async fn topic(&mut self, topic: &str) -> Result<TopicInfo, ClientError> {
        admin::topic(&mut self.driver, topic).await
    }

    /// Creates a topic; 0 partitions is the server's default number.
    ///
    /// # Errors
    /// `Refused`, for example where it exists; `OutcomeUnknown`.
    pub async fn create_topic(
        &mut self,
        topic: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<TopicFacts, ClientError> {
        admin::create_topic(&mut self.driver, topic, partitions, settings).await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `Refused` where there is none; `OutcomeUnknown`.
    pub async fn delete_topic(&mut self, topic: &str) -> Result<TopicFacts, ClientError> {
        admin::delete_topic(&mut self.driver, topic).await
    }

    /// Changes a topic: all of the changes or, where any is refused, none.
    ///
    /// # Errors
    /// `Refused`; `OutcomeUnknown`.
    pub async fn alter_topic(&mut self, topic: &str, changes: &TopicChanges) -> Result<TopicFacts, ClientError> {
        admin::alter_topic(&mut self.driver, topic, changes).await
    }

    /// Settings and state of a topic with all its partitions.
    ///
    /// # Errors
    /// `Refused` where there is none.
    pub async fn describe_topic(&mut self, topic: &str) -> Result<TopicDescription, ClientError> {
        admin::describe_topic(&mut self.driver, topic).await
    }

    /// Finds an offset; None where there is none.
    ///
    /// # Errors
    /// `Refused` where there is no such partition, or it cannot be read.
    pub async fn list_offsets(
        &mut self,
        topic: &str,
        partition: u32,
        which: ListOffsets,
    ) -> Result<Option<FoundOffset>, ClientError> {
        admin::list_offsets(&mut self.driver, topic, partition, which).await
    }

    /// Deletes the records below `before`, of which -1 is the high watermark, and returns the first offset held then.
    ///
    /// # Errors
    /// `Refused`, for example beyond the high watermark.
    pub async fn delete_records(&mut self, topic: &str, partition: u32, before: i64) -> Result<i64, ClientError> {
        admin::delete_records(&mut self.driver, topic, partition, before).await
    }
}

#[derive(Debug)]
struct Driver {
    core: AdminCore,
    sockets: Sockets,
    within: Duration,
}

impl Caller for Driver {
    async fn call(&mut self, request: Request) -> Result<Answer, ClientError> {
        // Learns of connections that ended since the last call before anything is sent by them.
        self.sockets.turn(&mut self.core, Some(Instant::now())).await;
        self.core.begin(request, self.within, Instant::now());
        loop {
            // A request that was sent has its own timeout, so the machine always has something due.
            self.sockets.turn(&mut self.core, None).await;
            if let Some(outcome) = self.core.outcome() {
                return outcome;
            }
        }
    }
}
