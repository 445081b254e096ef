//! A connection that speaks Kafka's protocol and says exactly what a test wants.

use crate::harness::{Client, KAFKA_PORT, Wire};
use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::MetadataResponseTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::PartitionProduceResponse;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

/// Versions that tests use where any will do.
pub const PRODUCE: i16 = 9;
pub const FETCH: i16 = 12;

/// A connection of the client's.
pub struct Kafka {
    pub wire: Wire,
    received: Vec<u8>,
    correlation: i32,
}

/// A request and the response that it has.
pub trait Call: Encodable + HeaderVersion {
    const KEY: ApiKey;
    type Response: Decodable + HeaderVersion;
}

macro_rules! calls {
    ($($key:ident $request:ident $response:ident,)*) => {
        $(impl Call for $request {
            const KEY: ApiKey = ApiKey::$key;
            type Response = $response;
        })*
    };
}

calls! {
    Produce ProduceRequest ProduceResponse,
    Fetch FetchRequest FetchResponse,
    ListOffsets ListOffsetsRequest ListOffsetsResponse,
    ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse,
    ConsumerGroupDescribe ConsumerGroupDescribeRequest ConsumerGroupDescribeResponse,
    Metadata MetadataRequest MetadataResponse,
    ApiVersions ApiVersionsRequest ApiVersionsResponse,
    CreateTopics CreateTopicsRequest CreateTopicsResponse,
    DeleteTopics DeleteTopicsRequest DeleteTopicsResponse,
    DeleteRecords DeleteRecordsRequest DeleteRecordsResponse,
    OffsetForLeaderEpoch OffsetForLeaderEpochRequest OffsetForLeaderEpochResponse,
    DescribeConfigs DescribeConfigsRequest DescribeConfigsResponse,
    AlterConfigs AlterConfigsRequest AlterConfigsResponse,
    DescribeLogDirs DescribeLogDirsRequest DescribeLogDirsResponse,
    CreatePartitions CreatePartitionsRequest CreatePartitionsResponse,
    IncrementalAlterConfigs IncrementalAlterConfigsRequest IncrementalAlterConfigsResponse,
    OffsetCommit OffsetCommitRequest OffsetCommitResponse,
    OffsetFetch OffsetFetchRequest OffsetFetchResponse,
    FindCoordinator FindCoordinatorRequest FindCoordinatorResponse,
    JoinGroup JoinGroupRequest JoinGroupResponse,
    Heartbeat HeartbeatRequest HeartbeatResponse,
    LeaveGroup LeaveGroupRequest LeaveGroupResponse,
    SyncGroup SyncGroupRequest SyncGroupResponse,
    DescribeGroups DescribeGroupsRequest DescribeGroupsResponse,
    ListGroups ListGroupsRequest ListGroupsResponse,
    DeleteGroups DeleteGroupsRequest DeleteGroupsResponse,
    OffsetDelete OffsetDeleteRequest OffsetDeleteResponse,
    InitProducerId InitProducerIdRequest InitProducerIdResponse,
    DescribeProducers DescribeProducersRequest DescribeProducersResponse,
    DescribeCluster DescribeClusterRequest DescribeClusterResponse,
}

impl Kafka {
    /// A connection to the port that all shards share.
    pub async fn connect(client: &Client) -> Kafka {
        Kafka::connect_to(client, KAFKA_PORT).await
    }

    pub async fn connect_to(client: &Client, port: u16) -> Kafka {
        Kafka { wire: client.dial_port(port).await, received: Vec::new(), correlation: 0 }
    }

    /// Sends a request and returns its correlation.
    pub async fn ask<C: Call>(&mut self, version: i16, request: &C) -> i32 {
        self.correlation += 1;
        let frame = framed(C::KEY as i16, version, self.correlation, C::header_version(version), |frame| {
            request.encode(frame, version).unwrap();
        });
        self.wire.send(&frame).await;
        self.correlation
    }

    /// The next response, which must be that to this request.
    pub async fn answer<C: Call>(&mut self, version: i16, correlation: i32) -> C::Response {
        let frame = self.next().await.expect("the server closed the connection");
        let mut rest = &frame[..];
        let header = ResponseHeader::decode(&mut rest, C::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation);
        let response = C::Response::decode(&mut rest, version).unwrap();
        assert!(rest.is_empty(), "{} bytes behind the response", rest.len());
        response
    }

    pub async fn call<C: Call>(&mut self, version: i16, request: &C) -> C::Response {
        let correlation = self.ask(version, request).await;
        self.answer::<C>(version, correlation).await
    }

    /// The next frame without its length, or None at the end of the connection.
    pub async fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some((length, rest)) = self.received.split_first_chunk() {
                let length = u32::from_be_bytes(*length) as usize;
                if rest.len() >= length {
                    let frame = rest[..length].to_vec();
                    self.received.drain(..4 + length);
                    return Some(frame);
                }
            }
            let chunk = self.wire.stream.receive().await.ok().flatten()?;
            self.received.extend_from_slice(&chunk);
        }
    }

    /// Creates a topic; the error, or 0.
    pub async fn create(&mut self, topic: &str, partitions: i32, settings: &[(&str, &str)]) -> i16 {
        let config = |(name, value): &(&str, &str)| {
            CreatableTopicConfig::default().with_name(string(name)).with_value(Some(string(value)))
        };
        let topic = CreatableTopic::default()
            .with_name(name(topic))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(config).collect());
        let response = self.call(5, &CreateTopicsRequest::default().with_topics(vec![topic])).await;
        response.topics[0].error_code
    }

    pub async fn metadata(&mut self, topic: &str) -> (MetadataResponse, MetadataResponseTopic) {
        let topic = MetadataRequestTopic::default().with_name(Some(name(topic)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(false);
        let response = self.call(9, &request).await;
        let topic = response.topics[0].clone();
        (response, topic)
    }

    /// Appends bytes to one partition.
    pub async fn produce(&mut self, topic: &str, partition: i32, records: &[u8]) -> PartitionProduceResponse {
        let response = self.call(PRODUCE, &produce(-1, &[(topic, &[(partition, records)])])).await;
        response.responses[0].partition_responses[0].clone()
    }

    /// What one partition has at an offset.
    pub async fn fetch(&mut self, topic: &str, partition: i32, offset: i64, wait_ms: i32) -> PartitionData {
        let response = self.call(FETCH, &fetch(wait_ms, 1, &[(topic, &[(partition, offset)])])).await;
        response.responses[0].partitions[0].clone()
    }

    /// The error and the offset of one partition by time.
    pub async fn list_offset(&mut self, topic: &str, partition: i32, time: i64) -> (i16, i64) {
        let partition = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(time);
        let topic = ListOffsetsTopic::default().with_name(name(topic)).with_partitions(vec![partition]);
        let response = self.call(7, &ListOffsetsRequest::default().with_topics(vec![topic])).await;
        let found = &response.topics[0].partitions[0];
        (found.error_code, found.offset)
    }
}

/// A frame with a header and a body that is put behind it.
pub fn framed(key: i16, version: i16, correlation: i32, header: i16, body: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let head = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(correlation)
        .with_client_id(Some(string("test")));
    let mut frame = vec![0; 4];
    head.encode(&mut frame, header).unwrap();
    body(&mut frame);
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// A topic's name, and what is for each of its partitions.
type Of<'a, T> = (&'a str, &'a [T]);

pub fn produce(acks: i16, topics: &[Of<(i32, &[u8])>]) -> ProduceRequest {
    let partition = |(index, records): &(i32, &[u8])| {
        PartitionProduceData::default().with_index(*index).with_records(Some(Bytes::copy_from_slice(records)))
    };
    let topic = |(topic, partitions): &Of<(i32, &[u8])>| {
        let partitions = partitions.iter().map(partition).collect();
        TopicProduceData::default().with_name(name(topic)).with_partition_data(partitions)
    };
    ProduceRequest::default().with_acks(acks).with_topic_data(topics.iter().map(topic).collect())
}

pub fn fetch(wait_ms: i32, bytes_min: i32, topics: &[Of<(i32, i64)>]) -> FetchRequest {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default().with_partition(*index).with_fetch_offset(*offset).with_partition_max_bytes(1 << 20)
    };
    let topic = |(topic, partitions): &Of<(i32, i64)>| {
        FetchTopic::default().with_topic(name(topic)).with_partitions(partitions.iter().map(partition).collect())
    };
    FetchRequest::default()
        .with_max_wait_ms(wait_ms)
        .with_min_bytes(bytes_min)
        .with_max_bytes(1 << 20)
        .with_topics(topics.iter().map(topic).collect())
}

pub fn string(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn name(topic: &str) -> TopicName {
    TopicName(string(topic))
}
