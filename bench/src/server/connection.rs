//! A blocking connection in the native protocol: what a benchmark does before and after its load. One request at a time.

use crate::error::{BenchError, Doing, Result};
use corelog_wire::{
    CreateTopic, DeleteTopic, Failure, HEADER_BYTES, Header, Hello, List, Magic, Metadata, MetadataRequest, Open,
    Opened, Operation, Selection, Setting, Status, Text, Topic, TopicFacts, VERSION_MAX, VERSION_MIN, Welcome, Wire,
};
use std::io::{self, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

/// Small frames that come together are received together.
const RECEIVE_BYTES: usize = 64 << 10;
/// Longest a server may take over an answer here before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(60);

/// More than any answer that is asked for here.
const BODY_BYTES_MAX: u32 = 64 << 20;

/// A connection whose hello was accepted.
pub struct Connection {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
    shards: u16,
}

impl Connection {
    /// Connects and says hello.
    ///
    /// # Errors
    /// When nobody listens or the hello is refused.
    pub fn open(address: SocketAddr) -> Result<Connection> {
        let doing = "connecting to the server";
        let stream = TcpStream::connect(address).doing(doing)?;
        stream.set_nodelay(true).doing(doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(doing)?;
        let mut connection =
            Connection { stream: BufReader::with_capacity(RECEIVE_BYTES, stream), body: Vec::new(), shards: 0 };
        let hello = Hello {
            magic: Magic,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: 0,
            software: Text::truncated("corelog-bench"),
            client_id: Text::truncated(""),
        };
        connection.call(Operation::Hello, 0, &hello, &[])?;
        connection.shards = connection.decode::<Welcome<'_>>(Operation::Hello)?.shards;
        Ok(connection)
    }

    /// Shards of the server's node.
    pub fn shards(&self) -> u16 {
        self.shards
    }

    /// Sends a request, `extra` behind its body, and waits for the answer; its body is kept for [`Connection::body`].
    ///
    /// # Errors
    /// When the connection breaks, or the server refuses.
    pub fn call<'a>(
        &mut self,
        operation: Operation,
        handle: u32,
        body: &impl Wire<'a>,
        extra: &[u8],
    ) -> Result<Header> {
        self.send(operation, handle, body, extra)?;
        let answer = self.receive()?;
        if answer.status == Status::Ok as u16 { Ok(answer) } else { Err(self.refused(operation.name(), answer.status)) }
    }

    /// Waits for the next frame from the server; its body is kept for [`Connection::body`].
    ///
    /// # Errors
    /// When the connection breaks or is silent for too long.
    pub fn receive(&mut self) -> Result<Header> {
        let doing = "waiting for the server's answer";
        let mut header = [0; HEADER_BYTES];
        self.stream.read_exact(&mut header).doing(doing)?;
        let header = Header::parse(&header);
        if header.length > BODY_BYTES_MAX {
            let why = format!("it is to have {} bytes", header.length);
            return Err(BenchError::Garbled { what: "a frame".into(), why });
        }
        self.body.clear();
        let read = self.stream.by_ref().take(header.length.into()).read_to_end(&mut self.body).doing(doing)?;
        if read < header.length as usize {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof)).doing(doing);
        }
        Ok(header)
    }

    /// The body of the last frame received.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// The message that the last frame received holds.
    ///
    /// # Errors
    /// When it holds something else.
    pub fn decode<'a, T: Wire<'a>>(&'a self, operation: Operation) -> Result<T> {
        let garbled = |why| BenchError::Garbled { what: operation.name().into(), why: format!("{why}") };
        T::decode(&self.body).map_err(garbled)
    }

    /// Sends a frame, `extra` behind its body, without waiting for an answer.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn send<'a>(&mut self, operation: Operation, handle: u32, body: &impl Wire<'a>, extra: &[u8]) -> Result<()> {
        let mut request = Vec::with_capacity(HEADER_BYTES + body.size() + extra.len());
        Header::request(operation, 1, handle).put(body, extra.len(), &mut request);
        request.extend_from_slice(extra);
        self.stream.get_mut().write_all(&request).doing(operation.name())
    }

    /// Creates a topic with these settings.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn create_topic(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Result<()> {
        let settings: Vec<Setting<'_>> = settings
            .iter()
            .map(|(key, value)| Setting { key: Text::truncated(key), value: Text::truncated(value) })
            .collect();
        let create = CreateTopic { name: Text::truncated(name), partitions, settings: List::of(&settings) };
        self.call(Operation::CreateTopic, 0, &create, &[])?;
        self.decode::<TopicFacts>(Operation::CreateTopic).map(drop)
    }

    /// Deletes a topic.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn delete_topic(&mut self, name: &str) -> Result<()> {
        let delete = DeleteTopic { topic: Topic::Name(Text::truncated(name)) };
        self.call(Operation::DeleteTopic, 0, &delete, &[]).map(drop)
    }

    /// The address of the shard that owns each partition of a topic.
    ///
    /// # Errors
    /// As [`Connection::call`]; also when the topic or a shard's address is unknown.
    pub fn owners(&mut self, topic: &str) -> Result<Vec<SocketAddr>> {
        let names = [Text::truncated(topic)];
        let request = MetadataRequest { topics: Selection::Named(List::of(&names)) };
        self.call(Operation::Metadata, 0, &request, &[])?;
        let reached = self.stream.get_ref().peer_addr().doing("metadata")?.ip();
        let metadata: Metadata<'_> = self.decode(Operation::Metadata)?;
        let entry = metadata.topics.iter().next().filter(|entry| entry.status == 0);
        let entry = entry.ok_or_else(|| BenchError::Server(format!("the server does not know topic {topic}")))?;
        let address = |shard: u16| {
            let endpoint = metadata.endpoints.iter().find(|endpoint| endpoint.shard == shard)?;
            let host = endpoint.host.as_str();
            let host = if host.is_empty() { reached } else { host.parse::<IpAddr>().ok()? };
            Some(SocketAddr::new(host, endpoint.port))
        };
        let owners = entry.owners.iter().map(|owner| address(owner.shard)).collect::<Option<_>>();
        owners.ok_or_else(|| BenchError::Server(format!("topic {topic} has a partition on a shard without address")))
    }

    /// Opens a partition: its handle, and what it holds.
    ///
    /// # Errors
    /// As [`Connection::call`].
    pub fn open_partition(&mut self, topic: &str, partition: u32) -> Result<(u32, Opened)> {
        let open = Open { topic: Topic::Name(Text::truncated(topic)), partition };
        let answer = self.call(Operation::Open, 0, &open, &[])?;
        Ok((answer.handle, self.decode(Operation::Open)?))
    }

    /// The stream that it goes over.
    pub(crate) fn stream(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// The stream, for a load of its own. Nothing may be on its way from the server.
    pub fn into_stream(self) -> TcpStream {
        assert!(self.stream.buffer().is_empty(), "frames that were received would be lost");
        self.stream.into_inner()
    }

    /// The error that a failed answer stands for.
    pub fn refused(&self, what: &str, status: u16) -> BenchError {
        let name = Status::from_code(status).map_or_else(|| format!("status {status}"), |known| known.name().into());
        let message = Failure::decode(&self.body).map(|failure| failure.message.as_str()).unwrap_or_default();
        let message = if message.is_empty() { String::new() } else { format!(": {message}") };
        BenchError::Refused { what: what.into(), status: name, message }
    }
}
