//! Both drivers against the pretend server behind real sockets: what the state machines promise is tested elsewhere, here
//! it is whether the drivers carry bytes, time and wake-ups.

use crate::pretend::Server;
use crate::{
    ClientError, ConnectOptions, ConsumerOptions, Delivery, Mode, NewRecord, ProduceError, ProducerOptions, SendError,
    Start,
};
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TOPIC: &str = "clicks";

/// The pretend server with a thread for every listener and connection.
struct Listening {
    server: Arc<Mutex<Server>>,
    servers: String,
    stop: Arc<AtomicBool>,
    /// Connections end when this changes.
    cut: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Listening {
    fn start(partitions: usize) -> Listening {
        let mut server = Server::new(1, 2);
        server.create(TOPIC, partitions);
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
        server.ports = listeners.iter().map(|listener| listener.local_addr().unwrap().port()).collect();
        let servers = format!("127.0.0.1:{}", server.ports[0]);
        let (server, stop, cut) =
            (Arc::new(Mutex::new(server)), Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let accept = |(shard, listener): (usize, TcpListener)| {
            let (server, stop, cut) = (Arc::clone(&server), Arc::clone(&stop), Arc::clone(&cut));
            std::thread::spawn(move || accept(&listener, shard as u16, &server, &stop, &cut))
        };
        let threads = listeners.into_iter().enumerate().map(accept).collect();
        Listening { server, servers, stop, cut, threads }
    }

    /// Ends every connection there is.
    fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(30));
        self.cut.store(false, Ordering::SeqCst);
    }

    fn values(&self, partition: usize) -> Vec<Vec<u8>> {
        self.server.lock().unwrap().log(TOPIC, partition).values()
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

fn accept(
    listener: &TcpListener,
    shard: u16,
    server: &Arc<Mutex<Server>>,
    stop: &Arc<AtomicBool>,
    cut: &Arc<AtomicBool>,
) {
    listener.set_nonblocking(true).unwrap();
    let mut threads = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        if let Ok((stream, _)) = listener.accept() {
            let (server, stop, cut) = (Arc::clone(server), Arc::clone(stop), Arc::clone(cut));
            let id = server.lock().unwrap().connect(shard);
            threads.push(std::thread::spawn(move || serve(stream, id, &server, &stop, &cut)));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn serve(mut stream: TcpStream, id: u64, server: &Mutex<Server>, stop: &AtomicBool, cut: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while !stop.load(Ordering::SeqCst) && !cut.load(Ordering::SeqCst) {
        let read = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => read,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => 0,
            Err(_) => break,
        };
        let output = {
            let mut server = server.lock().unwrap();
            server.receive(id, &buffer[..read]);
            server.output(id)
        };
        if stream.write_all(&output).is_err() {
            break;
        }
    }
    server.lock().unwrap().disconnect(id);
}

fn quick() -> ConnectOptions {
    ConnectOptions { backoff: Duration::from_millis(5), connect_timeout: Duration::from_secs(10), ..Default::default() }
}

fn producer_options() -> ProducerOptions {
    ProducerOptions { connect: quick(), ..ProducerOptions::default() }
}

fn numbers(count: u32) -> Vec<Vec<u8>> {
    (0..count).map(|number| format!("value {number}").into_bytes()).collect()
}

/// Nobody listens at this address.
fn nowhere() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

mod blocking {
    use super::*;
    use crate::blocking::{Admin, Consumer, Producer};

    #[test]
    fn what_goes_in_comes_out() {
        let listening = Listening::start(3);
        let (reports, reported) = mpsc::channel::<Delivery>();
        let report = move |delivery: &Delivery| reports.send(delivery.clone()).unwrap();
        let producer = Producer::with_deliveries(&listening.servers, TOPIC, producer_options(), report).unwrap();
        assert_eq!(producer.partitions(), 3);
        let values = numbers(3000);
        for (number, value) in values.iter().enumerate() {
            producer.send(NewRecord::new(value).partition(number as u32 % 3)).unwrap();
        }
        producer.flush().unwrap();
        let delivered = reported.try_iter().map(|delivery| u64::from(delivery.count)).sum::<u64>();
        assert_eq!((delivered, producer.stats().acknowledged, producer.stats().bytes_buffered), (3000, 3000, 0));
        let stored = producer.send_wait(NewRecord::new(b"last").partition(1)).unwrap();
        assert_eq!((stored.partition, stored.offset), (1, 1000));
        producer.close().unwrap();

        for mode in [Mode::Push, Mode::Pull] {
            let options = ConsumerOptions { connect: quick(), mode, ..ConsumerOptions::default() };
            let mut consumer = Consumer::connect(&listening.servers, TOPIC, options).unwrap();
            let mut seen = [const { Vec::new() }; 3];
            while !consumer.at_end() {
                let Some(fetched) = consumer.poll(Duration::from_secs(10)).unwrap() else { continue };
                for record in fetched.records() {
                    seen[fetched.partition() as usize].push(record.unwrap().value.unwrap().to_vec());
                }
            }
            assert_eq!(seen.each_ref().map(Vec::len), [1000, 1001, 1000]);
            assert_eq!(seen, [0, 1, 2].map(|partition| listening.values(partition)));
        }
    }

    #[test]
    fn connections_that_are_cut_are_made_again() {
        let listening = Listening::start(2);
        let options = ConsumerOptions { connect: quick(), start: Start::Beginning, ..ConsumerOptions::default() };
        let mut consumer = Consumer::connect(&listening.servers, TOPIC, options).unwrap();
        let producer = Producer::connect(&listening.servers, TOPIC, producer_options()).unwrap();
        let mut seen = 0;
        for round in 0..4 {
            for value in numbers(50) {
                // Acknowledged one by one, so that a cut finds nothing on its way.
                producer.send_wait(NewRecord::new(&value).partition(round % 2)).unwrap();
            }
            listening.cut();
            while seen < 50 * (round as usize + 1) {
                let fetched = consumer.poll(Duration::from_secs(10)).unwrap().unwrap();
                seen += fetched.records().count();
            }
        }
        assert_eq!(seen, 200);
    }

    #[test]
    fn a_lingering_record_goes_when_its_time_has_come_or_with_a_flush() {
        let listening = Listening::start(1);
        let linger = Duration::from_millis(50);
        let producer =
            Producer::connect(&listening.servers, TOPIC, ProducerOptions { linger, ..producer_options() }).unwrap();
        for value in numbers(10) {
            producer.send(NewRecord::new(&value)).unwrap();
        }
        let begun = Instant::now();
        while producer.stats().acknowledged < 10 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(begun.elapsed() >= linger - Duration::from_millis(10));
        assert_eq!(listening.server.lock().unwrap().log(TOPIC, 0).batches.len(), 1);
        let patient = ProducerOptions { linger: Duration::from_secs(1000), ..producer_options() };
        let producer = Producer::connect(&listening.servers, TOPIC, patient).unwrap();
        producer.send(NewRecord::new(b"flushed")).unwrap();
        producer.flush().unwrap();
        producer.send_wait(NewRecord::new(b"waited for")).unwrap();
        assert_eq!(listening.values(0).len(), 12);
    }

    #[test]
    fn a_full_buffer_makes_send_wait_and_try_send_fail() {
        let listening = Listening::start(1);
        listening.server.lock().unwrap().mood.holds_answers = true;
        let options =
            ProducerOptions { buffer_bytes: 10_000, block_max: Duration::from_millis(50), ..producer_options() };
        let producer = Producer::connect(&listening.servers, TOPIC, options).unwrap();
        let value = [0; 1000];
        let taken = (0..100).take_while(|_| producer.try_send(NewRecord::new(&value)).is_ok()).count();
        assert!((5..10).contains(&taken), "{taken}");
        let begun = Instant::now();
        assert_eq!(producer.send(NewRecord::new(&value)), Err(SendError::Full));
        assert!(begun.elapsed() >= Duration::from_millis(50));
        drop(producer);
    }

    #[test]
    fn a_producer_that_is_dropped_reports_what_it_gives_up() {
        let listening = Listening::start(1);
        listening.server.lock().unwrap().mood.holds_answers = true;
        let (reports, reported) = mpsc::channel::<Delivery>();
        let report = move |delivery: &Delivery| reports.send(delivery.clone()).unwrap();
        let options = ProducerOptions { linger: Duration::from_secs(1000), ..producer_options() };
        let producer = Producer::with_deliveries(&listening.servers, TOPIC, options, report).unwrap();
        producer.send(NewRecord::new(b"never sent")).unwrap();
        drop(producer);
        let outcomes = reported.iter().map(|delivery| delivery.outcome).collect::<Vec<_>>();
        assert_eq!(outcomes, [Err(ProduceError::Closed)]);
    }

    #[test]
    fn a_producer_that_is_abandoned_accounts_for_every_record() {
        let listening = Listening::start(1);
        let options = ProducerOptions { inflight: 1, ..producer_options() };
        let producer = Producer::connect(&listening.servers, TOPIC, options).unwrap();
        producer.send_wait(NewRecord::new(b"acknowledged")).unwrap();
        listening.server.lock().unwrap().mood.holds_answers = true;
        producer.send(NewRecord::new(b"on its way")).unwrap();
        let begun = Instant::now();
        while listening.values(0).len() < 2 && begun.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(1));
        }
        producer.send(NewRecord::new(b"never sent")).unwrap();
        let stats = producer.abandon();
        assert_eq!((stats.sent, stats.acknowledged, stats.unknown, stats.failed), (3, 1, 1, 1));
    }

    #[test]
    fn an_admin_and_the_errors_of_a_beginning() {
        let listening = Listening::start(1);
        let mut admin = Admin::connect(&listening.servers, quick()).unwrap();
        assert!(admin.ping().unwrap() < Duration::from_secs(10));
        assert_eq!(admin.create_topic("new", 3, &[("retention.ms", "1000")]).unwrap().partitions, 3);
        assert_eq!(admin.topics().unwrap().len(), 2);
        listening.cut();
        assert_eq!(admin.delete_topic("new").unwrap().partitions, 3);
        assert!(matches!(admin.topic("new"), Err(ClientError::Refused(_))));

        let soon = ConnectOptions { connect_timeout: Duration::from_millis(100), ..quick() };
        let unreachable = |error: ClientError| matches!(error, ClientError::Unreachable { .. });
        assert!(unreachable(Admin::connect(&nowhere(), soon.clone()).unwrap_err()));
        let options = ProducerOptions { connect: soon, ..ProducerOptions::default() };
        assert!(unreachable(Producer::connect(&nowhere(), TOPIC, options).unwrap_err()));
        let refused = Producer::connect(&listening.servers, "absent", producer_options()).unwrap_err();
        assert!(matches!(refused, ClientError::Refused(_)), "{refused}");
        let invalid = Producer::connect("nonsense", TOPIC, producer_options()).unwrap_err();
        assert!(matches!(invalid, ClientError::Invalid(_)), "{invalid}");
    }
}

#[cfg(feature = "tokio")]
mod asynchronous {
    use super::*;
    use crate::tokio::{Admin, Consumer, Producer};

    fn run<T>(future: impl Future<Output = T>) -> T {
        ::tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    fn is_send<T: Send>(value: T) -> T {
        value
    }

    #[test]
    fn what_goes_in_comes_out() {
        let listening = Listening::start(3);
        run(is_send(async {
            let producer = Producer::connect(&listening.servers, TOPIC, producer_options()).await.unwrap();
            for (number, value) in numbers(3000).iter().enumerate() {
                producer.send(NewRecord::new(value).partition(number as u32 % 3)).await.unwrap();
            }
            producer.flush().await.unwrap();
            assert_eq!(producer.stats().acknowledged, 3000);
            let stored = producer.send_wait(NewRecord::new(b"last").partition(1)).await.unwrap();
            assert_eq!((stored.partition, stored.offset), (1, 1000));
            producer.close().await.unwrap();
            for mode in [Mode::Push, Mode::Pull] {
                let options = ConsumerOptions { connect: quick(), mode, ..ConsumerOptions::default() };
                let mut consumer = Consumer::connect(&listening.servers, TOPIC, options).await.unwrap();
                let mut seen = 0;
                while !consumer.at_end() {
                    let fetched = consumer.poll(Duration::from_secs(10)).await.unwrap();
                    seen += fetched.map_or(0, |fetched| fetched.records().count());
                }
                assert_eq!(seen, 3001);
                assert_eq!(consumer.poll(Duration::from_millis(20)).await.unwrap(), None);
            }
        }));
    }

    #[test]
    fn connections_that_are_cut_are_made_again() {
        let listening = Listening::start(2);
        run(async {
            let options = ConsumerOptions { connect: quick(), ..ConsumerOptions::default() };
            let mut consumer = Consumer::connect(&listening.servers, TOPIC, options).await.unwrap();
            let producer = Producer::connect(&listening.servers, TOPIC, producer_options()).await.unwrap();
            let mut admin = Admin::connect(&listening.servers, quick()).await.unwrap();
            let mut seen = 0;
            for round in 0..3 {
                for value in numbers(30) {
                    producer.send_wait(NewRecord::new(&value).partition(round % 2)).await.unwrap();
                }
                listening.cut();
                assert_eq!(admin.topics().await.unwrap().len(), 1);
                while seen < 30 * (round as usize + 1) {
                    let fetched = consumer.poll(Duration::from_secs(10)).await.unwrap().unwrap();
                    seen += fetched.records().count();
                }
            }
            assert_eq!(seen, 90);
        });
    }

    #[test]
    fn a_full_buffer_a_lost_interest_and_a_drop() {
        let listening = Listening::start(1);
        listening.server.lock().unwrap().mood.holds_answers = true;
        let (reports, reported) = mpsc::channel::<Delivery>();
        let report = move |delivery: &Delivery| reports.send(delivery.clone()).unwrap();
        let options =
            ProducerOptions { buffer_bytes: 10_000, block_max: Duration::from_millis(50), ..producer_options() };
        run(async {
            let producer = Producer::with_deliveries(&listening.servers, TOPIC, options, report).await.unwrap();
            let value = [0; 1000];
            let lost =
                ::tokio::time::timeout(Duration::from_millis(20), producer.send_wait(NewRecord::new(&value))).await;
            assert!(lost.is_err(), "nothing is acknowledged here");
            while producer.try_send(NewRecord::new(&value)).is_ok() {}
            assert_eq!(producer.send(NewRecord::new(&value)).await, Err(SendError::Full));
            let stats = producer.abandon().await;
            assert_eq!((stats.sent, stats.acknowledged, stats.bytes_buffered), (stats.unknown + stats.failed, 0, 0));
            // The task reports and ends by itself.
            while reported.try_recv() != Err(mpsc::TryRecvError::Disconnected) {
                ::tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
    }
}
