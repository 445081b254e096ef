//! DeleteTopics: by name, or by id.

use super::errors;
use super::topics::find;
use corelog_engine::shard::{Command, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::fetch::Topic;
use corelog_kafka::messages::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse, StrBytes, TopicName,
};

pub(super) async fn delete_topics(shard: Shard, request: DeleteTopicsRequest, version: i16) -> DeleteTopicsResponse {
    let named = request.topic_names.into_iter().map(|name| DeleteTopicState::default().with_name(Some(name)));
    let mut responses = Vec::new();
    for topic in request.topics.into_iter().chain(named) {
        responses.push(delete(&shard, topic, version).await);
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

async fn delete(shard: &Shard, asked: DeleteTopicState, version: i16) -> DeletableTopicResult {
    let result = DeletableTopicResult::default().with_name(asked.name.clone());
    let result = if version >= 6 { result.with_topic_id(asked.topic_id) } else { result };
    let topic = match &asked.name {
        Some(name) => Topic::Name(name),
        None => Topic::Id(asked.topic_id),
    };
    let found = match find(shard, &topic) {
        Ok(found) => found,
        Err(error) => return result.with_error_code(error.code()),
    };
    let name = found.name.to_string();
    let result = result.with_name(Some(TopicName(StrBytes::from_string(name.clone()))));
    let result = if version >= 6 { result.with_topic_id(found.id.0) } else { result };
    match shard.command(Command::DeleteTopic { name }).await {
        Ok(()) => result.with_error_code(ErrorCode::None.code()),
        Err(error) => {
            let why = (version >= 5).then(|| StrBytes::from_string(error.to_string()));
            result.with_error_code(errors::of_command(&error).code()).with_error_message(why)
        }
    }
}
