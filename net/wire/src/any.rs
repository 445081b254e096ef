//! Every message there is, by direction.

use crate::codec::{DecodeError, Wire};
use crate::error::Failure;
use crate::header::{FLAG_SILENT, Frame, FrameTooLarge, Header, Operation};
use crate::hello::{Hello, Welcome, decode_lenient};
use crate::metadata::{Metadata, MetadataRequest};
use crate::partition::{DeleteRecords, DeletedRecords, ListOffsets, ListedOffset, Open, Opened};
use crate::record::{Batches, Credit, Fetch, Produced, Subscribe, Subscribed};
use crate::stats::{ShardStats, StatsRequest};
use crate::topic::{AlterTopic, CreateTopic, DeleteTopic, DescribeTopic, TopicFacts, TopicState};
use thiserror::Error;

/// What a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described at its operation and its body")]
pub enum Request<'a> {
    Hello(Hello<'a>),
    Ping,
    Metadata(MetadataRequest<'a>),
    Stats(StatsRequest),
    CreateTopic(CreateTopic<'a>),
    DeleteTopic(DeleteTopic<'a>),
    AlterTopic(AlterTopic<'a>),
    DescribeTopic(DescribeTopic<'a>),
    Open(Open<'a>),
    Close,
    Produce { batches: &'a [u8], silent: bool },
    Fetch(Fetch),
    ListOffsets(ListOffsets),
    DeleteRecords(DeleteRecords),
    Subscribe(Subscribe),
    Credit(Credit),
    Unsubscribe,
}

/// What a server sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described at its operation and its body")]
pub enum Response<'a> {
    /// The status is not 0. Operation, correlation and handle are in the header; its status may be one that this crate does
    /// not know.
    Failed(Failure<'a>),
    Hello(Welcome<'a>),
    Ping,
    Metadata(Metadata<'a>),
    Stats(ShardStats<'a>),
    CreateTopic(TopicFacts),
    DeleteTopic(TopicFacts),
    AlterTopic(TopicFacts),
    DescribeTopic(TopicState<'a>),
    Open(Opened),
    Close,
    Produce(Produced),
    Fetch(Batches<'a>),
    ListOffsets(ListedOffset),
    DeleteRecords(DeletedRecords),
    Subscribe(Subscribed),
    Push(Batches<'a>),
    Unsubscribe,
}

/// Why a frame is no request or no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum FrameError {
    /// The length is over the limit.
    #[error(transparent)]
    TooLarge(#[from] FrameTooLarge),
    /// No operation has this code.
    #[error("no operation has the code {0}")]
    UnknownOperation(u8),
    /// The operation does not go in this direction, or flags or status are set that have no place in it.
    #[error("{} with flags {flags:#04x} and status {status} does not go in this direction", operation.name())]
    Unexpected {
        /// The operation.
        operation: Operation,
        /// The header's flags.
        flags: u8,
        /// The header's status.
        status: u16,
    },
    /// The body is not the operation's.
    #[error("{}: {error}", operation.name())]
    Body {
        /// The operation.
        operation: Operation,
        /// What is wrong.
        error: DecodeError,
    },
}

impl<'a> Request<'a> {
    /// Decodes what a client sent.
    pub fn decode(frame: &Frame<'a>) -> Result<Request<'a>, FrameError> {
        let operation = operation(&frame.header)?;
        let allowed = if operation == Operation::Produce { FLAG_SILENT } else { 0 };
        if frame.header.flags & !allowed != 0 || frame.header.status != 0 {
            return Err(unexpected(operation, &frame.header));
        }
        Self::decode_body(operation, frame)
            .map_err(|error| FrameError::Body { operation, error })?
            .ok_or_else(|| unexpected(operation, &frame.header))
    }

    fn decode_body(operation: Operation, frame: &Frame<'a>) -> Result<Option<Request<'a>>, DecodeError> {
        let body = frame.body;
        Ok(Some(match operation {
            Operation::Hello => Request::Hello(decode_lenient(body)?),
            Operation::Ping => <()>::decode(body).map(|()| Request::Ping)?,
            Operation::Metadata => Request::Metadata(Wire::decode(body)?),
            Operation::Stats => Request::Stats(Wire::decode(body)?),
            Operation::CreateTopic => Request::CreateTopic(Wire::decode(body)?),
            Operation::DeleteTopic => Request::DeleteTopic(Wire::decode(body)?),
            Operation::AlterTopic => Request::AlterTopic(Wire::decode(body)?),
            Operation::DescribeTopic => Request::DescribeTopic(Wire::decode(body)?),
            Operation::Open => Request::Open(Wire::decode(body)?),
            Operation::Close => <()>::decode(body).map(|()| Request::Close)?,
            Operation::Produce => Request::Produce { batches: body, silent: frame.header.flags & FLAG_SILENT != 0 },
            Operation::Fetch => Request::Fetch(Wire::decode(body)?),
            Operation::ListOffsets => Request::ListOffsets(Wire::decode(body)?),
            Operation::DeleteRecords => Request::DeleteRecords(Wire::decode(body)?),
            Operation::Subscribe => Request::Subscribe(Wire::decode(body)?),
            Operation::Credit => Request::Credit(Wire::decode(body)?),
            Operation::Unsubscribe => <()>::decode(body).map(|()| Request::Unsubscribe)?,
            Operation::Goodbye | Operation::Push => return Ok(None),
        }))
    }
}

impl<'a> Response<'a> {
    /// Decodes what a server sent.
    pub fn decode(frame: &Frame<'a>) -> Result<Response<'a>, FrameError> {
        let operation = operation(&frame.header)?;
        if !frame.header.is_response() {
            return Err(unexpected(operation, &frame.header));
        }
        let decoded = if frame.header.status == 0 {
            Self::decode_body(operation, frame.body)
        } else {
            Wire::decode(frame.body).map(|failure| Some(Response::Failed(failure)))
        };
        decoded
            .map_err(|error| FrameError::Body { operation, error })?
            .ok_or_else(|| unexpected(operation, &frame.header))
    }

    fn decode_body(operation: Operation, body: &'a [u8]) -> Result<Option<Response<'a>>, DecodeError> {
        Ok(Some(match operation {
            Operation::Hello => Response::Hello(decode_lenient(body)?),
            Operation::Ping => <()>::decode(body).map(|()| Response::Ping)?,
            Operation::Metadata => Response::Metadata(Wire::decode(body)?),
            Operation::Stats => Response::Stats(Wire::decode(body)?),
            Operation::CreateTopic => Response::CreateTopic(Wire::decode(body)?),
            Operation::DeleteTopic => Response::DeleteTopic(Wire::decode(body)?),
            Operation::AlterTopic => Response::AlterTopic(Wire::decode(body)?),
            Operation::DescribeTopic => Response::DescribeTopic(Wire::decode(body)?),
            Operation::Open => Response::Open(Wire::decode(body)?),
            Operation::Close => <()>::decode(body).map(|()| Response::Close)?,
            Operation::Produce => Response::Produce(Wire::decode(body)?),
            Operation::Fetch => Response::Fetch(Batches::decode(body)?),
            Operation::ListOffsets => Response::ListOffsets(Wire::decode(body)?),
            Operation::DeleteRecords => Response::DeleteRecords(Wire::decode(body)?),
            Operation::Subscribe => Response::Subscribe(Wire::decode(body)?),
            Operation::Push => Response::Push(Batches::decode(body)?),
            Operation::Unsubscribe => <()>::decode(body).map(|()| Response::Unsubscribe)?,
            // A goodbye always has a status, a credit is answered only when it fails.
            Operation::Goodbye | Operation::Credit => return Ok(None),
        }))
    }
}

fn operation(header: &Header) -> Result<Operation, FrameError> {
    Operation::from_code(header.operation).ok_or(FrameError::UnknownOperation(header.operation))
}

fn unexpected(operation: Operation, header: &Header) -> FrameError {
    FrameError::Unexpected { operation, flags: header.flags, status: header.status }
}

/// A message of either direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// From a client.
    Request(Request<'a>),
    /// From a server.
    Response(Response<'a>),
}

/// Decodes the frame at the front of `bytes`, whichever it is, or `None` while it is not all there: the entry for fuzzing
/// and for tools that look at traffic.
pub fn decode_any(bytes: &[u8]) -> Result<Option<(Header, Message<'_>)>, FrameError> {
    let Some(frame) = Frame::first(bytes, u32::MAX)? else { return Ok(None) };
    let message = if frame.header.is_response() {
        Message::Response(Response::decode(&frame)?)
    } else {
        Message::Request(Request::decode(&frame)?)
    };
    Ok(Some((frame.header, message)))
}
