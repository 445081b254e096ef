//! What a node tells its operator's tools over HTTP: `/metrics`, in Prometheus' text format.
//!
//! One shard serves it for all of the node. It is asked now and then by few, so that it is kept small rather than fast: a
//! request a connection, a bounded number of connections, and a time in which each must be done.

mod http;
mod prometheus;

use corelog_engine::reactor::{Listener, Outgoing, Stream, Task, either};
use corelog_engine::shard::{Shard, ShardStats};
use http::{Answer, Request};
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 32;
/// From the accept to the last byte of the request: who holds a place and asks nothing keeps others waiting.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(1);
/// From the accept to the last byte of the answer.
const TIME_MAX: Duration = Duration::from_secs(10);
/// A pause before another try: of memory that is short, an accept that failed, a place that is taken.
const PAUSE: Duration = Duration::from_millis(20);
/// An answer is sent in pieces of this size, so that it needs little of the buffers that producers share.
const PIECE_BYTES: usize = 64 << 10;

/// Serves until it is dropped.
#[derive(Debug)]
pub struct Admin {
    _accepting: Task<()>,
}

/// Answers requests that come in at the listener, for all shards of the node.
pub fn serve(shard: Shard, listener: Listener) -> Admin {
    let reactor = shard.reactor().clone();
    Admin { _accepting: reactor.spawn(accept_all(shard, listener)) }
}

async fn accept_all(shard: Shard, listener: Listener) {
    let (reactor, open) = (shard.reactor().clone(), Rc::new(Cell::new(0)));
    loop {
        while open.get() >= CONNECTIONS_MAX {
            reactor.sleep(PAUSE).await;
        }
        let Ok((stream, _)) = listener.accept().await else {
            reactor.sleep(PAUSE).await;
            continue;
        };
        open.set(open.get() + 1);
        let (shard, open) = (shard.clone(), open.clone());
        let serving = async move {
            let late = shard.reactor().sleep(TIME_MAX);
            // Nobody is told of a connection that broke: whoever asked knows.
            either(async { drop(answer(&shard, &stream).await) }, late).await;
            stream.shutdown();
            open.set(open.get() - 1);
        };
        reactor.spawn(serving).detach();
    }
}

async fn answer(shard: &Shard, stream: &Stream) -> io::Result<()> {
    let mut asked = Ok(None);
    let late = shard.reactor().sleep(REQUEST_TIME_MAX);
    either(async { asked = request(stream).await }, late).await;
    let Some(request) = asked? else { return Ok(()) };
    let (answer, with_body) = match request {
        Request::Get { path, with_body } if path == "/metrics" => (metrics(shard).await, with_body),
        Request::Get { with_body, .. } => (Answer::not_found(), with_body),
        Request::Refused(answer) => (answer, true),
    };
    send(shard, stream, &answer.encode(with_body)).await
}

/// What is asked; None if the connection ends before that.
async fn request(stream: &Stream) -> io::Result<Option<Request>> {
    let mut head = Vec::new();
    loop {
        if let Some(request) = http::parse(&head) {
            return Ok(Some(request));
        }
        match stream.receive().await? {
            Some(chunk) => head.extend_from_slice(&chunk),
            None => return Ok(None),
        }
    }
}

/// Text about every shard, or that one has too much to do to answer.
async fn metrics(shard: &Shard) -> Answer {
    let mut all: Vec<ShardStats> = Vec::new();
    for of in 0..shard.shards() {
        match shard.stats_of(corelog_engine::model::ShardId(of)).await {
            Some(stats) => all.push(stats),
            None => return Answer::busy(),
        }
    }
    let mut text = String::new();
    for family in prometheus::families(&all) {
        family.write(&mut text);
        // With many shards this takes longer than others should wait.
        shard.reactor().yield_now().await;
    }
    Answer::metrics(text)
}

async fn send(shard: &Shard, stream: &Stream, bytes: &[u8]) -> io::Result<()> {
    let mut out = Outgoing::new();
    for piece in bytes.chunks(PIECE_BYTES) {
        let mut buffer = loop {
            match shard.reactor().pool().buffer(piece.len()) {
                Some(buffer) => break buffer,
                None => shard.reactor().sleep(PAUSE).await,
            }
        };
        buffer.copy_from_slice(piece);
        out.push(buffer.freeze());
        let (sent, back) = stream.send(out).await;
        sent?;
        out = back;
    }
    Ok(())
}
