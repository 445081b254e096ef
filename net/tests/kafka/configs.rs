//! Settings: what is set is in force and shown, what cannot be is refused with the reason.

use crate::harness::*;
use crate::wire::*;
use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResult;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::*;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

async fn described(
    kafka: &mut Kafka,
    version: i16,
    kind: i8,
    of: &str,
    keys: Option<&[&str]>,
) -> DescribeConfigsResult {
    let keys = keys.map(|keys| keys.iter().map(|key| string(key)).collect());
    let resource = DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(string(of));
    let resource = resource.with_configuration_keys(keys);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let request = if version >= 3 { request.with_include_documentation(true) } else { request };
    kafka.call(version, &request).await.results[0].clone()
}

/// A setting's value, and whether somebody set it.
async fn value(kafka: &mut Kafka, topic: &str, key: &str) -> (String, bool) {
    let result = described(kafka, 4, TOPIC, topic, Some(&[key])).await;
    let [config] = result.configs.as_slice() else { panic!("{result:?}") };
    (config.value.as_ref().unwrap().to_string(), config.config_source == 1)
}

#[test]
fn settings_are_described_in_every_version() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[("retention.ms", "1000")]).await;
        for version in 1..=4 {
            let all = described(&mut kafka, version, TOPIC, "t", None).await;
            assert!(all.error_code == 0 && all.configs.len() > 5, "{all:?}");
            let one = described(&mut kafka, version, TOPIC, "t", Some(&["retention.ms"])).await;
            let [config] = one.configs.as_slice() else { panic!("{one:?}") };
            assert_eq!((config.value.as_deref(), config.config_source, config.read_only), (Some("1000"), 1, false));
            assert_eq!(config.synonyms.len(), 1);
            assert!(version < 3 || config.documentation.is_some() && config.config_type == 5);
            assert_eq!(described(&mut kafka, version, TOPIC, "none", None).await.error_code, 3);
            let broker = described(&mut kafka, version, BROKER, "256", None).await;
            assert!(broker.configs.iter().all(|config| config.read_only));
            assert!(broker.configs.iter().any(|config| config.name.as_str() == "num.partitions"));
            assert_eq!(described(&mut kafka, version, 8, "x", None).await.error_code, 42);
        }
    });
}

#[test]
fn single_settings_are_set_and_put_back() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[("retention.ms", "1000")]).await;
        let change = |kind, name: &str, operation, value: Option<&str>| {
            let config = incremental::AlterableConfig::default()
                .with_name(string(name))
                .with_config_operation(operation)
                .with_value(value.map(string));
            incremental::AlterConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(string("t"))
                .with_configs(vec![config])
        };
        for version in 0..=1 {
            let resources = vec![
                change(TOPIC, "max.message.bytes", 0, Some("5000")),
                change(TOPIC, "retention.ms", 1, None),
                change(TOPIC, "retention.sm", 0, Some("1")),
                change(TOPIC, "retention.bytes", 0, Some("many")),
                change(TOPIC, "retention.bytes", 2, Some("1")),
                change(TOPIC, "retention.bytes", 0, None),
                change(BROKER, "num.partitions", 0, Some("3")),
            ];
            let request = IncrementalAlterConfigsRequest::default().with_resources(resources);
            let looked = kafka.call(version, &request.clone().with_validate_only(true)).await;
            if version == 0 {
                assert_eq!(value(&mut kafka, "t", "retention.ms").await, ("1000".to_owned(), true));
            }
            let done = kafka.call(version, &request).await;
            assert_eq!(looked.responses, done.responses);
            let errors: Vec<_> = done.responses.iter().map(|response| response.error_code).collect();
            assert_eq!(errors, [0, 0, 40, 40, 40, 42, 42]);
            assert!(done.responses[2].error_message.as_ref().unwrap().contains("retention.ms"), "the nearest is told");
        }
        for (operation, words, error, policy) in [
            (2, "compact", 0, "compact,delete"),
            (2, "delete, compact", 0, "compact,delete"),
            (3, "delete", 0, "compact"),
            (3, "compact", 40, "compact"),
            (2, "shred", 40, "compact"),
            (3, "compact,delete", 40, "compact"),
        ] {
            let resources = vec![change(TOPIC, "cleanup.policy", operation, Some(words))];
            let done = kafka.call(1, &IncrementalAlterConfigsRequest::default().with_resources(resources)).await;
            assert_eq!(done.responses[0].error_code, error, "{operation} {words}");
            assert_eq!(value(&mut kafka, "t", "cleanup.policy").await, (policy.to_owned(), true));
        }
        let list = described(&mut kafka, 4, TOPIC, "t", Some(&["cleanup.policy"])).await;
        assert_eq!(list.configs[0].config_type, 7);
        let keyless = batch(&["no key"]);
        assert_eq!(kafka.produce("t", 0, &keyless).await.error_code, 87);
        assert_eq!(value(&mut kafka, "t", "max.message.bytes").await, ("5000".to_owned(), true));
        assert_eq!(value(&mut kafka, "t", "retention.ms").await, ("604800000".to_owned(), false));
        let resources = vec![change(TOPIC, "cleanup.policy", 1, None)];
        kafka.call(1, &IncrementalAlterConfigsRequest::default().with_resources(resources)).await;
        let large = batch(&["x".repeat(6000)]);
        assert_eq!(kafka.produce("t", 0, &large).await.error_code, 10);
    });
}

#[test]
fn all_settings_are_replaced_at_once() {
    run_default(|client| async move {
        let mut kafka = Kafka::connect(&client).await;
        kafka.create("t", 1, &[("retention.ms", "1000")]).await;
        for version in 0..=2 {
            let config = |key: &str, value: &str| {
                AlterableConfig::default().with_name(string(key)).with_value(Some(string(value)))
            };
            let resource = |configs| {
                AlterConfigsResource::default()
                    .with_resource_type(TOPIC)
                    .with_resource_name(string("t"))
                    .with_configs(configs)
            };
            let resources =
                vec![resource(vec![config("nothing", "1")]), resource(vec![config("segment.bytes", "2000000")])];
            let response = kafka.call(version, &AlterConfigsRequest::default().with_resources(resources)).await;
            let errors: Vec<_> = response.responses.iter().map(|response| response.error_code).collect();
            assert_eq!(errors, [40, 0]);
        }
        assert_eq!(value(&mut kafka, "t", "segment.bytes").await, ("2000000".to_owned(), true));
        assert_eq!(value(&mut kafka, "t", "retention.ms").await, ("604800000".to_owned(), false));
    });
}
