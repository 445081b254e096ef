//! Topics: who serves which partition, create, delete, alter, describe.

use super::dialect::Connection;
use super::partitions::describe_remote;
use super::refusal::Refusal;
use super::state::State;
use corelog_engine::metadata::{Catalog, TopicInfo, TopicName};
use corelog_engine::model::{LeaderEpoch, Offset, PartitionId, PartitionIndex, ShardId, TopicId};
use corelog_engine::shard::{Command, PartitionStatus, Shard};
use corelog_wire::{
    AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, Endpoint, Header, List, Metadata, MetadataRequest, Owner,
    PartitionState, Selection, SettingInForce, Status, Text, Topic, TopicEntry, TopicFacts, TopicState, Wire,
};
use std::future::Future;
use std::rc::Rc;
use uuid::Uuid;

/// Partitions of a topic that is created without a number.
const PARTITIONS_DEFAULT: u32 = 1;

impl State {
    pub(super) fn create_topic(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        create: CreateTopic<'_>,
    ) -> Result<(), Refusal> {
        let name = create.name.to_string();
        let partitions = if create.partitions == 0 { PARTITIONS_DEFAULT } else { create.partitions };
        let settings = create.settings.iter().map(|setting| (setting.key.to_string(), setting.value.to_string()));
        let command = Command::CreateTopic { name: name.clone(), partitions, settings: settings.collect() };
        self.command(connection, header, name, Some(command));
        Ok(())
    }

    pub(super) fn delete_topic(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        delete: DeleteTopic<'_>,
    ) -> Result<(), Refusal> {
        let shard = connection.shard().clone();
        let (name, facts) = {
            let catalog = shard.catalog();
            let topic = find(&catalog, &delete.topic)?;
            (topic.name.to_string(), facts(topic))
        };
        let deleting = async move {
            shard.command(Command::DeleteTopic { name }).await?;
            Ok(facts)
        };
        self.answer_with_facts(connection, header, deleting);
        Ok(())
    }

    pub(super) fn alter_topic(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        alter: AlterTopic<'_>,
    ) -> Result<(), Refusal> {
        let name = find(&connection.shard().catalog(), &alter.topic)?.name.to_string();
        let set = alter.set.iter().map(|setting| (setting.key.to_string(), Some(setting.value.to_string())));
        let changes: Vec<_> = set.chain(alter.reset.iter().map(|key| (key.to_string(), None))).collect();
        let command = match (alter.partitions, changes.is_empty()) {
            (0, true) => None,
            (0, false) => Some(Command::AlterTopic { name: name.clone(), changes }),
            (partitions, true) => Some(Command::AddPartitions { name: name.clone(), partitions }),
            // Two records of the metadata log: a crash between them would leave a half.
            (_, false) => {
                let message = "partitions and settings of a topic are changed in two requests";
                return Err(Refusal::new(Status::InvalidRequest, message));
            }
        };
        self.command(connection, header, name, command);
        Ok(())
    }

    /// Has the controller change something of the topic, and answers with what became of it.
    fn command(&mut self, connection: &Rc<Connection>, header: Header, name: String, command: Option<Command>) {
        let shard = connection.shard().clone();
        let changing = async move {
            if let Some(command) = command {
                shard.command(command).await?;
            }
            let name = TopicName::parse(&name)?;
            let catalog = shard.catalog();
            let topic = catalog.named(&name).ok_or_else(|| unknown(&name))?;
            Ok(facts(topic))
        };
        self.answer_with_facts(connection, header, changing);
    }

    fn answer_with_facts(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        changing: impl Future<Output = Result<TopicFacts, Refusal>> + 'static,
    ) {
        let work = async move {
            let facts = changing.await?;
            Ok(move |state: &mut State, _: &Rc<Connection>| {
                state.reply(header.response(), &facts);
                Ok(())
            })
        };
        self.errand(connection, header, work);
    }

    pub(super) fn describe_topic(
        &mut self,
        connection: &Rc<Connection>,
        header: Header,
        describe: DescribeTopic<'_>,
    ) -> Result<(), Refusal> {
        let shard = connection.shard().clone();
        let topic = find(&shard.catalog(), &describe.topic)?.clone();
        let most = connection.shared.limits.described_partitions_max as u32;
        let end = describe.first_partition.saturating_add(describe.partitions_max.min(most)).min(topic.partitions);
        let page = describe.first_partition..end;
        let describing = async move {
            let mut states = Vec::with_capacity(page.len());
            for index in page {
                let partition = PartitionId { topic: topic.id, index: PartitionIndex(index) };
                let owner = topic.owner(partition.index, shard.shards());
                states.push((partition.index, owner, describe_any(&shard, owner, partition).await));
            }
            Ok(move |state: &mut State, connection: &Rc<Connection>| {
                state.reply_topic_state(connection, header, &topic, &states);
                Ok(())
            })
        };
        self.errand(connection, header, describing);
        Ok(())
    }

    fn reply_topic_state(
        &mut self,
        connection: &Connection,
        header: Header,
        topic: &TopicInfo,
        states: &[(PartitionIndex, ShardId, Result<PartitionStatus, Refusal>)],
    ) {
        let shown = topic.settings.show();
        let settings: Vec<_> = shown
            .iter()
            .map(|shown| SettingInForce {
                key: Text::truncated(shown.key),
                value: Text::truncated(&shown.value),
                set: !shown.is_default,
            })
            .collect();
        let node = connection.shard().node().node_id;
        let partitions: Vec<_> =
            states.iter().map(|(index, owner, status)| partition_state(node, *index, *owner, status)).collect();
        let state = TopicState {
            id: topic.id.0,
            name: Text::truncated(topic.name.as_str()),
            partition_count: topic.partitions,
            settings: List::of(&settings),
            partitions: List::of(&partitions),
        };
        self.reply(header.response(), &state);
    }

    pub(super) fn metadata(
        &mut self,
        connection: &Connection,
        header: Header,
        request: MetadataRequest<'_>,
    ) -> Result<(), Refusal> {
        let limits = &connection.shared.limits;
        let catalog = connection.shard().catalog();
        let mut page =
            Page { shard: connection.shard(), bytes_max: limits.metadata_bytes_max, bytes: 0, topics: Vec::new() };
        let more = match request.topics {
            Selection::None => false,
            Selection::After(name) => {
                let after = name.as_str().replace('.', "_");
                let mut topics = catalog.topics().filter(|topic| topic.name.folded() > after);
                !topics.all(|topic| page.add(topic))
            }
            Selection::Named(names) if names.len() > limits.metadata_names_max => {
                let message = "too many names in one request";
                return Err(Refusal::limit(Status::InvalidRequest, message, names.len(), limits.metadata_names_max));
            }
            Selection::Named(names) => !names.iter().all(|name| page.add_named(&catalog, name)),
        };
        self.reply_metadata(connection, header, &page, more);
        Ok(())
    }

    fn reply_metadata(&mut self, connection: &Connection, header: Header, page: &Page<'_>, more: bool) {
        let node = connection.shard().node();
        let host = Text::truncated(&connection.shared.own.host);
        let listening = connection.shared.own.ports.listening();
        let endpoints: Vec<_> =
            listening.map(|(shard, port)| Endpoint { node: node.node_id, shard: shard.0, port, host }).collect();
        let topics: Vec<_> = page.topics.iter().map(Found::entry).collect();
        let metadata = Metadata {
            cluster_id: node.cluster_id,
            node: node.node_id,
            endpoints: List::of(&endpoints),
            topics: List::of(&topics),
            more,
        };
        self.reply(header.response(), &metadata);
    }
}

/// Topics of one metadata response.
struct Page<'a> {
    shard: &'a Shard,
    bytes_max: usize,
    bytes: usize,
    topics: Vec<Found<'a>>,
}

struct Found<'a> {
    status: u16,
    id: Uuid,
    name: Text<'a>,
    name_owned: Option<TopicName>,
    owners: Vec<Owner>,
}

impl Found<'_> {
    fn entry(&self) -> TopicEntry<'_> {
        let name = self.name_owned.as_ref().map_or(self.name, |name| Text::truncated(name.as_str()));
        TopicEntry { status: self.status, id: self.id, name, owners: List::of(&self.owners) }
    }
}

impl<'a> Page<'a> {
    /// False if the page is full. The first one always fits.
    fn add(&mut self, topic: &TopicInfo) -> bool {
        let (node, shards) = (self.shard.node().node_id, self.shard.shards());
        let owner = |index| Owner {
            node,
            shard: topic.owner(PartitionIndex(index), shards).0,
            // Known to the owner alone.
            leader_epoch: -1,
        };
        let owners = (0..topic.partitions).map(owner).collect();
        self.put(Found {
            status: 0,
            id: topic.id.0,
            name: Text::default(),
            name_owned: Some(topic.name.clone()),
            owners,
        })
    }

    fn add_named(&mut self, catalog: &Catalog, name: Text<'a>) -> bool {
        match find(catalog, &Topic::Name(name)) {
            Ok(topic) => self.add(topic),
            Err(refusal) => {
                let (status, id) = (refusal.status as u16, Uuid::nil());
                self.put(Found { status, id, name, name_owned: None, owners: Vec::new() })
            }
        }
    }

    fn put(&mut self, found: Found<'a>) -> bool {
        self.bytes += found.entry().size();
        if self.bytes > self.bytes_max && !self.topics.is_empty() {
            return false;
        }
        self.topics.push(found);
        true
    }
}

/// The topic that a request means.
pub(super) fn find<'a>(catalog: &'a Catalog, topic: &Topic<'_>) -> Result<&'a TopicInfo, Refusal> {
    match topic {
        Topic::Name(name) => {
            let name = TopicName::parse(name.as_str())?;
            catalog.named(&name).ok_or_else(|| unknown(&name))
        }
        Topic::Id(id) => {
            let unknown = || Refusal::new(Status::UnknownTopic, format!("there is no topic with the id {id}"));
            catalog.topic(TopicId(*id)).ok_or_else(unknown)
        }
    }
}

fn unknown(name: &TopicName) -> Refusal {
    Refusal::new(Status::UnknownTopic, format!("there is no topic {name}"))
}

fn facts(topic: &TopicInfo) -> TopicFacts {
    TopicFacts { id: topic.id.0, partitions: topic.partitions }
}

async fn describe_any(shard: &Shard, owner: ShardId, partition: PartitionId) -> Result<PartitionStatus, Refusal> {
    if owner != shard.id() {
        return describe_remote(shard, owner, partition).await;
    }
    let status = shard.open(partition).and_then(|handle| shard.describe(handle));
    status.ok_or_else(|| Refusal::new(Status::UnknownPartition, "the partition is gone"))
}

fn partition_state<'a>(
    node: u32,
    index: PartitionIndex,
    owner: ShardId,
    status: &'a Result<PartitionStatus, Refusal>,
) -> PartitionState<'a> {
    let nothing = PartitionStatus {
        first: Offset(0),
        next: Offset(0),
        high_watermark: Offset(0),
        bytes: 0,
        segments: 0,
        leader_epoch: LeaderEpoch(0),
        crossings: 0,
        fenced: None,
    };
    let state = |refused: u16, status: &PartitionStatus, fenced: &'a str| PartitionState {
        partition: index.0,
        node,
        shard: owner.0,
        status: refused,
        leader_epoch: status.leader_epoch.0,
        first: status.first.0,
        next: status.next.0,
        high_watermark: status.high_watermark.0,
        bytes: status.bytes,
        segments: status.segments,
        crossings: status.crossings,
        fenced: Text::truncated(fenced),
    };
    match status {
        Ok(status) => state(0, status, status.fenced.as_deref().unwrap_or_default()),
        Err(refusal) => state(refusal.status as u16, &nothing, ""),
    }
}
