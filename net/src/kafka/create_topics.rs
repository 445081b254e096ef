//! CreateTopics: one after the other, each as durable as the metadata log before it is answered.

use super::configs::{SET_BY_DEFAULT, SET_BY_TOPIC};
use super::dialect::Shared;
use super::errors;
use super::topics::find;
use corelog_engine::metadata::TopicInfo;
use corelog_engine::shard::{Command, CommandError};
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use corelog_kafka::messages::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest, CreateTopicsResponse, StrBytes,
};
use std::rc::Rc;

/// The one replica that there is.
const REPLICAS: i16 = 1;
/// What a client sends that leaves a number to the server.
const DEFAULT: i32 = -1;

struct Refused(ErrorCode, String);

pub(super) async fn create_topics(
    shared: Rc<Shared>,
    request: CreateTopicsRequest,
    version: i16,
) -> CreateTopicsResponse {
    let mut results = Vec::new();
    for topic in &request.topics {
        let named = request.topics.iter().filter(|other| other.name == topic.name).count();
        let created = match named {
            1 => create(&shared, topic, request.validate_only).await,
            _ => Err(Refused(ErrorCode::InvalidRequest, "the request has this topic more than once".to_owned())),
        };
        results.push(match created {
            Ok(info) => created_result(topic, info.as_ref(), version),
            Err(Refused(error, why)) => CreatableTopicResult::default()
                .with_name(topic.name.clone())
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::from_string(why))),
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// The topic; none if it was only to be looked whether there can be one.
async fn create(shared: &Shared, topic: &CreatableTopic, validate_only: bool) -> Result<Option<TopicInfo>, Refused> {
    let (shard, command) = (&shared.shard, command(topic, shared.own.node.partitions)?);
    let refused = |error: CommandError| Refused(errors::of_command(&error), error.to_string());
    if validate_only {
        return shard.check_command(&command).map(|()| None).map_err(|error| refused(error.into()));
    }
    shard.command(command).await.map_err(refused)?;
    Ok(find(shard, &Topic::Name(&topic.name)).ok())
}

fn command(topic: &CreatableTopic, partitions_default: u32) -> Result<Command, Refused> {
    if !topic.assignments.is_empty() {
        let why = "partitions are placed by the server: give their number instead";
        return Err(Refused(ErrorCode::InvalidReplicaAssignment, why.to_owned()));
    }
    if topic.replication_factor != REPLICAS && i32::from(topic.replication_factor) != DEFAULT {
        let why = format!("replication factor {}: there is one node, so it is 1", topic.replication_factor);
        return Err(Refused(ErrorCode::InvalidReplicationFactor, why));
    }
    let partitions = match topic.num_partitions {
        DEFAULT => partitions_default,
        // What is negative is refused with what is 0.
        number => u32::try_from(number).unwrap_or(0),
    };
    let settings = topic.configs.iter().filter_map(|config| {
        // Without a value the default is meant.
        Some((config.name.to_string(), config.value.as_ref()?.to_string()))
    });
    Ok(Command::CreateTopic { name: topic.name.to_string(), partitions, settings: settings.collect() })
}

fn created_result(topic: &CreatableTopic, info: Option<&TopicInfo>, version: i16) -> CreatableTopicResult {
    let result = CreatableTopicResult::default().with_name(topic.name.clone());
    let Some(info) = info.filter(|_| version >= 5) else { return result };
    let configs = info.settings.show().into_iter().map(|shown| {
        CreatableTopicConfigs::default()
            .with_name(StrBytes::from_static_str(shown.key))
            .with_value(Some(StrBytes::from_string(shown.value)))
            .with_config_source(if shown.is_default { SET_BY_DEFAULT } else { SET_BY_TOPIC })
    });
    let result = result
        .with_num_partitions(info.partitions as i32)
        .with_replication_factor(REPLICAS)
        .with_configs(Some(configs.collect()));
    if version >= 7 { result.with_topic_id(info.id.0) } else { result }
}
