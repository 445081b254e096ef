//! Calls that are not about records: one at a time, over whichever connection is up, without sockets and clock.

use crate::cluster::{Cluster, LinkId, Token};
use crate::error::{ClientError, Ended, Refusal};
use crate::machine::Machine;
use crate::options::ConnectOptions;
use crate::protocol::Event;
use crate::report::{
    ClusterInfo, EndpointInfo, FoundOffset, PartitionInfo, SettingInfo, TopicChanges, TopicDescription, TopicFacts,
    TopicInfo,
};
use crate::stats::{CountInfo, ShardStats, StageInfo};
use corelog_wire::{
    AlterTopic, CreateTopic, DeleteRecords, DeleteTopic, DescribeTopic, List, ListOffsets, Metadata, MetadataRequest,
    Open, Operation, PartitionState, Response, Retry, Selection, Setting, StatsRequest, Status, Text, Topic,
    TopicState, Wire,
};
use std::future::Future;
use std::time::{Duration, Instant};

/// A page of `describe_topic`.
const PARTITIONS_PAGE: u32 = 1024;

/// Connections and the call under way.
#[derive(Debug)]
pub(crate) struct AdminCore {
    cluster: Cluster,
    servers: String,
    options: ConnectOptions,
    call: Option<Call>,
    trouble: String,
}

#[derive(Debug)]
struct Call {
    request: Request,
    until: Instant,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting { not_before: Instant },
    Sent(LinkId),
    Done(Result<Answer, ClientError>),
}

/// An encoded request.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    operation: Operation,
    /// Where it must go: to the link that the handle was opened on.
    lane: Option<(LinkId, u32)>,
    body: Vec<u8>,
}

/// An answer, owned.
#[derive(Debug)]
pub(crate) enum Answer {
    Done,
    Metadata { cluster: ClusterInfo, topics: Vec<Result<TopicInfo, (String, u16)>>, more: bool },
    Facts(TopicFacts),
    Described { description: TopicDescription, partition_count: u32 },
    Opened((LinkId, u32)),
    Offset(Option<FoundOffset>),
    First(i64),
    Stats(ShardStats),
}

impl Request {
    fn new<'w>(operation: Operation, body: &impl Wire<'w>) -> Request {
        let mut bytes = Vec::new();
        body.put(&mut bytes);
        Request { operation, lane: None, body: bytes }
    }

    fn at(self, lane: (LinkId, u32)) -> Request {
        Request { lane: Some(lane), ..self }
    }

    /// Whether doing it twice is the same as doing it once.
    fn is_repeatable(&self) -> bool {
        !matches!(self.operation, Operation::CreateTopic | Operation::DeleteTopic | Operation::AlterTopic)
    }
}

impl AdminCore {
    pub(crate) fn new(cluster: Cluster, servers: &str, options: &ConnectOptions) -> AdminCore {
        let (servers, options) = (servers.to_owned(), options.clone());
        AdminCore { cluster, servers, options, call: None, trouble: String::new() }
    }

    /// Begins a call; one that was under way is forgotten. The first, of a client that connects, has less time.
    pub(crate) fn begin(&mut self, request: Request, within: Duration, now: Instant) {
        self.trouble.clear();
        self.call = Some(Call { request, until: now + within, state: State::Waiting { not_before: now } });
    }

    /// The call's outcome, once.
    pub(crate) fn outcome(&mut self) -> Option<Result<Answer, ClientError>> {
        let call = self.call.take_if(|call| matches!(call.state, State::Done(_)))?;
        match call.state {
            State::Done(outcome) => Some(outcome),
            State::Waiting { .. } | State::Sent(_) => None,
        }
    }

    fn again(&mut self, pause: Duration, why: String, now: Instant) {
        self.trouble = why;
        if let Some(call) = &mut self.call {
            call.state = State::Waiting { not_before: now + pause };
        }
    }

    fn answered(&mut self, outcome: Result<Answer, Refusal>, now: Instant) {
        let Some(call) = &mut self.call else { return };
        let repeatable = call.request.is_repeatable();
        match outcome {
            Ok(answer) => call.state = State::Done(Ok(answer)),
            Err(refusal) => {
                let again = match refusal.retry() {
                    Retry::Yes => true,
                    Retry::MayRepeat => repeatable,
                    Retry::No => false,
                };
                if again {
                    let pause = refusal.retry_after().unwrap_or(self.options.backoff);
                    self.again(pause, refusal.to_string(), now);
                } else {
                    call.state = State::Done(Err(refusal.into()));
                }
            }
        }
    }

    /// The call's time is up before it could be done.
    fn expire(&mut self, now: Instant) {
        let Some(call) = &mut self.call else { return };
        if call.until > now || matches!(call.state, State::Done(_) | State::Sent(_)) {
            return;
        }
        let operation = call.request.operation;
        let error = if self.trouble.is_empty() {
            ClientError::Unreachable { servers: self.servers.clone(), why: self.cluster.trouble() }
        } else {
            ClientError::TimedOut { operation, why: self.trouble.clone() }
        };
        call.state = State::Done(Err(error));
    }
}

impl Machine for AdminCore {
    fn cluster(&mut self) -> &mut Cluster {
        &mut self.cluster
    }

    fn event(&mut self, link: LinkId, event: Event<'_, Token>, now: Instant) {
        let Event::Answered { token: Token::Call, header, outcome } = event else { return };
        if !self.call.as_ref().is_some_and(|call| matches!(call.state, State::Sent(on) if on == link)) {
            return;
        }
        let host = self.cluster.address(link).host.clone();
        self.answered(outcome.map(|response| own(&response, (link, header.handle), &host)), now);
    }

    fn lost(&mut self, link: LinkId, why: &Ended, unanswered: Vec<(Token, bool)>, now: Instant) {
        let Some(call) = &mut self.call else { return };
        if matches!(call.request.lane, Some((on, _)) if on == link) && !matches!(call.state, State::Done(_)) {
            // Its handle is gone with the link; who made the call opens another.
            let (server, operation) = (self.cluster.address(link).to_string(), call.request.operation);
            call.state = State::Done(Err(ClientError::OutcomeUnknown { server, operation, why: why.clone() }));
            return;
        }
        if !matches!(call.state, State::Sent(on) if on == link) {
            return;
        }
        let whole = unanswered.iter().any(|&(token, whole)| token == Token::Call && whole);
        if whole && !call.request.is_repeatable() {
            let (server, operation) = (self.cluster.address(link).to_string(), call.request.operation);
            call.state = State::Done(Err(ClientError::OutcomeUnknown { server, operation, why: why.clone() }));
        } else {
            self.again(Duration::ZERO, String::new(), now);
        }
    }

    fn pump(&mut self, now: Instant) {
        self.expire(now);
        let Some(call) = &mut self.call else { return };
        let State::Waiting { not_before } = call.state else { return };
        if not_before > now {
            return;
        }
        let lane = match call.request.lane {
            Some(lane) => lane,
            None => match self.cluster.any(now) {
                Some(link) => (link, 0),
                None => return,
            },
        };
        let Some(connection) = self.cluster.connection(lane.0) else { return };
        let Request { operation, body, .. } = &call.request;
        connection.request(*operation, lane.1, &(), body, Duration::ZERO, Token::Call, now);
        call.state = State::Sent(lane.0);
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let call = self.call.as_ref().and_then(|call| match call.state {
            State::Waiting { not_before } if not_before > now => Some(not_before.min(call.until)),
            State::Waiting { .. } => Some(call.until),
            State::Sent(_) | State::Done(_) => None,
        });
        call.into_iter().chain(self.cluster.deadline(now)).min()
    }
}

/// Runs one call to its outcome: what a driver adds.
pub(crate) trait Caller {
    fn call(&mut self, request: Request) -> impl Future<Output = Result<Answer, ClientError>> + Send;
}

/// The calls there are, over any driver.
pub(crate) async fn ping(to: &mut impl Caller) -> Result<(), ClientError> {
    to.call(Request::new(Operation::Ping, &())).await.map(drop)
}

pub(crate) async fn cluster(to: &mut impl Caller) -> Result<ClusterInfo, ClientError> {
    let request = MetadataRequest { topics: Selection::None };
    match to.call(Request::new(Operation::Metadata, &request)).await? {
        Answer::Metadata { cluster, .. } => Ok(cluster),
        answer => Err(odd(&answer)),
    }
}

pub(crate) async fn topics(to: &mut impl Caller) -> Result<Vec<TopicInfo>, ClientError> {
    let mut all = Vec::<TopicInfo>::new();
    loop {
        let after = all.last().map_or("", |topic| topic.name.as_str());
        let request = MetadataRequest { topics: Selection::After(Text::truncated(after)) };
        let request = Request::new(Operation::Metadata, &request);
        let Answer::Metadata { topics, more, .. } = to.call(request).await? else { return Ok(all) };
        let before = all.len();
        all.extend(topics.into_iter().flatten());
        if !more || all.len() == before {
            return Ok(all);
        }
    }
}

pub(crate) async fn stats(to: &mut impl Caller, shard: u16) -> Result<ShardStats, ClientError> {
    match to.call(Request::new(Operation::Stats, &StatsRequest { shard })).await? {
        Answer::Stats(stats) => Ok(stats),
        answer => Err(odd(&answer)),
    }
}

pub(crate) async fn topic(to: &mut impl Caller, topic: &str) -> Result<TopicInfo, ClientError> {
    let names = [text(topic)?];
    let request = MetadataRequest { topics: Selection::Named(List::of(&names)) };
    let unknown = |code| {
        let message = format!("there is no topic {topic:?}");
        let (operation, detail) = (Operation::Metadata, corelog_wire::Detail::None);
        ClientError::Refused(Refusal { operation, code, detail, message })
    };
    match to.call(Request::new(Operation::Metadata, &request)).await? {
        Answer::Metadata { topics, .. } => match topics.into_iter().next() {
            Some(Ok(topic)) => Ok(topic),
            Some(Err((_, code))) => Err(unknown(code)),
            None => Err(unknown(Status::UnknownTopic as u16)),
        },
        answer => Err(odd(&answer)),
    }
}

pub(crate) async fn create_topic(
    to: &mut impl Caller,
    topic: &str,
    partitions: u32,
    settings: &[(&str, &str)],
) -> Result<TopicFacts, ClientError> {
    let settings = settings.iter().map(|(key, value)| setting(key, value)).collect::<Result<Vec<_>, _>>()?;
    let request = CreateTopic { name: text(topic)?, partitions, settings: List::of(&settings) };
    facts(to.call(Request::new(Operation::CreateTopic, &request)).await?)
}

pub(crate) async fn delete_topic(to: &mut impl Caller, topic: &str) -> Result<TopicFacts, ClientError> {
    let request = DeleteTopic { topic: Topic::Name(text(topic)?) };
    facts(to.call(Request::new(Operation::DeleteTopic, &request)).await?)
}

pub(crate) async fn alter_topic(
    to: &mut impl Caller,
    topic: &str,
    changes: &TopicChanges,
) -> Result<TopicFacts, ClientError> {
    let set = changes.set.iter().map(|(key, value)| setting(key, value)).collect::<Result<Vec<_>, _>>()?;
    let reset = changes.reset.iter().map(|key| text(key)).collect::<Result<Vec<_>, _>>()?;
    let request = AlterTopic {
        topic: Topic::Name(text(topic)?),
        partitions: changes.partitions.unwrap_or(0),
        set: List::of(&set),
        reset: List::of(&reset),
    };
    facts(to.call(Request::new(Operation::AlterTopic, &request)).await?)
}

pub(crate) async fn describe_topic(to: &mut impl Caller, topic: &str) -> Result<TopicDescription, ClientError> {
    let mut described: Option<TopicDescription> = None;
    loop {
        let first_partition = described.as_ref().map_or(0, |described| described.partitions.len() as u32);
        let name = Topic::Name(text(topic)?);
        let request = DescribeTopic { topic: name, first_partition, partitions_max: PARTITIONS_PAGE };
        let answer = to.call(Request::new(Operation::DescribeTopic, &request)).await?;
        let Answer::Described { description, partition_count } = answer else { return Err(odd(&answer)) };
        let came = description.partitions.len();
        let all = match &mut described {
            Some(all) if all.id != description.id => {
                // Another topic of that name now: begin again.
                described = None;
                continue;
            }
            Some(all) => {
                all.partitions.extend(description.partitions);
                all
            }
            None => described.insert(description),
        };
        if came == 0 || all.partitions.len() as u32 >= partition_count {
            return described.ok_or_else(|| ClientError::Invalid(topic.to_owned()));
        }
    }
}

pub(crate) async fn list_offsets(
    to: &mut impl Caller,
    topic: &str,
    partition: u32,
    which: ListOffsets,
) -> Result<Option<FoundOffset>, ClientError> {
    match at_partition(to, topic, partition, &Request::new(Operation::ListOffsets, &which)).await? {
        Answer::Offset(found) => Ok(found),
        answer => Err(odd(&answer)),
    }
}

pub(crate) async fn delete_records(
    to: &mut impl Caller,
    topic: &str,
    partition: u32,
    before: i64,
) -> Result<i64, ClientError> {
    let request = Request::new(Operation::DeleteRecords, &DeleteRecords { before });
    match at_partition(to, topic, partition, &request).await? {
        Answer::First(first) => Ok(first),
        answer => Err(odd(&answer)),
    }
}

/// Opens the partition, makes the call, closes it. All of these may be repeated, so a lost link is tried again, a few times.
async fn at_partition(
    to: &mut impl Caller,
    topic: &str,
    partition: u32,
    request: &Request,
) -> Result<Answer, ClientError> {
    let open = Request::new(Operation::Open, &Open { topic: Topic::Name(text(topic)?), partition });
    let mut attempts = 0;
    loop {
        attempts += 1;
        let answer = to.call(open.clone()).await?;
        let Answer::Opened(lane) = answer else { return Err(odd(&answer)) };
        match to.call(request.clone().at(lane)).await {
            Err(ClientError::OutcomeUnknown { .. }) if attempts < 5 => {}
            outcome => {
                // Without effect on the outcome: a handle that cannot be closed went with its connection.
                let _ = to.call(Request::new(Operation::Close, &()).at(lane)).await;
                return outcome;
            }
        }
    }
}

fn text(text: &str) -> Result<Text<'_>, ClientError> {
    Text::new(text).map_err(|error| ClientError::Invalid(error.to_string()))
}

fn setting<'a>(key: &'a str, value: &'a str) -> Result<Setting<'a>, ClientError> {
    Ok(Setting { key: text(key)?, value: text(value)? })
}

fn facts(answer: Answer) -> Result<TopicFacts, ClientError> {
    match answer {
        Answer::Facts(facts) => Ok(facts),
        answer => Err(odd(&answer)),
    }
}

/// The connection refuses answers of another operation than asked for, so this is not met.
fn odd(answer: &Answer) -> ClientError {
    ClientError::Invalid(format!("an answer of another kind than asked for: {answer:?}"))
}

fn own(response: &Response<'_>, lane: (LinkId, u32), host: &str) -> Answer {
    match response {
        Response::Metadata(metadata) => own_metadata(metadata, host),
        Response::CreateTopic(facts) | Response::DeleteTopic(facts) | Response::AlterTopic(facts) => {
            Answer::Facts(TopicFacts { id: facts.id, partitions: facts.partitions })
        }
        Response::DescribeTopic(state) => own_state(state),
        Response::Open(_) => Answer::Opened(lane),
        Response::ListOffsets(found) => {
            let (offset, timestamp) = (found.offset, found.timestamp);
            Answer::Offset((offset >= 0).then_some(FoundOffset { offset, timestamp }))
        }
        Response::DeleteRecords(deleted) => Answer::First(deleted.first),
        Response::Stats(stats) => Answer::Stats(own_stats(stats)),
        _ => Answer::Done,
    }
}

fn own_metadata(metadata: &Metadata<'_>, host: &str) -> Answer {
    let endpoints = metadata.endpoints.iter().map(|endpoint| EndpointInfo {
        node: endpoint.node,
        shard: endpoint.shard,
        host: if endpoint.host.as_str().is_empty() { host.to_owned() } else { endpoint.host.as_str().to_owned() },
        port: endpoint.port,
    });
    let cluster = ClusterInfo { cluster_id: metadata.cluster_id, node: metadata.node, endpoints: endpoints.collect() };
    let topics = metadata.topics.iter().map(|entry| {
        let name = entry.name.as_str().to_owned();
        if entry.status != 0 {
            return Err((name, entry.status));
        }
        let owners = entry.owners.iter().map(|owner| (owner.node, owner.shard)).collect();
        Ok(TopicInfo { id: entry.id, name, owners })
    });
    Answer::Metadata { cluster, topics: topics.collect(), more: metadata.more }
}

fn own_stats(stats: &corelog_wire::ShardStats<'_>) -> ShardStats {
    let count = |count: corelog_wire::Count<'_>| CountInfo {
        name: count.name.as_str().to_owned(),
        total: count.total,
        value: count.value,
    };
    let bucket = |bucket: corelog_wire::Bucket| (Duration::from_nanos(bucket.up_to_ns), bucket.count);
    let stage = |stage: corelog_wire::StageTimes<'_>| StageInfo {
        name: stage.name.as_str().to_owned(),
        sum: Duration::from_nanos(stage.sum_ns),
        buckets: stage.buckets.iter().map(bucket).collect(),
    };
    ShardStats {
        shard: stats.shard,
        counts: stats.counts.iter().map(count).collect(),
        stages: stats.stages.iter().map(stage).collect(),
    }
}

fn own_state(state: &TopicState<'_>) -> Answer {
    let settings = state.settings.iter().map(|setting| SettingInfo {
        key: setting.key.as_str().to_owned(),
        value: setting.value.as_str().to_owned(),
        set: setting.set,
    });
    let description = TopicDescription {
        id: state.id,
        name: state.name.as_str().to_owned(),
        settings: settings.collect(),
        partitions: state.partitions.iter().map(|partition| own_partition(&partition)).collect(),
    };
    Answer::Described { description, partition_count: state.partition_count }
}

fn own_partition(state: &PartitionState<'_>) -> PartitionInfo {
    let known = Status::from_code(state.status).map_or("unknown status", Status::name);
    PartitionInfo {
        partition: state.partition,
        node: state.node,
        shard: state.shard,
        trouble: (state.status != 0).then(|| known.to_owned()),
        leader_epoch: state.leader_epoch,
        first: state.first,
        next: state.next,
        high_watermark: state.high_watermark,
        bytes: state.bytes,
        segments: state.segments,
        crossings: state.crossings,
        fenced: (!state.fenced.as_str().is_empty()).then(|| state.fenced.as_str().to_owned()),
    }
}
