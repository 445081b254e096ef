//! What the tests of several modules need: requests as others write them.

use crate::api::Api;
use crate::header::FIXED_BYTES;
use kafka_protocol::messages::RequestHeader;
use kafka_protocol::protocol::{Encodable, StrBytes};
use proptest::sample::Index;

/// The whole frame of a request by `kafka-protocol`.
pub(crate) fn framed(api: Api, version: i16, message: &impl Encodable) -> Vec<u8> {
    let header = RequestHeader::default()
        .with_request_api_key(api as i16)
        .with_request_api_version(version)
        .with_correlation_id(7)
        .with_client_id(Some(StrBytes::from_static_str("someone")));
    let mut frame = vec![0; 4];
    header.encode(&mut frame, if api.is_flexible(version) { 2 } else { 1 }).unwrap();
    message.encode(&mut frame, version).unwrap();
    let length = frame.len() as u32 - 4;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame
}

/// Ends a frame anywhere behind what every frame has, and changes a byte there.
pub(crate) fn cut_short(frame: &mut Vec<u8>, cut: Index, byte: u8) {
    let end = FIXED_BYTES + cut.index(frame.len() - FIXED_BYTES + 1);
    frame.truncate(end);
    if let Some(last) = frame[FIXED_BYTES..].last_mut() {
        *last = byte;
    }
}
