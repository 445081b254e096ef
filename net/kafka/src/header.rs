//! Frames: a length of four bytes, then a header, then the body.

use crate::api::Api;
use crate::codec::{Malformed, Reader, Sink, Writer};

/// The length, and the part of a request's header that every request has: key, version, correlation.
pub const FIXED_BYTES: usize = 4 + FIXED_HEADER_BYTES;
const FIXED_HEADER_BYTES: usize = 8;

/// The part of a request's header that every request has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Which request; see [`Api::of_key`].
    pub key: i16,
    /// In which version.
    pub version: i16,
    /// The client's number for it, which its response repeats.
    pub correlation: i32,
}

/// Bytes of the frame that begins so, with its length; `None` if no frame does.
///
/// # Panics
/// Where there are less than [`FIXED_BYTES`].
pub fn frame_bytes(first: &[u8]) -> Option<usize> {
    let length = usize::try_from(i32::from_be_bytes([first[0], first[1], first[2], first[3]])).ok()?;
    (length >= FIXED_HEADER_BYTES).then_some(4 + length)
}

impl Head {
    /// That of the frame that begins so.
    ///
    /// # Panics
    /// Where there are less than [`FIXED_BYTES`].
    pub fn of(first: &[u8]) -> Head {
        Head {
            key: i16::from_be_bytes([first[4], first[5]]),
            version: i16::from_be_bytes([first[6], first[7]]),
            correlation: i32::from_be_bytes([first[8], first[9], first[10], first[11]]),
        }
    }
}

/// A request in somebody's buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request<'a> {
    /// Which.
    pub api: Api,
    /// In which version, of those that are served.
    pub version: i16,
    /// The client's number for it.
    pub correlation: i32,
    /// What the client calls itself.
    pub client_id: Option<&'a str>,
    /// What is behind the header.
    pub body: &'a [u8],
}

impl<'a> Request<'a> {
    /// The request in a whole frame that asks for `api`.
    ///
    /// # Errors
    /// If its version is not served, or its header is malformed.
    pub fn parse(api: Api, frame: &'a [u8]) -> Result<Request<'a>, Malformed> {
        let Head { version, correlation, .. } = Head::of(frame);
        if !api.versions().contains(version) {
            return Err(Malformed::Version(version));
        }
        // The client's name is not compact in any version.
        let mut names = Reader::new(&frame[FIXED_BYTES..], false);
        let client_id = names.nullable_text()?;
        let mut rest = Reader::new(names.rest(), api.is_flexible(version));
        rest.tags()?;
        Ok(Request { api, version, correlation, client_id, body: rest.rest() })
    }

    /// The fields of the body.
    pub fn reader(&self) -> Reader<'a> {
        Reader::new(self.body, self.api.is_flexible(self.version))
    }
}

/// Puts the length and the header of a response whose body has `bytes`.
pub fn put_response(api: Api, version: i16, correlation: i32, bytes: usize, out: &mut impl Sink) {
    let has_tags = api.has_response_tags(version);
    let mut writer = Writer::new(out, has_tags);
    let length = 4 + usize::from(has_tags) + bytes;
    writer.i32(i32::try_from(length).unwrap_or(i32::MAX));
    writer.i32(correlation);
    writer.tags();
}

/// Bytes of the length and the header of a response.
pub fn response_bytes(api: Api, version: i16) -> usize {
    8 + usize::from(api.has_response_tags(version))
}
