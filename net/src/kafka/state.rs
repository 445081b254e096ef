//! What a connection knows: what was asked for and is not answered, in the order in which it was asked.

use super::configs::{alter_configs, describe_configs, incremental_alter_configs};
use super::consumer_groups::{consumer_group_describe, consumer_group_heartbeat};
use super::create_partitions::create_partitions;
use super::create_topics::create_topics;
use super::delete_records::delete_records;
use super::delete_topics::delete_topics;
use super::dialect::{Connection, Shared};
use super::fetch::{Fetch, Reader};
use super::find_coordinator::find_coordinator;
use super::groups::{delete_groups, describe_groups, list_groups};
use super::leader_epochs::offset_for_leader_epoch;
use super::list_offsets::list_offsets;
use super::log_dirs::describe_log_dirs;
use super::membership::{Caller, heartbeat, join_group, leave_group, sync_group};
use super::metadata::{describe_cluster, metadata};
use super::offsets::{offset_commit, offset_delete, offset_fetch};
use super::produce::InFlight;
use super::producers::{describe_producers, init_producer_id};
use super::topics::Topics;
use crate::transport::{Dialect, Flow, Key, Looked, NoMemory, Outbox, Slots};
use corelog_engine::error::AppendError;
use corelog_engine::reactor::AppendBuffer;
use corelog_engine::shard::{Completed, PartitionHandle, Reply, Shard, count};
use corelog_kafka::api::Api;
use corelog_kafka::codec::{Malformed, Sink, Size};
use corelog_kafka::header::Request;
use corelog_kafka::messages::{self, Encodable, Message};
use corelog_kafka::{ErrorCode, api_versions, header};
use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::rc::Rc;

/// Who waits for the outcome with a ticket.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waiting {
    /// A section of a produce.
    Produce { produce: u64, section: u32 },
    /// The fetch.
    Fetch,
}

/// See the module.
pub(super) struct State {
    shard: Shard,
    pub(super) flow: Flow,
    pub(super) topics: Topics,
    pub(super) waiting: Slots<Waiting>,
    /// Produces not answered yet, in the order in which they came.
    pub(super) produces: VecDeque<InFlight>,
    /// How many produces were answered: the number of the first in `produces`.
    pub(super) produced: u64,
    /// Answered ones, whose memory the next ones use.
    pub(super) spare: Vec<InFlight>,
    pub(super) fetch: Option<Fetch>,
    /// The same of the fetch before.
    pub(super) spare_fetch: Option<Fetch>,
    pub(super) readers: HashMap<PartitionHandle, Reader, ahash::RandomState>,
}

/// The body of a response, put in pieces: twice, to know its size first.
pub(super) trait Body {
    fn put(&self, out: &mut impl Sink);
}

/// Queues a response.
pub(super) fn queue(
    outbox: &mut Outbox,
    api: Api,
    version: i16,
    correlation: i32,
    body: &impl Body,
) -> Result<(), NoMemory> {
    let mut size = Size::default();
    body.put(&mut size);
    outbox.put(header::response_bytes(api, version) + size.0, |out| {
        header::put_response(api, version, correlation, size.0, &mut Fields(out));
        body.put(&mut Fields(out));
    })
}

struct Fields<'a>(&'a mut AppendBuffer);

impl Sink for Fields<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.append(bytes);
    }
}

/// What ApiVersions answers.
struct Served {
    version: i16,
    error: ErrorCode,
}

impl Body for Served {
    fn put(&self, out: &mut impl Sink) {
        api_versions::put(self.version, self.error, out);
    }
}

impl State {
    pub(super) fn new(shared: &Rc<Shared>) -> State {
        State {
            shard: shared.shard.clone(),
            flow: Flow::new(shared),
            topics: Topics::default(),
            waiting: Slots::counted(&shared.waits),
            produces: VecDeque::new(),
            produced: 0,
            spare: Vec::new(),
            fetch: None,
            spare_fetch: None,
            readers: HashMap::default(),
        }
    }

    /// Begins a request.
    pub(super) fn serve(
        &mut self,
        connection: &Rc<Connection>,
        request: &Request<'_>,
        looked: &[Looked],
    ) -> Result<(), Malformed> {
        match request.api {
            Api::Produce => self.produce(connection, request, looked),
            Api::Fetch => self.begin_fetch(connection, request),
            Api::ApiVersions => {
                let served = Served { version: request.version, error: ErrorCode::None };
                self.reply(request.api, request.version, request.correlation, &served);
                Ok(())
            }
            Api::Metadata => self.answer_by_shared(connection, request, metadata),
            Api::ListOffsets => self.answer_later(connection, request, list_offsets),
            Api::CreateTopics => self.answer_by_shared(connection, request, create_topics),
            Api::DeleteTopics => self.answer_later(connection, request, delete_topics),
            Api::DeleteRecords => self.answer_later(connection, request, delete_records),
            Api::OffsetCommit => self.answer_later(connection, request, offset_commit),
            Api::OffsetFetch => self.answer_later(connection, request, offset_fetch),
            Api::OffsetDelete => self.answer_later(connection, request, offset_delete),
            Api::FindCoordinator => self.answer_by_shared(connection, request, find_coordinator),
            Api::JoinGroup => {
                let caller = Caller::of(connection, request);
                self.answer_later(connection, request, |shard, message, version| {
                    join_group(shard, caller, message, version)
                })
            }
            Api::ConsumerGroupHeartbeat => {
                let caller = Caller::of(connection, request);
                self.answer_later(connection, request, |shard, message, version| {
                    consumer_group_heartbeat(shard, caller, message, version)
                })
            }
            Api::ConsumerGroupDescribe => self.answer_later(connection, request, consumer_group_describe),
            Api::SyncGroup => self.answer_later(connection, request, sync_group),
            Api::Heartbeat => self.answer_later(connection, request, heartbeat),
            Api::LeaveGroup => self.answer_later(connection, request, leave_group),
            Api::DescribeGroups => self.answer_later(connection, request, describe_groups),
            Api::ListGroups => self.answer_later(connection, request, list_groups),
            Api::DeleteGroups => self.answer_later(connection, request, delete_groups),
            Api::InitProducerId => self.answer_later(connection, request, init_producer_id),
            Api::DescribeProducers => self.answer_later(connection, request, describe_producers),
            Api::OffsetForLeaderEpoch => self.answer_later(connection, request, offset_for_leader_epoch),
            Api::DescribeConfigs => self.answer_by_shared(connection, request, describe_configs),
            Api::AlterConfigs => self.answer_later(connection, request, alter_configs),
            Api::IncrementalAlterConfigs => self.answer_later(connection, request, incremental_alter_configs),
            Api::DescribeLogDirs => self.answer_later(connection, request, describe_log_dirs),
            Api::CreatePartitions => self.answer_later(connection, request, create_partitions),
            Api::DescribeCluster => {
                messages::parse::<messages::DescribeClusterRequest>(request)?;
                let response = describe_cluster(&connection.shared);
                self.respond(request.api, request.version, request.correlation, &response);
                Ok(())
            }
        }
    }

    /// The client is told what is served, in words that every client understands.
    pub(super) fn refuse_api_versions(&mut self, correlation: i32) {
        count(&self.shard.counters().refusals, 1);
        let version = api_versions::FALLBACK_VERSION;
        self.reply(Api::ApiVersions, version, correlation, &Served { version, error: ErrorCode::UnsupportedVersion });
    }

    /// Ends a connection on which something came that has no answer. What came before is answered.
    pub(super) fn refuse(&mut self, connection: &Connection, why: &str) {
        count(&self.shard.counters().refusals, 1);
        connection.say_closed(why);
        self.drain(connection);
    }

    /// Queues a response. Without memory for it the connection ends.
    fn reply(&mut self, api: Api, version: i16, correlation: i32, body: &impl Body) {
        if queue(&mut self.flow.outbox, api, version, correlation, body).is_err() {
            self.flow.give_up();
        }
    }

    /// Queues a response of the library's types.
    fn respond(&mut self, api: Api, version: i16, correlation: i32, response: &impl Encodable) {
        let frame = messages::respond(api, version, correlation, response);
        assert!(frame.is_some(), "a response of {} has what version {version} can say", api.name());
        if self.flow.outbox.copy(&frame.unwrap_or_default()).is_err() {
            self.flow.give_up();
        }
    }

    /// Answers with what a task finds out from what the connections of a shard share.
    fn answer_by_shared<M: Message + 'static, R: Encodable + 'static, F: Future<Output = R> + 'static>(
        &mut self,
        connection: &Rc<Connection>,
        request: &Request<'_>,
        find_out: impl FnOnce(Rc<Shared>, M, i16) -> F,
    ) -> Result<(), Malformed> {
        let shared = connection.shared.clone();
        self.answer_later(connection, request, |_, message, version| find_out(shared, message, version))
    }

    /// Answers with what a task finds out.
    fn answer_later<M: Message + 'static, R: Encodable + 'static, F: Future<Output = R> + 'static>(
        &mut self,
        connection: &Rc<Connection>,
        request: &Request<'_>,
        find_out: impl FnOnce(Shard, M, i16) -> F,
    ) -> Result<(), Malformed> {
        let (api, version, correlation) = (request.api, request.version, request.correlation);
        let finding = find_out(self.shard.clone(), messages::parse(request)?, version);
        self.flow.begin_errand();
        let connection = connection.clone();
        let task = async move {
            let response = finding.await;
            let mut state = connection.state.borrow_mut();
            state.flow.end_errand(&connection);
            if !state.flow.broken {
                state.respond(api, version, correlation, &response);
            }
        };
        self.shard.reactor().spawn(task).detach();
        Ok(())
    }

    /// What the sending task does between sends.
    pub(super) fn work(&mut self, connection: &Rc<Connection>) {
        while self.flow.outbox.is_ready() {
            let Some(completed) = connection.session.pop() else {
                self.answer_produces(connection);
                let now = connection.now();
                if self.flow.take_due(now) {
                    self.look_at_fetch(connection, now);
                }
                return self.run_fetch(connection);
            };
            self.take_outcome(connection, completed);
        }
        self.flow.wait_for_memory(connection.now());
    }

    fn take_outcome(&mut self, connection: &Rc<Connection>, completed: Completed) {
        match completed {
            Completed::Appended { ticket, appended } => {
                self.end_section(connection, Key::of_ticket(ticket), Ok(appended));
            }
            Completed::Refused { ticket, error } => {
                self.end_section(connection, Key::of_ticket(ticket), Err(error));
            }
            Completed::Readable { ticket } => self.wake_fetch(connection, Key::of_ticket(ticket)),
            Completed::Remote { ticket, reply } => self.take_remote(connection, Key::of_ticket(ticket), reply),
        }
    }

    fn take_remote(&mut self, connection: &Rc<Connection>, key: Key, reply: Reply) {
        match self.waiting.get_mut(key) {
            Some(Waiting::Produce { .. }) => {
                let outcome = match reply {
                    Reply::Appended(appended) => Ok(appended),
                    Reply::AppendRefused(error) => Err(error),
                    Reply::Busy => Err(AppendError::Busy),
                    _ => Err(AppendError::OutcomeUnknown),
                };
                self.end_section(connection, key, outcome);
            }
            Some(Waiting::Fetch) => self.take_remote_fetch(connection, key, reply),
            None => {}
        }
    }
}
