//! Topics, offsets, addresses.

use super::sockets::Sockets;
use crate::admin::{self, AdminCore, Answer, Caller, Request};
use crate::{
    ClientError, ClusterInfo, ConnectOptions, FoundOffset, ListOffsets, ShardStats, TopicChanges, TopicDescription,
    TopicFacts, TopicInfo, start,
};
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

/// A connection for what is not records. One call at a time; reconnects by itself.
///
/// A call is tried again where nothing can have been done, until the request timeout. Where the connection is lost on the
/// way, a call that changes topics fails with [`ClientError::OutcomeUnknown`].
///
/// ```no_run
/// use corelog_client::blocking::Admin;
/// use corelog_client::ConnectOptions;
///
/// let mut admin = Admin::connect("127.0.0.1:7092", ConnectOptions::default())?;
/// admin.create_topic("clicks", 8, &[("retention.ms", "86400000")])?;
/// for partition in admin.describe_topic("clicks")?.partitions {
///     println!("{}: {} to {}", partition.partition, partition.first, partition.next);
/// }
/// # Ok::<(), corelog_client::ClientError>(())
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
    pub fn connect(servers: &str, options: ConnectOptions) -> Result<Admin, ClientError> {
        let (cluster, _) = start::cluster(servers, &options)?;
        let core = AdminCore::new(cluster, servers, &options);
        let mut driver = Driver { core, sockets: Sockets::new(), within: options.connect_timeout };
        finish(admin::ping(&mut driver))?;
        driver.within = options.request_timeout;
        Ok(Admin { driver })
    }

    /// Asks for an answer and tells how long it took.
    ///
    /// # Errors
    /// `Unreachable`.
    pub fn ping(&mut self) -> Result<Duration, ClientError> {
        let begun = Instant::now();
        finish(admin::ping(&mut self.driver)).map(|()| begun.elapsed())
    }

    /// Who is there.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut`.
    pub fn cluster(&mut self) -> Result<ClusterInfo, ClientError> {
        finish(admin::cluster(&mut self.driver))
    }

    /// What a shard of the node has counted.
    ///
    /// # Errors
    /// `Refused` where there is no such shard, `Unreachable`, `TimedOut`.
    pub fn stats(&mut self, shard: u16) -> Result<ShardStats, ClientError> {
        finish(admin::stats(&mut self.driver, shard))
    }

    /// All topics, in the order of their names.
    ///
    /// # Errors
    /// `Unreachable`, `TimedOut`.
    pub fn topics(&mut self) -> Result<Vec<TopicInfo>, ClientError> {
        finish(admin::topics(&mut self.driver))
    }

    /// One topic and who owns its partitions.
    ///
    /// # Errors
    /// `Refused` where there is none.
    pub fn topic(&mut self, topic: &str) -> Result<TopicInfo, ClientError> {
        finish(admin::topic(&mut self.driver, topic))
    }

    /// Creates a topic; 0 partitions is the server's default number.
    ///
    /// # Errors
    /// `Refused`, for example where it exists; `OutcomeUnknown`.
    pub fn create_topic(
        &mut self,
        topic: &str,
        partitions: u32,
        settings: &[(&str, &str)],
    ) -> Result<TopicFacts, ClientError> {
        finish(admin::create_topic(&mut self.driver, topic, partitions, settings))
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// `Refused` where there is none; `OutcomeUnknown`.
    pub fn delete_topic(&mut self, topic: &str) -> Result<TopicFacts, ClientError> {
        finish(admin::delete_topic(&mut self.driver, topic))
    }

    /// Changes a topic: all of the changes or, where any is refused, none.
    ///
    /// # Errors
    /// `Refused`; `OutcomeUnknown`.
    pub fn alter_topic(&mut self, topic: &str, changes: &TopicChanges) -> Result<TopicFacts, ClientError> {
        finish(admin::alter_topic(&mut self.driver, topic, changes))
    }

    /// Settings and state of a topic with all its partitions.
    ///
    /// # Errors
    /// `Refused` where there is none.
    pub fn describe_topic(&mut self, topic: &str) -> Result<TopicDescription, ClientError> {
        finish(admin::describe_topic(&mut self.driver, topic))
    }

    /// Finds an offset; None where there is none.
    ///
    /// # Errors
    /// `Refused` where there is no such partition, or it cannot be read.
    pub fn list_offsets(
        &mut self,
        topic: &str,
        partition: u32,
        which: ListOffsets,
    ) -> Result<Option<FoundOffset>, ClientError> {
        finish(admin::list_offsets(&mut self.driver, topic, partition, which))
    }

    /// Deletes the records below `before`, of which -1 is the high watermark, and returns the first offset held then.
    ///
    /// # Errors
    /// `Refused`, for example beyond the high watermark.
    pub fn delete_records(&mut self, topic: &str, partition: u32, before: i64) -> Result<i64, ClientError> {
        finish(admin::delete_records(&mut self.driver, topic, partition, before))
    }
}

#[derive(Debug)]
struct Driver {
    core: AdminCore,
    sockets: Sockets,
    within: Duration,
}

impl Driver {
    fn run(&mut self, request: Request) -> Result<Answer, ClientError> {
        // Learns of connections that ended since the last call before anything is sent by them.
        self.sockets.wait(&mut self.core, None, Some(Instant::now()));
        self.core.begin(request, self.within, Instant::now());
        loop {
            // A request that was sent has its own timeout, so the machine always has something due.
            self.sockets.turn(&mut self.core, Instant::now() + self.within);
            if let Some(outcome) = self.core.outcome() {
                return outcome;
            }
        }
    }
}

impl Caller for Driver {
    async fn call(&mut self, request: Request) -> Result<Answer, ClientError> {
        self.run(request)
    }
}

/// Runs what never waits elsewhere than in [`Driver::run`], and so is done when it is polled once.
fn finish<T>(calls: impl Future<Output = T>) -> T {
    let mut calls = pin!(calls);
    loop {
        if let Poll::Ready(done) = calls.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done;
        }
    }
}
