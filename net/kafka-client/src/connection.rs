//! One connection to a broker: a request, then its response.

use crate::error::KafkaError;
use corelog_kafka::calls::{self, Call, LENGTH_BYTES};
use corelog_kafka::codec::Malformed;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Longest that a broker may take for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// Longest response that is taken.
const RESPONSE_BYTES_MAX: usize = 64 << 20;
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug)]
pub(crate) struct Connection {
    address: String,
    stream: TcpStream,
    correlation: i32,
}

impl Connection {
    pub(crate) fn open(address: &str) -> Result<Connection, KafkaError> {
        let unreachable = |source| KafkaError::Unreachable { address: address.to_owned(), source };
        let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
        for resolved in address.to_socket_addrs().map_err(unreachable)? {
            match TcpStream::connect_timeout(&resolved, CONNECT_TIME).and_then(prepared) {
                Ok(stream) => return Ok(Connection { address: address.to_owned(), stream, correlation: 0 }),
                Err(error) => last = error,
            }
        }
        Err(unreachable(last))
    }

    pub(crate) fn call<C: Call>(&mut self, client_id: &str, call: &C) -> Result<C::Response, KafkaError> {
        self.correlation = self.correlation.wrapping_add(1);
        let frame = calls::request(self.correlation, client_id, call)
            .ok_or_else(|| KafkaError::Invalid("the request is longer than the protocol can say".to_owned()))?;
        let answer = self.stream.write_all(&frame).and_then(|()| self.frame());
        let frame = answer.map_err(|source| KafkaError::Lost { address: self.address.clone(), source })?;
        let malformed = |source| KafkaError::Malformed { address: self.address.clone(), source };
        let (correlation, response) = calls::response::<C>(&frame).map_err(malformed)?;
        if correlation == self.correlation { Ok(response) } else { Err(malformed(Malformed::Refused)) }
    }

    /// The next frame without its length. Room is made for what comes, not for what is declared.
    fn frame(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; LENGTH_BYTES];
        self.stream.read_exact(&mut length)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > RESPONSE_BYTES_MAX {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("a response of {length} bytes")));
        }
        let (mut frame, mut piece) = (Vec::new(), vec![0; PIECE_BYTES]);
        while frame.len() < length {
            let wanted = (length - frame.len()).min(piece.len());
            match self.stream.read(&mut piece[..wanted])? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => frame.extend_from_slice(&piece[..count]),
            }
        }
        Ok(frame)
    }
}

fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_TIME))?;
    stream.set_write_timeout(Some(ANSWER_TIME))?;
    Ok(stream)
}
