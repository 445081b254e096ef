//! Settings: described and changed, those of topics under Kafka's names; of a broker, what is the same for all topics.

use super::dialect::Shared;
use super::errors;
use super::topics::find;
use corelog_engine::metadata::{Shown, TopicSettings};
use corelog_engine::shard::{Command, CommandError, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use corelog_kafka::messages::{
    AlterConfigsRequest, AlterConfigsResponse, AlteredConfigs, DescribeConfigsRequest, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, IncrementallyAlteredConfigs, StrBytes,
};
use std::rc::Rc;

/// Kinds of resources, by Kafka's numbers.
const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Where a value comes from, by Kafka's numbers.
pub(super) const SET_BY_TOPIC: i8 = 1;
const SET_BY_BROKER: i8 = 4;
pub(super) const SET_BY_DEFAULT: i8 = 5;

/// Kinds of values, by Kafka's numbers.
const BOOLEAN: i8 = 1;
const STRING: i8 = 2;
const LONG: i8 = 5;
const DOUBLE: i8 = 6;
const LIST: i8 = 7;

/// What an incremental change does, by Kafka's numbers.
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// The only setting that is a list.
const LIST_SETTING: &str = "cleanup.policy";

type Refused = (ErrorCode, String);

pub(super) async fn describe_configs(
    shared: Rc<Shared>,
    request: DescribeConfigsRequest,
    version: i16,
) -> DescribeConfigsResponse {
    let results = request.resources.iter().map(|resource| {
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        let wanted = |key: &str| {
            let keys = resource.configuration_keys.as_ref();
            keys.is_none_or(|keys| keys.is_empty() || keys.iter().any(|wanted| wanted.as_str() == key))
        };
        let configs = match resource.resource_type {
            TOPIC => of_topic(&shared.shard, &resource.resource_name),
            BROKER => Ok(shared.own.node.shown.to_vec()),
            _ => Err((ErrorCode::InvalidRequest, "only topics and brokers have settings".to_owned())),
        };
        match configs {
            Ok(configs) => result.with_configs(
                configs
                    .iter()
                    .filter(|config| wanted(config.key))
                    .map(|config| described(config, resource.resource_type, &request, version))
                    .collect(),
            ),
            Err((error, why)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(why)))
            }
        }
    });
    let results = results.collect();
    DescribeConfigsResponse::default().with_results(results)
}

fn of_topic(shard: &Shard, name: &str) -> Result<Vec<Shown>, Refused> {
    let topic = find(shard, &Topic::Name(name)).map_err(|error| (error, format!("there is no topic {name}")))?;
    Ok(topic.settings.show())
}

fn described(shown: &Shown, kind: i8, request: &DescribeConfigsRequest, version: i16) -> DescribeConfigsResourceResult {
    let value = Some(StrBytes::from_string(shown.value.clone()));
    let source = match (shown.is_default, kind) {
        (true, _) => SET_BY_DEFAULT,
        (false, BROKER) => SET_BY_BROKER,
        (false, _) => SET_BY_TOPIC,
    };
    let described = DescribeConfigsResourceResult::default()
        .with_name(StrBytes::from_static_str(shown.key))
        .with_value(value.clone())
        .with_read_only(kind == BROKER)
        .with_config_source(source);
    let described = match request.include_synonyms {
        true => {
            let synonym = DescribeConfigsSynonym::default().with_name(StrBytes::from_static_str(shown.key));
            described.with_synonyms(vec![synonym.with_value(value).with_source(source)])
        }
        false => described,
    };
    if version < 3 {
        return described;
    }
    let meaning = TopicSettings::documented().find(|documented| documented.key == shown.key);
    let meaning = meaning.filter(|_| request.include_documentation);
    described
        .with_config_type(kind_of(shown))
        .with_documentation(meaning.map(|documented| StrBytes::from_static_str(documented.meaning)))
}

fn kind_of(shown: &Shown) -> i8 {
    match shown.key {
        LIST_SETTING => LIST,
        "min.cleanable.dirty.ratio" => DOUBLE,
        _ if shown.value.parse::<bool>().is_ok() => BOOLEAN,
        _ if shown.value.parse::<i64>().is_ok() => LONG,
        _ => STRING,
    }
}

/// Replaces all: what is not named goes back to its default.
pub(super) async fn alter_configs(shard: Shard, request: AlterConfigsRequest, _: i16) -> AlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let given = |key: &str| {
            let config = resource.configs.iter().find(|config| config.name.as_str() == key);
            config.and_then(|config| config.value.as_ref()).map(ToString::to_string)
        };
        let known = TopicSettings::documented().map(|documented| (documented.key.to_owned(), given(documented.key)));
        let is_known = |key: &str| TopicSettings::documented().any(|documented| documented.key == key);
        // Names that are none are refused with the nearest that is.
        let unknown = resource.configs.iter().filter(|config| !is_known(&config.name));
        let unknown = unknown.map(|config| (config.name.to_string(), config.value.as_ref().map(ToString::to_string)));
        let changes = known.chain(unknown).collect();
        let outcome = alter(&shard, resource.resource_type, &resource.resource_name, changes, request.validate_only);
        let (error, why) = told(outcome.await);
        responses.push(
            AlteredConfigs::default()
                .with_error_code(error.code())
                .with_error_message(why)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    AlterConfigsResponse::default().with_responses(responses)
}

pub(super) async fn incremental_alter_configs(
    shard: Shard,
    request: IncrementalAlterConfigsRequest,
    _: i16,
) -> IncrementalAlterConfigsResponse {
    let mut responses = Vec::new();
    for resource in request.resources {
        let changes = resource.configs.iter().map(|config| match (config.config_operation, &config.value) {
            (SET, Some(value)) => Ok((config.name.to_string(), Some(value.to_string()))),
            (DELETE, _) => Ok((config.name.to_string(), None)),
            (SET, None) => {
                Err((ErrorCode::InvalidRequest, format!("{} has no value to be set to", config.name.as_str())))
            }
            (APPEND | SUBTRACT, Some(value)) if config.name.as_str() == LIST_SETTING => {
                let list = changed_list(&shard, &resource.resource_name, config.config_operation, value)?;
                Ok((config.name.to_string(), Some(list)))
            }
            _ => Err((ErrorCode::InvalidConfig, format!("{} is no list: set or delete it", config.name.as_str()))),
        });
        let outcome = match changes.collect() {
            Ok(changes) => {
                let (kind, name) = (resource.resource_type, &resource.resource_name);
                alter(&shard, kind, name, changes, request.validate_only).await
            }
            Err(refused) => Err(refused),
        };
        let (error, why) = told(outcome);
        responses.push(
            IncrementallyAlteredConfigs::default()
                .with_error_code(error.code())
                .with_error_message(why)
                .with_resource_type(resource.resource_type)
                .with_resource_name(resource.resource_name),
        );
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// The list with words more, or less, than a topic has.
fn changed_list(shard: &Shard, topic: &str, operation: i8, words: &str) -> Result<String, Refused> {
    let shown = of_topic(shard, topic)?.into_iter().find(|shown| shown.key == LIST_SETTING);
    let known = shown.map(|shown| shown.value).unwrap_or_default();
    let is_named = |word: &&str| words.split(',').any(|named| named.trim() == *word);
    let mut list: Vec<&str> = known.split(',').filter(|word| !word.is_empty() && !is_named(word)).collect();
    if operation == APPEND {
        list.extend(words.split(',').map(str::trim));
    }
    Ok(list.join(","))
}

fn told(outcome: Result<(), Refused>) -> (ErrorCode, Option<StrBytes>) {
    match outcome {
        Ok(()) => (ErrorCode::None, None),
        Err((error, why)) => (error, Some(StrBytes::from_string(why))),
    }
}

async fn alter(
    shard: &Shard,
    kind: i8,
    name: &str,
    changes: Vec<(String, Option<String>)>,
    validate_only: bool,
) -> Result<(), Refused> {
    if kind != TOPIC {
        let why = "only settings of topics can be changed; those of the server are given to `corelog serve`";
        return Err((ErrorCode::InvalidRequest, why.to_owned()));
    }
    let command = Command::AlterTopic { name: name.to_owned(), changes };
    let outcome = match validate_only {
        true => shard.check_command(&command).map_err(CommandError::from),
        false => shard.command(command).await,
    };
    outcome.map_err(|error| (errors::of_command(&error), error.to_string()))
}
