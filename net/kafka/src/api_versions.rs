//! ApiVersions: which requests are served, in which versions.

use crate::ErrorCode;
use crate::api::{Api, Versions};
use crate::codec::{Sink, Writer};

/// The version in which a client is answered that asks in one that is not served: every client can read it.
pub const FALLBACK_VERSION: i16 = 0;

/// Puts the body of a response.
pub fn put(version: i16, error: ErrorCode, out: &mut impl Sink) {
    let mut writer = Writer::new(out, Api::ApiVersions.is_flexible(version));
    writer.i16(error.code());
    writer.count(Some(Api::ALL.len()));
    for api in Api::ALL {
        let Versions { min, max, .. } = api.versions();
        writer.i16(*api as i16);
        writer.i16(min);
        writer.i16(max);
        writer.tags();
    }
    if version >= 1 {
        writer.i32(0);
    }
    writer.tags();
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::ApiVersionsResponse;
    use kafka_protocol::protocol::Decodable;

    #[test]
    fn others_read_it() {
        for version in 0..=3 {
            let mut body = Vec::new();
            put(version, ErrorCode::UnsupportedVersion, &mut body);
            let mut rest = &body[..];
            let response = ApiVersionsResponse::decode(&mut rest, version).unwrap();
            assert!(rest.is_empty());
            assert_eq!((response.error_code, response.throttle_time_ms), (35, 0));
            let keys: Vec<_> =
                response.api_keys.iter().map(|key| (key.api_key, key.min_version, key.max_version)).collect();
            let served = |api: &Api| (*api as i16, api.versions().min, api.versions().max);
            assert_eq!(keys, Api::ALL.iter().map(served).collect::<Vec<_>>());
        }
    }
}
