//! CreatePartitions: how many a topic is to have in all.

use super::errors;
use corelog_engine::shard::{Command, CommandError, Shard};
use corelog_kafka::ErrorCode;
use corelog_kafka::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic, CreatePartitionsTopicResult, StrBytes,
};

pub(super) async fn create_partitions(
    shard: Shard,
    request: CreatePartitionsRequest,
    _: i16,
) -> CreatePartitionsResponse {
    let mut results = Vec::new();
    for topic in request.topics {
        let outcome = add(&shard, &topic, request.validate_only).await;
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match outcome {
            Ok(()) => result,
            Err((error, why)) => {
                result.with_error_code(error.code()).with_error_message(Some(StrBytes::from_string(why)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

async fn add(shard: &Shard, topic: &CreatePartitionsTopic, validate_only: bool) -> Result<(), (ErrorCode, String)> {
    if topic.assignments.as_ref().is_some_and(|assignments| !assignments.is_empty()) {
        let why = "partitions are placed by the server: give their number alone";
        return Err((ErrorCode::InvalidReplicaAssignment, why.to_owned()));
    }
    // What is negative is refused with what is 0.
    let partitions = u32::try_from(topic.count).unwrap_or(0);
    let command = Command::AddPartitions { name: topic.name.to_string(), partitions };
    let outcome = match validate_only {
        true => shard.check_command(&command).map_err(CommandError::from),
        false => shard.command(command).await,
    };
    outcome.map_err(|error| (errors::of_command(&error), error.to_string()))
}
