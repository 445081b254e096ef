//! What is compared.

use crate::broker::{Broker, Setup, Subject};
use crate::client::{self, Load, Pace, Topic};
use crate::table::{Bar, Bound, Figures, Table};
use crate::{Result, Trouble};
use std::collections::BTreeMap;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    warm_up: Duration,
    measured: Duration,
    /// Of a log that is read from its beginning.
    backlog_bytes: u64,
    /// Of a log that a broker is killed with.
    log_bytes: u64,
    /// That a broker is started again with.
    partitions: u32,
    /// Of Java's producer.
    java_records: u64,
}

impl Scale {
    pub(crate) const WHOLE: Scale = Scale {
        warm_up: Duration::from_secs(3),
        measured: Duration::from_secs(6),
        backlog_bytes: 2 << 30,
        log_bytes: 10 << 30,
        partitions: 10_000,
        java_records: 200_000,
    };
    pub(crate) const QUICK: Scale = Scale {
        warm_up: Duration::from_millis(1000),
        measured: Duration::from_millis(2000),
        backlog_bytes: 200 << 20,
        log_bytes: 1 << 30,
        partitions: 1000,
        java_records: 50_000,
    };
}

/// One thing that is compared.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    run: Run,
    bars: &'static [Bar],
}

#[derive(Clone, Copy)]
enum Run {
    /// On brokers that run all the time.
    Serving(fn(&Broker, &Setup, Scale) -> Result<Figures>),
    /// With brokers of its own, in a directory of their own.
    Alone(fn(Subject, &Setup, &Path, Scale) -> Result<Figures>),
}

const RECORDS: &str = "records/s";
const P50: &str = "p50, ms";
const P99: &str = "p99, ms";
const BROKER: &str = "broker CPU per record, us";
const CLIENT: &str = "client CPU per record, us";
const BYTES: &str = "MB/s";
const SECONDS: &str = "seconds";

const fn most(figure: &'static str, against: Subject, bound: f64) -> Bar {
    Bar { figure, against, bound: Bound::AtMost(bound) }
}

const fn least(figure: &'static str, against: Subject, bound: f64) -> Bar {
    Bar { figure, against, bound: Bound::AtLeast(bound) }
}

const fn itself(figure: &'static str, bound: f64) -> Bar {
    Bar { figure, against: Subject::Corelog, bound: Bound::Absolute(bound) }
}

use Subject::{Kafka, KafkaFlushed};

pub(crate) const CASES: &[Case] = &[
    Case {
        name: "1 KiB, closed, 1 in flight",
        run: Run::Serving(|broker, _, scale| produced(broker, 1024, 1, Pace::Closed(1), scale)),
        bars: &[most(P50, KafkaFlushed, 0.6), most(P50, Kafka, 1.4)],
    },
    Case {
        name: "1 KiB, closed, 64 in flight",
        run: Run::Serving(|broker, _, scale| produced(broker, 1024, 1, Pace::Closed(64), scale)),
        bars: &[
            least(RECORDS, KafkaFlushed, 10.0),
            least(RECORDS, Kafka, 1.0),
            most(P99, KafkaFlushed, 0.1),
            most(BROKER, Kafka, 0.33),
        ],
    },
    Case {
        name: "1 KiB, open, 20 MB/s, no linger",
        run: Run::Serving(|broker, _, scale| produced(broker, 1024, 1, Pace::Open(20e6 / 1024.0), scale)),
        bars: &[itself(P50, 2.0), itself(P99, 10.0)],
    },
    Case {
        name: "1 KiB, open, 1 MB/s",
        run: Run::Serving(|broker, _, scale| produced(broker, 1024, 1, Pace::Open(1e6 / 1024.0), scale)),
        bars: &[most(P99, KafkaFlushed, 0.1), most(P99, Kafka, 1.0)],
    },
    Case {
        name: "end to end, 1 MB/s",
        run: Run::Serving(end_to_end),
        bars: &[most(P99, KafkaFlushed, 0.05), most(P99, Kafka, 0.5)],
    },
    Case {
        name: "512 B, as fast as it goes, 1 partition",
        run: Run::Serving(|broker, _, scale| produced(broker, 512, 1, Pace::Full, scale)),
        bars: &[least(RECORDS, KafkaFlushed, 1.2), least(RECORDS, Kafka, 1.0)],
    },
    Case {
        name: "512 B, as fast as it goes, 128 partitions",
        run: Run::Serving(|broker, _, scale| produced(broker, 512, 128, Pace::Full, scale)),
        bars: &[least(RECORDS, KafkaFlushed, 3.0), least(RECORDS, Kafka, 1.0)],
    },
    Case {
        name: "512 B, as fast as it goes, 1,024 partitions",
        run: Run::Serving(|broker, _, scale| produced(broker, 512, 1024, Pace::Full, scale)),
        bars: &[least(RECORDS, KafkaFlushed, 8.0), least(RECORDS, Kafka, 1.5)],
    },
    Case {
        name: "Java's producer, 512 B, 1,024 partitions",
        run: Run::Serving(java),
        bars: &[least(RECORDS, KafkaFlushed, 2.0)],
    },
    Case {
        name: "backlog, one consumer",
        run: Run::Serving(backlog),
        bars: &[least(BYTES, Kafka, 1.2), most("broker CPU, seconds", Kafka, 0.3)],
    },
    Case {
        name: "start to first acknowledged produce",
        run: Run::Alone(start),
        bars: &[most(SECONDS, Kafka, 0.05), most("idle memory, MB", Kafka, 0.2)],
    },
    Case {
        name: "kill -9 with a long log to first acknowledged produce",
        run: Run::Alone(killed),
        bars: &[most(SECONDS, Kafka, 0.07)],
    },
    Case { name: "restart with many partitions", run: Run::Alone(restarted), bars: &[most(SECONDS, Kafka, 0.1)] },
];

/// Runs a case on every broker, in turns.
pub(crate) fn measure(
    case: &'static Case,
    setup: &Setup,
    subjects: &[Subject],
    scale: Scale,
    repeats: u8,
    table: &mut Table,
) -> Result<()> {
    let mut runs: BTreeMap<Subject, Vec<Figures>> = BTreeMap::new();
    let named = |subject: Subject| move |error: Trouble| format!("{}, {}: {error}", case.name, subject.name());
    let place = |subject: Subject, name: &str| setup.directory.join(format!("{subject:?}-{name}"));
    match case.run {
        Run::Serving(run) => {
            let start = |subject: &Subject| Broker::start(*subject, setup, &place(*subject, "serving"));
            let brokers: Vec<Broker> = subjects.iter().map(start).collect::<Result<_>>()?;
            for _ in 0..repeats {
                for broker in &brokers {
                    let figures = run(broker, setup, scale).map_err(named(broker.subject))?;
                    runs.entry(broker.subject).or_default().push(figures);
                }
            }
        }
        Run::Alone(run) => {
            for _ in 0..repeats {
                for subject in subjects {
                    let directory = place(*subject, "alone");
                    let figures = run(*subject, setup, &directory, scale).map_err(named(*subject))?;
                    runs.entry(*subject).or_default().push(figures);
                    std::fs::remove_dir_all(&directory)?;
                }
            }
        }
    }
    table.add(case.name, &runs, case.bars);
    eprint!("{}\n{}", case.name, table.case(case.name));
    Ok(())
}

/// Partitions of a topic, where it is to be many.
const TOPIC_PARTITIONS: u32 = 1000;
const TOPIC: &str = "versus";

fn load(record_bytes: usize, partitions: u32, pace: Pace, scale: Scale) -> Load {
    Load { record_bytes, partitions, pace, warm_up: scale.warm_up, measured: scale.measured }
}

/// A name of its own: some brokers delete a topic later than they say.
fn topic(broker: &Broker, partitions: u32) -> Result<Topic<'_>> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    Topic::make(broker, &format!("{TOPIC}-{}", now.as_nanos()), partitions)
}

fn produced(broker: &Broker, bytes: usize, partitions: u32, pace: Pace, scale: Scale) -> Result<Figures> {
    let topic = topic(broker, partitions)?;
    let produced = client::produce(broker, &topic.name, &load(bytes, partitions, pace, scale))?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / produced.records as f64;
    let mut figures = vec![(RECORDS, produced.rate())];
    // Of one that fills its queue as fast as it goes the queue is what takes time.
    if pace != Pace::Full {
        figures.extend([(P50, produced.ms(0.5)), (P99, produced.ms(0.99))]);
    }
    figures.extend([(BROKER, each(produced.broker_cpu)), (CLIENT, each(produced.client_cpu))]);
    Ok(figures)
}

fn end_to_end(broker: &Broker, _: &Setup, scale: Scale) -> Result<Figures> {
    let topic = topic(broker, 1)?;
    let latency = client::end_to_end(broker, &topic.name, &load(1024, 1, Pace::Open(1e6 / 1024.0), scale))?;
    let ms = |part| latency.value_at_quantile(part) as f64 / 1e6;
    Ok(vec![(P50, ms(0.5)), (P99, ms(0.99))])
}

fn java(broker: &Broker, setup: &Setup, scale: Scale) -> Result<Figures> {
    let topic = topic(broker, 1024)?;
    let mut command = setup.java("org.apache.kafka.tools.ProducerPerformance");
    command.args(["--topic", &topic.name, "--record-size", "512", "--throughput", "-1"]);
    command.args(["--num-records", &scale.java_records.to_string()]);
    command.args(["--producer-props", &format!("bootstrap.servers={}", broker.address)]);
    let output = command.output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // "N records sent, R records/sec (M MB/sec), ...": the last line is the whole run's.
    let last = text.lines().rfind(|line| line.contains("records sent"));
    let rate = last.and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    let why = || format!("Java's producer says {text}{}", String::from_utf8_lossy(&output.stderr));
    Ok(vec![(RECORDS, rate.ok_or_else(why)?)])
}

fn backlog(broker: &Broker, _: &Setup, scale: Scale) -> Result<Figures> {
    let topic = topic(broker, 1)?;
    client::fill(broker, &topic.name, scale.backlog_bytes)?;
    let (began, before) = (Instant::now(), broker.cpu()?);
    let bytes = client::read(broker, &topic.name, scale.backlog_bytes / 1024)?;
    let rate = bytes as f64 / 1e6 / began.elapsed().as_secs_f64();
    Ok(vec![(BYTES, rate), ("broker CPU, seconds", (broker.cpu()? - before).as_secs_f64())])
}

/// Starts a broker on what is there, and answers the seconds until it has acknowledged a record.
fn start_again(subject: Subject, setup: &Setup, directory: &Path) -> Result<(Broker, f64)> {
    let began = Instant::now();
    let broker = Broker::spawn(subject, setup, directory)?;
    client::first_ack(&broker, TOPIC)?;
    Ok((broker, began.elapsed().as_secs_f64()))
}

fn start(subject: Subject, setup: &Setup, directory: &Path, _: Scale) -> Result<Figures> {
    // What is made once, at the first start of all, is not what is measured.
    let broker = Broker::start(subject, setup, directory)?;
    Topic::make(&broker, TOPIC, 1)?.keep();
    client::first_ack(&broker, TOPIC)?;
    broker.stop()?;
    let (broker, seconds) = start_again(subject, setup, directory)?;
    thread::sleep(Duration::from_secs(2));
    Ok(vec![(SECONDS, seconds), ("idle memory, MB", broker.resident_bytes()? / 1e6)])
}

fn killed(subject: Subject, setup: &Setup, directory: &Path, scale: Scale) -> Result<Figures> {
    let mut broker = Broker::start(subject, setup, directory)?;
    Topic::make(&broker, TOPIC, 1)?.keep();
    client::fill(&broker, TOPIC, scale.log_bytes)?;
    broker.kill()?;
    let (_, seconds) = start_again(subject, setup, directory)?;
    Ok(vec![(SECONDS, seconds)])
}

fn restarted(subject: Subject, setup: &Setup, directory: &Path, scale: Scale) -> Result<Figures> {
    let broker = Broker::start(subject, setup, directory)?;
    Topic::make(&broker, TOPIC, 1)?.keep();
    client::touch_all(&broker, TOPIC, 1)?;
    // Kafka's controller takes no more at once.
    for number in 0..scale.partitions.div_ceil(TOPIC_PARTITIONS) {
        let (name, partitions) = (format!("{TOPIC}-{number}"), scale.partitions - number * TOPIC_PARTITIONS);
        let partitions = partitions.min(TOPIC_PARTITIONS);
        Topic::make(&broker, &name, partitions)?.keep();
        client::touch_all(&broker, &name, partitions)?;
    }
    broker.stop()?;
    let (_, seconds) = start_again(subject, setup, directory)?;
    Ok(vec![(SECONDS, seconds)])
}
