//! Requests as clients send them, each in one version that both corelog and Apache Kafka's brokers of today serve, and what is
//! answered.

use crate::api::Api;
use crate::codec::{Malformed, Reader};
use crate::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatRequest,
    ConsumerGroupHeartbeatResponse, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, ListGroupsRequest, ListGroupsResponse,
    ListOffsetsRequest, ListOffsetsResponse, MetadataRequest, MetadataResponse, OffsetCommitRequest,
    OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use crate::shape::{Field, walk};
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

/// Bytes of a frame's length.
pub const LENGTH_BYTES: usize = 4;
/// Versions of a request's header without and with tagged fields.
const HEADER: i16 = 1;
const HEADER_WITH_TAGS: i16 = 2;

/// A request that is sent so.
pub trait Call: Encodable {
    /// Which it is.
    const API: Api;
    /// In which version.
    const VERSION: i16;
    /// What it is answered with.
    type Response: Decodable;
    #[doc(hidden)]
    const ANSWER: Answer;
}

/// The fields of a response.
#[derive(Debug, Clone, Copy)]
pub struct Answer(&'static [Field]);

impl Call for MetadataRequest {
    const API: Api = Api::Metadata;
    const VERSION: i16 = 8;
    type Response = MetadataResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::array(&[Field::I32, Field::TEXT, Field::I32, Field::TEXT]),
        Field::TEXT,
        Field::I32,
        Field::array(&[
            Field::I16,
            Field::TEXT,
            Field::BOOL,
            Field::array(&[
                Field::I16,
                Field::I32,
                Field::I32,
                Field::I32,
                Field::values(&Field::I32),
                Field::values(&Field::I32),
                Field::values(&Field::I32),
            ]),
            Field::I32,
        ]),
        Field::I32,
    ]);
}

impl Call for FindCoordinatorRequest {
    const API: Api = Api::FindCoordinator;
    const VERSION: i16 = 2;
    type Response = FindCoordinatorResponse;
    const ANSWER: Answer = Answer(&[Field::I32, Field::I16, Field::TEXT, Field::I32, Field::TEXT, Field::I32]);
}

impl Call for ListGroupsRequest {
    const API: Api = Api::ListGroups;
    const VERSION: i16 = 4;
    type Response = ListGroupsResponse;
    const ANSWER: Answer = Answer(&[Field::I32, Field::I16, Field::array(&[Field::TEXT, Field::TEXT, Field::TEXT])]);
}

impl Call for DescribeGroupsRequest {
    const API: Api = Api::DescribeGroups;
    const VERSION: i16 = 5;
    type Response = DescribeGroupsResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::array(&[
            Field::I16,
            Field::TEXT,
            Field::TEXT,
            Field::TEXT,
            Field::TEXT,
            Field::array(&[Field::TEXT, Field::TEXT, Field::TEXT, Field::TEXT, Field::BYTES, Field::BYTES]),
            Field::I32,
        ]),
    ]);
}

impl Call for ConsumerGroupHeartbeatRequest {
    const API: Api = Api::ConsumerGroupHeartbeat;
    const VERSION: i16 = 0;
    type Response = ConsumerGroupHeartbeatResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::I16,
        Field::TEXT,
        Field::TEXT,
        Field::I32,
        Field::I32,
        Field::optional(&[Field::array(&[Field::UUID, Field::values(&Field::I32)])]),
    ]);
}

/// Partitions of members that their coordinator assigns.
const ASSIGNMENT: &[Field] = &[Field::array(&[Field::UUID, Field::TEXT, Field::values(&Field::I32)])];

impl Call for ConsumerGroupDescribeRequest {
    const API: Api = Api::ConsumerGroupDescribe;
    const VERSION: i16 = 0;
    type Response = ConsumerGroupDescribeResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::array(&[
            Field::I16,
            Field::TEXT,
            Field::TEXT,
            Field::TEXT,
            Field::I32,
            Field::I32,
            Field::TEXT,
            Field::array(&[
                Field::TEXT,
                Field::TEXT,
                Field::TEXT,
                Field::I32,
                Field::TEXT,
                Field::TEXT,
                Field::values(&Field::TEXT),
                Field::TEXT,
                Field::structure(ASSIGNMENT),
                Field::structure(ASSIGNMENT),
            ]),
            Field::I32,
        ]),
    ]);
}

impl Call for OffsetFetchRequest {
    const API: Api = Api::OffsetFetch;
    const VERSION: i16 = 7;
    type Response = OffsetFetchResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I64, Field::I32, Field::TEXT, Field::I16])]),
        Field::I16,
    ]);
}

impl Call for OffsetCommitRequest {
    const API: Api = Api::OffsetCommit;
    const VERSION: i16 = 9;
    type Response = OffsetCommitResponse;
    const ANSWER: Answer = Answer(&[Field::I32, Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I16])])]);
}

impl Call for ListOffsetsRequest {
    const API: Api = Api::ListOffsets;
    const VERSION: i16 = 7;
    type Response = ListOffsetsResponse;
    const ANSWER: Answer = Answer(&[
        Field::I32,
        Field::array(&[Field::TEXT, Field::array(&[Field::I32, Field::I16, Field::I64, Field::I64, Field::I32])]),
    ]);
}

impl Call for DeleteGroupsRequest {
    const API: Api = Api::DeleteGroups;
    const VERSION: i16 = 2;
    type Response = DeleteGroupsResponse;
    const ANSWER: Answer = Answer(&[Field::I32, Field::array(&[Field::TEXT, Field::I16])]);
}

/// The whole frame of a request; `None` if it has what its version cannot say.
pub fn request<C: Call>(correlation: i32, client_id: &str, call: &C) -> Option<Vec<u8>> {
    let header = RequestHeader::default()
        .with_request_api_key(C::API as i16)
        .with_request_api_version(C::VERSION)
        .with_correlation_id(correlation)
        .with_client_id(Some(StrBytes::from_string(client_id.to_owned())));
    let mut frame = vec![0; LENGTH_BYTES];
    let header_version = if C::API.is_flexible(C::VERSION) { HEADER_WITH_TAGS } else { HEADER };
    header.encode(&mut frame, header_version).ok()?;
    call.encode(&mut frame, C::VERSION).ok()?;
    let length = i32::try_from(frame.len() - LENGTH_BYTES).ok()?;
    frame[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Some(frame)
}

/// The number of the request that a response is to, and what it says, from its frame without the length.
///
/// # Errors
/// If it declares what it does not have, or has what it does not declare.
pub fn response<C: Call>(frame: &[u8]) -> Result<(i32, C::Response), Malformed> {
    let mut header = Reader::new(frame, C::API.has_response_tags(C::VERSION));
    let correlation = header.i32()?;
    header.tags()?;
    let body = header.rest();
    walk(C::ANSWER.0, C::VERSION, Reader::new(body, C::API.is_flexible(C::VERSION)))?;
    let mut rest = body;
    let response = C::Response::decode(&mut rest, C::VERSION).map_err(|_| Malformed::Refused)?;
    if rest.is_empty() { Ok((correlation, response)) } else { Err(Malformed::Trailing(rest.len())) }
}

/// What an error of a response is called.
pub fn error_name(code: i16) -> String {
    kafka_protocol::ResponseError::try_from_code(code).map_or_else(|| format!("error {code}"), |e| format!("{e:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::put_response;
    use crate::messages::{
        Assignment, Bytes, ConsumerGroupMember, DescribedConsumerGroup, DescribedGroup, DescribedGroupMember,
        DescribedPartitions, GroupId, ListedGroup, MetadataResponseBroker, MetadataResponsePartition,
        MetadataResponseTopic, ToldAssignment, ToldPartitions, TopicName,
    };
    use kafka_protocol::messages::BrokerId;
    use proptest::prelude::*;

    /// The frame of a response by the broker's half of the library, without its length.
    fn framed<C: Call>(response: &C::Response) -> Vec<u8>
    where
        C::Response: Encodable,
    {
        let mut body = Vec::new();
        response.encode(&mut body, C::VERSION).unwrap();
        let mut frame = Vec::new();
        put_response(C::API, C::VERSION, 9, body.len(), &mut frame);
        frame.extend(body);
        frame.split_off(LENGTH_BYTES)
    }

    fn comes_back<C: Call>(sent: C::Response)
    where
        C::Response: Encodable + Default + PartialEq + std::fmt::Debug,
    {
        let frame = framed::<C>(&sent);
        let (correlation, found) = response::<C>(&frame).unwrap();
        assert_eq!((correlation, &found), (9, &sent));
        for end in 0..frame.len() {
            assert!(response::<C>(&frame[..end]).is_err(), "{:?} cut off at {end}", C::API);
        }
        assert!(response::<C>(&[&frame[..], &[0]].concat()).is_err(), "{:?} with more behind it", C::API);
    }

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    #[test]
    fn what_brokers_answer_is_understood() {
        let broker = MetadataResponseBroker::default().with_node_id(BrokerId(3)).with_host(text("h")).with_port(9092);
        let partition = MetadataResponsePartition::default().with_partition_index(1).with_leader_id(BrokerId(3));
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("t"))))
            .with_partitions(vec![partition.with_isr_nodes(vec![BrokerId(3)])]);
        let metadata = MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
        comes_back::<MetadataRequest>(metadata);
        comes_back::<FindCoordinatorRequest>(FindCoordinatorResponse::default().with_host(text("h")).with_port(5));
        let listed = ListedGroup::default().with_group_id(GroupId(text("g"))).with_group_state(text("Empty"));
        comes_back::<ListGroupsRequest>(ListGroupsResponse::default().with_groups(vec![listed]));
        let member = DescribedGroupMember::default().with_member_assignment(Bytes::from_static(&[0, 1]));
        let group = DescribedGroup::default().with_group_id(GroupId(text("g"))).with_members(vec![member]);
        comes_back::<DescribeGroupsRequest>(DescribeGroupsResponse::default().with_groups(vec![group]));
        let partitions = DescribedPartitions::default().with_topic_name(TopicName(text("t"))).with_partitions(vec![1]);
        let assignment = Assignment::default().with_topic_partitions(vec![partitions]);
        let member =
            ConsumerGroupMember::default().with_assignment(assignment.clone()).with_target_assignment(assignment);
        let group = DescribedConsumerGroup::default().with_group_id(GroupId(text("g"))).with_members(vec![member]);
        comes_back::<ConsumerGroupDescribeRequest>(ConsumerGroupDescribeResponse::default().with_groups(vec![group]));
        comes_back::<ConsumerGroupHeartbeatRequest>(ConsumerGroupHeartbeatResponse::default());
        let partitions = ToldPartitions::default().with_partitions(vec![1, 2]);
        let assignment = ToldAssignment::default().with_topic_partitions(vec![partitions]);
        let told = ConsumerGroupHeartbeatResponse::default().with_assignment(Some(assignment));
        comes_back::<ConsumerGroupHeartbeatRequest>(told);
        comes_back::<OffsetFetchRequest>(OffsetFetchResponse::default().with_error_code(16));
        comes_back::<OffsetCommitRequest>(OffsetCommitResponse::default());
        comes_back::<ListOffsetsRequest>(ListOffsetsResponse::default());
        comes_back::<DeleteGroupsRequest>(DeleteGroupsResponse::default());
    }

    #[test]
    fn requests_are_those_that_the_server_takes() {
        let request_of = |frame: &[u8]| crate::header::Request::parse(Api::ListGroups, frame).map(|_| ());
        assert_eq!(request_of(&request(1, "me", &ListGroupsRequest::default()).unwrap()), Ok(()));
        for (api, version) in [
            (MetadataRequest::API, MetadataRequest::VERSION),
            (FindCoordinatorRequest::API, FindCoordinatorRequest::VERSION),
            (DescribeGroupsRequest::API, DescribeGroupsRequest::VERSION),
            (ConsumerGroupDescribeRequest::API, ConsumerGroupDescribeRequest::VERSION),
            (ConsumerGroupHeartbeatRequest::API, ConsumerGroupHeartbeatRequest::VERSION),
            (OffsetFetchRequest::API, OffsetFetchRequest::VERSION),
            (OffsetCommitRequest::API, OffsetCommitRequest::VERSION),
            (ListOffsetsRequest::API, ListOffsetsRequest::VERSION),
            (DeleteGroupsRequest::API, DeleteGroupsRequest::VERSION),
        ] {
            assert!(api.versions().contains(version), "{api:?} {version}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_harmless(frame in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = response::<MetadataRequest>(&frame);
            let _ = response::<DescribeGroupsRequest>(&frame);
            let _ = response::<OffsetFetchRequest>(&frame);
            let _ = response::<ListOffsetsRequest>(&frame);
        }
    }
}
