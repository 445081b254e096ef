//! What a simulated network cannot show, over real sockets: a half-closed connection, a reset, one byte in a packet.

use crate::harness::{batch, config, frame, hello};
use corelog_engine::model::ShardId;
use corelog_engine::reactor::{Reactor, mesh, ring, run_ring};
use corelog_engine::shard::{Envelope, Shard};
use corelog_net::limits::Limits;
use corelog_net::native::{Options, serve};
use corelog_net::transport::{Common, Ports};
use corelog_wire::*;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

/// Runs a node, and a client in a thread of its own.
fn run(client: impl FnOnce(SocketAddr) + Send + 'static) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("data");
    let options = ring::Options { log: |_| {}, ..ring::Options::default() };
    let node = async move |reactor: Reactor| {
        let mesh = mesh::build::<Envelope>(1, 16).pop().unwrap().attach(&reactor);
        let mut config = config();
        config.data_dir = path;
        let shard = Shard::start(reactor.clone(), mesh, config).await.unwrap();
        let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        let (address, ports) = (listener.local_addr(), Ports::new(1));
        ports.set(ShardId(0), address.port());
        let options = Options { host: String::new(), ports };
        let server = serve(&Common::new(shard.clone(), Limits::default()), vec![listener], options);
        let client = thread::spawn(move || client(address));
        while !client.is_finished() {
            reactor.sleep(Duration::from_millis(1)).await;
        }
        client.join().unwrap();
        server.stop().await;
        shard.stop().await;
    };
    run_ring(options, node).unwrap();
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn encoded<'a>(operation: Operation, correlation: u32, body: &impl corelog_wire::Wire<'a>) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header::request(operation, correlation, 0).put(body, 0, &mut bytes);
    bytes
}

fn greeted(address: SocketAddr) -> TcpStream {
    let mut stream = dial(address);
    stream.write_all(&encoded(Operation::Hello, 1, &hello(1, 1))).unwrap();
    assert_eq!(receive(&mut stream).status, 0);
    stream
}

fn receive(stream: &mut TcpStream) -> Header {
    let mut header = [0; HEADER_BYTES];
    stream.read_exact(&mut header).unwrap();
    let header = Header::parse(&header);
    stream.read_exact(&mut vec![0; header.length as usize]).unwrap();
    header
}

fn opened(address: SocketAddr) -> (TcpStream, u32) {
    let mut stream = greeted(address);
    let name = Text::new("t").unwrap();
    stream
        .write_all(&encoded(Operation::CreateTopic, 2, &CreateTopic { name, partitions: 1, settings: List::default() }))
        .unwrap();
    receive(&mut stream);
    stream.write_all(&encoded(Operation::Open, 3, &Open { topic: Topic::Name(name), partition: 0 })).unwrap();
    let handle = receive(&mut stream).handle;
    (stream, handle)
}

fn assert_ended(stream: &mut TcpStream) {
    match stream.read(&mut [0; 16]) {
        Ok(0) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        other => panic!("the connection goes on: {other:?}"),
    }
}

#[test]
fn who_ends_its_own_direction_still_gets_its_answers() {
    run(|address| {
        let (mut stream, handle) = opened(address);
        for correlation in 10..20 {
            stream.write_all(&frame(Operation::Produce, correlation, handle, 0, &batch(&["x"]))).unwrap();
        }
        stream.shutdown(Shutdown::Write).unwrap();
        for correlation in 10..20 {
            let answer = receive(&mut stream);
            assert_eq!((answer.correlation, answer.status), (correlation, 0));
        }
        assert_ended(&mut stream);
    });
}

#[test]
fn a_reason_is_read_although_more_was_sent() {
    run(|address| {
        let mut stream = greeted(address);
        let header = Header { length: u32::MAX, ..Header::request(Operation::Produce, 9, 1) };
        stream.write_all(&header.to_bytes()).unwrap();
        // What the server did not read when it decides to close would reset the connection, and the reason be lost.
        stream.write_all(&vec![7; 1 << 20]).unwrap();
        let answer = receive(&mut stream);
        assert_eq!((answer.correlation, answer.status), (9, Status::FrameTooLarge as u16));
        assert_ended(&mut stream);
    });
}

#[test]
fn single_bytes_resets_and_strangers_harm_nobody() {
    run(|address| {
        let mut slow = dial(address);
        for byte in encoded(Operation::Hello, 1, &hello(1, 1)) {
            slow.write_all(&[byte]).unwrap();
        }
        assert_eq!(receive(&mut slow).status, 0);

        for _ in 0..20 {
            let (mut reset, handle) = opened(address);
            reset.write_all(&frame(Operation::Produce, 1, handle, 0, &batch(&["x"]))).unwrap();
            // The answer is not read: the kernel resets the connection.
            drop(reset);
        }
        let mut stranger = dial(address);
        stranger.write_all(b"GET / HTTP/1.1\r\nHost: corelog\r\n\r\n").unwrap();
        assert_ended(&mut stranger);

        slow.write_all(&encoded(Operation::Ping, 2, &())).unwrap();
        assert_eq!(receive(&mut slow).correlation, 2);
    });
}
