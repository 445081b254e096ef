//! Properties and situations of producer, consumer and admin in a pretend world.

use crate::accumulator::Accumulator;
use crate::admin::{self, AdminCore, Answer, Caller, Request};
use crate::consumer::ConsumerCore;
use crate::error::{ClientError, ProduceError};
use crate::front::Front;
use crate::options::{ConnectOptions, ConsumerOptions, Mode, OutOfRange, ProducerOptions, RetryUnknown, Start};
use crate::pretend::Mood;
use crate::producer::ProducerCore;
use crate::report::{Delivery, NewRecord, Sent};
use crate::routes::Routes;
use crate::world::World;
use corelog_batch::{BatchBuilder, Codec};
use corelog_wire::{ListOffsets, Operation, Status};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

const TOPIC: &str = "clicks";
const PARTITIONS: u32 = 3;

/// A producer without its driver: what the driver's loop does, step by step.
struct Producing {
    world: World,
    core: ProducerCore,
    front: Front,
    deliveries: Vec<Delivery>,
    /// Values by partition and number.
    taken: BTreeMap<(u32, u64), Vec<u8>>,
    buffer_bytes: usize,
}

impl Producing {
    fn new(seed: u64, options: &ProducerOptions) -> Producing {
        let mut world = World::new(seed, 2);
        world.server.create(TOPIC, PARTITIONS as usize);
        let routes = Routes::new(TOPIC, options.connect.backoff, world.now);
        let mut core = ProducerCore::new(world.cluster(&options.connect), routes, options.clone());
        world.calm(&mut core, |_, core| core.partitions().unwrap().is_some());
        let front = Front::new(Accumulator::new(options, PARTITIONS, 0, world.now));
        let (deliveries, taken) = (Vec::new(), BTreeMap::new());
        Producing { world, core, front, deliveries, taken, buffer_bytes: options.buffer_bytes }
    }

    /// Sends a record whose value tells its partition and number.
    fn send(&mut self, partition: u32, size: usize) -> bool {
        let number = self.taken.range((partition, 0)..(partition + 1, 0)).count() as u64;
        let mut value = number.to_be_bytes().to_vec();
        value.resize(8 + size, partition as u8);
        let record = NewRecord::new(&value).partition(partition).timestamp(1000);
        match self.front.accumulator.append(&record, self.world.now, 0) {
            Ok(sent) => {
                assert_eq!(sent, Sent { partition, number });
                self.taken.insert((partition, number), value);
                true
            }
            Err(refused) => {
                assert_eq!(refused, crate::SendError::Full);
                false
            }
        }
    }

    fn step(&mut self) {
        hand_over(&mut self.front, &mut self.core, self.world.now);
        self.world.step(&mut self.core);
        self.report();
    }

    fn report(&mut self) {
        let settled = self.core.settled();
        self.front.settle(&settled);
        self.deliveries.extend(settled.into_iter().map(|settled| settled.delivery));
        let used = self.front.accumulator.stats().bytes_buffered;
        assert!(used <= self.buffer_bytes, "{used} bytes are buffered");
    }

    /// No more trouble: runs until everything that was taken is settled.
    fn finish(&mut self) {
        let Producing { world, core, front, deliveries, .. } = self;
        let until = front.accumulator.ripen_all();
        world.calm(core, |world, core| {
            hand_over(front, core, world.now);
            let settled = core.settled();
            front.settle(&settled);
            deliveries.extend(settled.into_iter().map(|settled| settled.delivery));
            front.accumulator.is_settled(&until)
        });
        assert_eq!(self.front.accumulator.stats().bytes_buffered, 0);
    }

    /// Numbers in the order of the log.
    fn logged(&mut self, partition: u32) -> Vec<u64> {
        let values = self.world.server.log(TOPIC, partition as usize).values();
        let number = |value: &Vec<u8>| {
            let number = u64::from_be_bytes(*value.first_chunk().unwrap());
            assert_eq!(self.taken[&(partition, number)], *value);
            number
        };
        values.iter().map(number).collect()
    }

    /// Every record is in exactly one delivery, in order; what was acknowledged is where it was said to be; what is said
    /// not to be there is not.
    fn check(&mut self) {
        for partition in 0..PARTITIONS {
            let logged = self.logged(partition);
            let mut next = 0;
            for delivery in self.deliveries.iter().filter(|delivery| delivery.partition == partition) {
                assert_eq!(delivery.first, next);
                next += u64::from(delivery.count);
                for number in delivery.first..next {
                    match &delivery.outcome {
                        Ok(base) => {
                            let offset = base + (number - delivery.first) as i64;
                            assert_eq!(logged[offset as usize], number, "acknowledged at {offset}");
                        }
                        Err(error) if error.is_outcome_unknown() => {}
                        Err(error) => assert!(!logged.contains(&number), "{number} is there, but was reported {error}"),
                    }
                }
            }
            assert_eq!(next as usize, self.taken.range((partition, 0)..(partition + 1, 0)).count());
        }
    }

    fn failures(&self) -> Vec<&ProduceError> {
        self.deliveries.iter().filter_map(|delivery| delivery.outcome.as_ref().err()).collect()
    }
}

fn hand_over(front: &mut Front, core: &mut ProducerCore, now: std::time::Instant) {
    let mut sealed = Vec::new();
    front.hand_over(core, now, &mut sealed);
    sealed.into_iter().for_each(|batch| core.push(batch));
}

fn producer_options(retry_unknown: RetryUnknown) -> ProducerOptions {
    let connect = ConnectOptions { backoff: Duration::from_millis(5), ..ConnectOptions::default() };
    let (batch_bytes, buffer_bytes, inflight) = (400, 20_000, 4);
    ProducerOptions { connect, retry_unknown, batch_bytes, buffer_bytes, inflight, ..ProducerOptions::default() }
}

/// Sends for a while through every trouble that `mood` and `losses` make, then lets it come to rest.
fn run_producer(seed: u64, options: &ProducerOptions, mood: Mood, losses: usize) -> Producing {
    let mut producing = Producing::new(seed, options);
    (producing.world.server.mood, producing.world.losses) = (mood, losses);
    for _ in 0..400 {
        for _ in 0..producing.world.chance.below(4) {
            let (partition, size) = (producing.world.chance.below(3) as u32, producing.world.chance.below(300));
            producing.send(partition, size);
        }
        producing.step();
    }
    producing.finish();
    producing
}

fn strictly_ascending(numbers: &[u64]) -> bool {
    numbers.is_sorted_by(|left, right| left < right)
}

fn chaos() -> impl Strategy<Value = (u64, Mood, usize, Duration, Codec)> {
    let lingers = prop_oneof![Just(Duration::ZERO), Just(Duration::from_millis(5))];
    let codecs = prop_oneof![Just(Codec::None), Just(Codec::Lz4)];
    let losses = prop_oneof![Just(0_usize), 20..300_usize];
    let often = || prop_oneof![Just(0_usize), 3..40_usize];
    (any::<u64>(), often(), often(), any::<bool>(), losses, lingers, codecs).prop_map(
        |(seed, busy, outcome_unknown, holds_answers, losses, linger, codec)| {
            let mood = Mood { busy, outcome_unknown, holds_answers, ..Mood::default() };
            (seed, mood, losses, linger, codec)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn at_most_once_neither_repeats_nor_reorders((seed, mood, losses, linger, compression) in chaos()) {
        let options = ProducerOptions { linger, compression, ..producer_options(RetryUnknown::AtMostOnce) };
        let mut producing = run_producer(seed, &options, mood, losses);
        producing.check();
        for partition in 0..PARTITIONS {
            prop_assert!(strictly_ascending(&producing.logged(partition)));
        }
        if losses == 0 && mood.outcome_unknown == 0 {
            prop_assert_eq!(producing.failures(), Vec::<&ProduceError>::new());
        }
    }

    #[test]
    fn at_least_once_loses_nothing_and_repeats_in_order((seed, mood, losses, linger, compression) in chaos()) {
        let options = ProducerOptions { linger, compression, ..producer_options(RetryUnknown::AtLeastOnce) };
        let mut producing = run_producer(seed, &options, mood, losses);
        producing.check();
        prop_assert_eq!(producing.failures(), Vec::<&ProduceError>::new());
        for partition in 0..PARTITIONS {
            let logged = producing.logged(partition);
            // Never ahead by more than one: a repetition goes back, and on from there.
            prop_assert!(logged.first().is_none_or(|&first| first == 0));
            prop_assert!(logged.is_sorted_by(|left, right| *right <= left + 1), "{:?}", logged);
        }
    }

    #[test]
    fn exactly_once_neither_loses_nor_repeats((seed, mood, losses, linger, compression) in chaos()) {
        let options = ProducerOptions { linger, compression, inflight: 16, ..producer_options(RetryUnknown::ExactlyOnce) };
        let mut producing = run_producer(seed, &options, mood, losses);
        producing.check();
        prop_assert_eq!(producing.failures(), Vec::<&ProduceError>::new());
        for partition in 0..PARTITIONS {
            let logged = producing.logged(partition);
            prop_assert_eq!(&logged, &(0..logged.len() as u64).collect::<Vec<_>>());
        }
    }

    /// What a batch that is refused for good leaves behind it is no gap for those that follow.
    #[test]
    fn exactly_once_goes_on_behind_what_is_refused((seed, mood, losses, linger, compression) in chaos(), invalid in 3..30_usize) {
        let options = ProducerOptions { linger, compression, ..producer_options(RetryUnknown::ExactlyOnce) };
        let mut producing = run_producer(seed, &options, Mood { invalid, ..mood }, losses);
        producing.check();
        let is_fair = |error: &&ProduceError| matches!(error, ProduceError::Refused(_)) || error.is_outcome_unknown();
        prop_assert!(producing.failures().iter().all(is_fair), "{:?}", producing.failures());
        if losses == 0 && mood.outcome_unknown == 0 {
            prop_assert!(producing.failures().iter().all(|error| !error.is_outcome_unknown()));
        }
        for partition in 0..PARTITIONS {
            prop_assert!(strictly_ascending(&producing.logged(partition)));
        }
    }

    /// A server that appends later batches after it refused one: the refused one is reported, never sent behind them.
    #[test]
    fn order_holds_even_where_the_server_forgets_refusals(seed: u64, busy in 3..20_usize) {
        let mood = Mood { busy, forgets_refusals: true, holds_answers: true, ..Mood::default() };
        for retry_unknown in [RetryUnknown::AtMostOnce, RetryUnknown::AtLeastOnce] {
            let mut producing = run_producer(seed, &producer_options(retry_unknown), mood, 0);
            producing.check();
            for partition in 0..PARTITIONS {
                prop_assert!(strictly_ascending(&producing.logged(partition)));
            }
            for failure in producing.failures() {
                prop_assert!(matches!(failure, ProduceError::Overtaken(_)), "{failure}");
            }
        }
    }

    #[test]
    fn a_consumer_gets_every_record_once_and_in_order(
        seed: u64, losses in prop_oneof![Just(0_usize), 10..200_usize], push: bool, small: bool,
    ) {
        let mode = if push { Mode::Push } else { Mode::Pull };
        let (fetch_bytes, buffer_bytes) = if small { (200, 600) } else { (1 << 16, 1 << 20) };
        let options = ConsumerOptions { mode, fetch_bytes, buffer_bytes, ..consumer_options() };
        let mut consuming = Consuming::new(seed, options);
        consuming.world.losses = losses;
        for _ in 0..400 {
            if consuming.world.chance.one_in(3) {
                consuming.produce();
            }
            consuming.world.step(&mut consuming.core);
            if consuming.world.chance.one_in(4) {
                consuming.world.server.end_waits();
            }
            if consuming.world.chance.one_in(2) {
                consuming.take().unwrap();
            }
        }
        consuming.finish();
        for partition in 0..PARTITIONS as usize {
            let logged = consuming.world.server.log(TOPIC, partition).values();
            prop_assert_eq!(&consuming.seen[partition], &logged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 0, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_seek_is_obeyed_at_once_whatever_is_on_its_way(
        seed: u64, losses in prop_oneof![Just(0_usize), 20..200_usize], push: bool,
    ) {
        let mode = if push { Mode::Push } else { Mode::Pull };
        let (fetch_bytes, buffer_bytes) = (200, 1000);
        let mut consuming = Consuming::new(seed, ConsumerOptions { mode, fetch_bytes, buffer_bytes, ..consumer_options() });
        consuming.world.losses = losses;
        for _ in 0..400 {
            if consuming.world.chance.one_in(3) {
                consuming.produce();
            }
            if consuming.world.chance.one_in(10) && consuming.core.is_ready() == Ok(true) {
                let partition = consuming.world.chance.below(PARTITIONS as usize);
                let next = consuming.world.server.log(TOPIC, partition).next;
                let offset = consuming.world.chance.below(next as usize + 1) as i64;
                consuming.seek(partition as u32, offset);
            }
            consuming.world.step(&mut consuming.core);
            if consuming.world.chance.one_in(4) {
                consuming.world.server.end_waits();
            }
            if consuming.world.chance.one_in(2) {
                consuming.take().unwrap();
            }
        }
        consuming.finish();
        let ends = (0..PARTITIONS as usize).map(|partition| Some(consuming.world.server.log(TOPIC, partition).next));
        let ends = ends.zip(&consuming.expected).map(|(next, expected)| expected.and(next)).collect::<Vec<_>>();
        prop_assert_eq!(ends, consuming.expected);
    }
}

#[test]
fn troubles_are_really_met() {
    let mood = Mood { busy: 10, outcome_unknown: 20, holds_answers: true, ..Mood::default() };
    let mut producing = run_producer(1, &producer_options(RetryUnknown::AtLeastOnce), mood, 60);
    assert!(producing.world.lost > 10 && producing.world.server.refusals > 20);
    let logged = (0..PARTITIONS).map(|partition| producing.logged(partition).len()).sum::<usize>();
    let stats = producing.front.accumulator.stats();
    assert!(logged > producing.taken.len(), "some must have been repeated");
    assert!(stats.resent > 0 && stats.resent < stats.acknowledged, "{stats:?}");
    let producing = run_producer(1, &producer_options(RetryUnknown::AtMostOnce), mood, 60);
    assert_eq!(producing.front.accumulator.stats().resent, 0);
    assert!(producing.failures().iter().any(|error| error.is_outcome_unknown()));
    assert!(producing.failures().iter().all(|error| error.is_outcome_unknown()), "{:?}", producing.failures());
}

#[test]
fn a_server_that_stays_away_fails_records_in_time() {
    let options =
        ProducerOptions { delivery_timeout: Duration::from_millis(500), ..producer_options(RetryUnknown::AtMostOnce) };
    let mut producing = Producing::new(3, &options);
    producing.world.stop_server(&mut producing.core);
    (0..5).for_each(|_| assert!(producing.send(1, 10)));
    let begun = producing.world.now;
    while producing.deliveries.is_empty() {
        producing.step();
        assert!(producing.world.now < begun + Duration::from_millis(600));
    }
    assert!(matches!(producing.failures()[..], [ProduceError::TimedOut(why)] if why.contains("refused")));
    producing.world.reachable = true;
    assert!(producing.send(1, 10));
    producing.finish();
    assert_eq!(producing.deliveries.last().unwrap().outcome, Ok(0));
}

#[test]
fn a_record_that_waits_its_turn_is_not_late() {
    let timeout = Duration::from_millis(200);
    let options = ProducerOptions {
        delivery_timeout: timeout,
        batch_bytes: 1,
        inflight: 1,
        ..producer_options(RetryUnknown::AtMostOnce)
    };
    let mut producing = Producing::new(5, &options);
    (0..100).for_each(|_| assert!(producing.send(1, 10)));
    let begun = producing.world.now;
    producing.finish();
    let failed = producing.failures().len();
    assert_eq!(failed, 0, "of {}", producing.deliveries.len());
    assert!(producing.world.now > begun + 2 * timeout, "{:?}", producing.world.now - begun);
}

/// The server stops and comes back with another number of shards on other ports; only the bootstrap port stays.
fn restart_elsewhere(world: &mut World, machine: &mut impl crate::machine::Machine) {
    world.stop_server(machine);
    for _ in 0..200 {
        world.step(machine);
    }
    (world.server.shards, world.server.ports) = (3, vec![7100, 7201, 7202]);
    world.reachable = true;
}

#[test]
fn partitions_that_moved_are_found_again() {
    let mut producing = Producing::new(9, &producer_options(RetryUnknown::AtLeastOnce));
    for _ in 0..3 {
        (0..PARTITIONS).for_each(|partition| assert!(producing.send(partition, 10)));
        producing.finish();
        restart_elsewhere(&mut producing.world, &mut producing.core);
    }
    producing.check();
    assert_eq!(producing.failures(), Vec::<&ProduceError>::new());

    for mode in [Mode::Push, Mode::Pull] {
        let mut consuming = Consuming::new(9, ConsumerOptions { mode, ..consumer_options() });
        consuming.finish();
        restart_elsewhere(&mut consuming.world, &mut consuming.core);
        (0..20).for_each(|_| consuming.produce());
        consuming.finish();
        // Each shard has its own connection: nothing has to cross.
        assert_eq!(consuming.world.links().len(), 3);
    }
}

#[test]
fn where_a_shard_cannot_be_reached_another_serves_its_partitions() {
    let mut producing = Producing::new(10, &producer_options(RetryUnknown::AtMostOnce));
    producing.world.unreachable_port = Some(7101);
    (0..PARTITIONS).for_each(|partition| assert!(producing.send(partition, 10)));
    producing.finish();
    producing.check();
    assert_eq!(producing.failures(), Vec::<&ProduceError>::new());
    assert_eq!(producing.world.links().len(), 1);
}

const DELETED: &str = "metadata was refused: unknown_topic (210): topic clicks was deleted";
const REPLACED: &str = "metadata was refused: unknown_topic (210): topic clicks was deleted and created again; start \
                        again to use the new one";

#[test]
fn a_topic_that_is_deleted_fails_what_waits_and_says_so() {
    for (again, message) in [(false, DELETED), (true, REPLACED)] {
        let mut producing = Producing::new(4, &producer_options(RetryUnknown::AtMostOnce));
        producing.send(0, 10);
        producing.finish();
        producing.world.server.delete(TOPIC);
        if again {
            producing.world.server.create(TOPIC, PARTITIONS as usize);
        }
        producing.send(0, 10);
        producing.finish();
        let failures = producing.failures();
        let [ProduceError::Refused(refusal)] = &failures[..] else { panic!("{failures:?}") };
        assert_eq!(refusal.to_string(), message);
        if again {
            assert!(producing.world.server.log(TOPIC, 0).batches.is_empty(), "nothing goes to another topic");
        }
    }
}

#[test]
fn a_consumer_of_a_topic_that_is_deleted_says_so_once() {
    for mode in [Mode::Push, Mode::Pull] {
        for (again, message) in [(false, DELETED), (true, REPLACED)] {
            let mut consuming = Consuming::new(4, ConsumerOptions { mode, ..consumer_options() });
            consuming.finish();
            consuming.world.server.delete(TOPIC);
            if again {
                consuming.world.server.create(TOPIC, PARTITIONS as usize);
            }
            assert_eq!(consuming.until_error().to_string(), message);
            for _ in 0..1000 {
                consuming.world.step(&mut consuming.core);
                assert!(!consuming.take().unwrap());
            }
        }
    }
}

#[test]
fn what_arrived_before_an_error_is_handed_over_first() {
    for mode in [Mode::Push, Mode::Pull] {
        let mut consuming = Consuming::new(4, ConsumerOptions { mode, ..consumer_options() });
        let steps = |consuming: &mut Consuming| {
            for _ in 0..3000 {
                consuming.world.losses = 0;
                consuming.world.step(&mut consuming.core);
                consuming.world.server.end_waits();
            }
        };
        steps(&mut consuming);
        consuming.world.server.delete(TOPIC);
        steps(&mut consuming);
        assert_eq!(consuming.until_error().to_string(), DELETED);
        assert_eq!(consuming.seen.iter().flatten().count() as u64, consuming.produced);
    }
}

#[test]
fn a_shard_that_has_not_heard_of_the_topic_is_asked_again() {
    for mode in [Mode::Push, Mode::Pull] {
        let mut consuming = Consuming::new(19, ConsumerOptions { mode, ..consumer_options() });
        consuming.world.server.ignorant = 1;
        consuming.finish();
        assert_eq!(consuming.world.server.ignorant, 0);
        let mut consuming = Consuming::new(19, ConsumerOptions { mode, ..consumer_options() });
        consuming.world.server.ignorant = usize::MAX;
        assert!(
            matches!(consuming.until_error(), ClientError::Refused(refusal) if refusal.operation == Operation::Open)
        );
    }
}

#[test]
fn a_batch_over_the_servers_limit_fails_alone() {
    let big = ProducerOptions {
        batch_bytes_max: 8 << 20,
        buffer_bytes: 16 << 20,
        ..producer_options(RetryUnknown::AtMostOnce)
    };
    let mut producing = Producing::new(5, &big);
    producing.send(0, 10);
    producing.send(0, 5 << 20);
    producing.send(0, 10);
    producing.finish();
    let outcomes = producing.deliveries.iter().map(|delivery| delivery.outcome.is_ok()).collect::<Vec<_>>();
    assert_eq!(outcomes, [true, false, true]);
    assert_eq!(producing.logged(0), [0, 2]);
}

#[test]
fn full_is_full_and_passes() {
    let mut producing = Producing::new(6, &producer_options(RetryUnknown::AtMostOnce));
    let taken = (0..1000).take_while(|_| producing.send(0, 100)).count();
    assert!((100..200).contains(&taken), "{taken}");
    producing.finish();
    assert!(producing.send(0, 100));
}

#[test]
fn giving_up_reports_everything() {
    let mut producing = Producing::new(7, &producer_options(RetryUnknown::AtMostOnce));
    producing.world.server.mood.holds_answers = true;
    for _ in 0..40 {
        producing.send(2, 200);
        hand_over(&mut producing.front, &mut producing.core, producing.world.now);
    }
    for _ in 0..20 {
        producing.world.step(&mut producing.core);
    }
    producing.front.drain().into_iter().for_each(|batch| producing.core.push(batch));
    producing.core.give_up();
    producing.report();
    producing.check();
    assert!(producing.failures().iter().any(|error| error.is_outcome_unknown()));
    assert!(producing.failures().iter().any(|error| matches!(error, ProduceError::Closed)));
    assert_eq!(producing.front.accumulator.stats().bytes_buffered, 0);
}

#[test]
fn records_without_a_key_stick_to_a_batch_and_move_on() {
    let options = ProducerOptions { linger: Duration::from_secs(1), ..producer_options(RetryUnknown::AtMostOnce) };
    let mut producing = Producing::new(8, &options);
    let now = producing.world.now;
    let value = [7; 100];
    let mut send = |record: NewRecord<'_>| producing.front.accumulator.append(&record, now, 5).unwrap().partition;
    let sticky = (0..12).map(|_| send(NewRecord::new(&value))).collect::<Vec<_>>();
    assert_eq!(sticky, [0, 0, 1, 1, 2, 2, 0, 0, 1, 1, 2, 2]);
    let keyed = send(NewRecord::new(&value).key(b"foobar"));
    assert_eq!(keyed, crate::partition_of(b"foobar", 3));
}

fn consumer_options() -> ConsumerOptions {
    let connect = ConnectOptions { backoff: Duration::from_millis(5), ..ConnectOptions::default() };
    ConsumerOptions { connect, ..ConsumerOptions::default() }
}

/// A consumer without its driver, and what it has seen.
struct Consuming {
    world: World,
    core: ConsumerCore,
    seen: Vec<Vec<Vec<u8>>>,
    /// Offset of the record that must come next, where that is known.
    expected: Vec<Option<i64>>,
    produced: u64,
}

impl Consuming {
    fn new(seed: u64, options: ConsumerOptions) -> Consuming {
        let mut world = World::new(seed, 2);
        world.server.create(TOPIC, PARTITIONS as usize);
        let routes = Routes::new(TOPIC, options.connect.backoff, world.now);
        let core = ConsumerCore::new(world.cluster(&options.connect), routes, options);
        let (seen, expected) = (vec![Vec::new(); PARTITIONS as usize], vec![None; PARTITIONS as usize]);
        let mut consuming = Consuming { world, core, seen, expected, produced: 0 };
        for _ in 0..10 {
            consuming.produce();
        }
        consuming
    }

    /// Appends a batch of a few records to some partition, as other clients would.
    fn produce(&mut self) {
        let codec = Codec::ALL[self.world.chance.below(5)];
        let mut builder = BatchBuilder::new(1 << 20, codec);
        for _ in 0..=self.world.chance.below(4) {
            self.produced += 1;
            let value = self.produced.to_be_bytes().repeat(1 + self.world.chance.below(10));
            builder.append(None, Some(&value), &[], self.produced as i64).unwrap();
        }
        let partition = self.world.chance.below(PARTITIONS as usize);
        self.world.server.log(TOPIC, partition).append(&builder.build().unwrap());
        self.world.server.wake();
    }

    fn take(&mut self) -> Result<bool, ClientError> {
        let Some(fetched) = self.core.take()? else { return Ok(false) };
        let partition = fetched.partition() as usize;
        for record in fetched.records() {
            let record = record.unwrap();
            assert_eq!(record.offset, self.expected[partition].unwrap_or(record.offset));
            self.expected[partition] = Some(record.offset + 1);
            self.seen[partition].push(record.value.unwrap().to_vec());
        }
        assert_eq!(self.core.position(fetched.partition()), Some(fetched.next()));
        Ok(true)
    }

    /// Runs until everything that the server has was handed over.
    fn finish(&mut self) {
        let next = |world: &mut World, partition: u32| world.server.log(TOPIC, partition as usize).next;
        for _ in 0..20_000 {
            while self.take().unwrap() {}
            let world = &mut self.world;
            let mut behind = |partition: &u32| self.core.position(*partition) != Some(next(world, *partition));
            if !(0..PARTITIONS).any(|partition| behind(&partition)) && self.core.at_end() {
                return;
            }
            self.world.losses = 0;
            self.world.now += Duration::from_millis(1);
            self.world.step(&mut self.core);
            self.world.server.end_waits();
        }
        panic!("it never came to the end");
    }

    fn seek(&mut self, partition: u32, offset: i64) {
        self.core.seek(partition, offset, self.world.now).unwrap();
        self.expected[partition as usize] = Some(offset);
    }

    fn until_error(&mut self) -> ClientError {
        for _ in 0..20_000 {
            if let Err(error) = self.take() {
                return error;
            }
            self.world.step(&mut self.core);
            self.world.server.end_waits();
        }
        panic!("no error came");
    }
}

#[test]
fn where_a_consumer_may_begin() {
    for mode in [Mode::Push, Mode::Pull] {
        let options = ConsumerOptions { mode, start: Start::End, ..consumer_options() };
        let mut consuming = Consuming::new(11, options);
        consuming.finish();
        assert!(consuming.seen.iter().all(Vec::is_empty));
        consuming.produce();
        consuming.finish();
        assert_eq!(consuming.seen.iter().filter(|seen| !seen.is_empty()).count(), 1);

        let options = ConsumerOptions { mode, start: Start::Timestamp(15), ..consumer_options() };
        let mut consuming = Consuming::new(11, options);
        consuming.finish();
        let number = |value: &Vec<u8>| u64::from_be_bytes(*value.first_chunk().unwrap());
        assert!(consuming.seen.iter().flatten().map(number).all(|number| number >= 15));
        assert_eq!(consuming.seen.iter().flatten().count() as u64, consuming.produced - 14);

        let start = Start::Offset(2);
        let options = ConsumerOptions { mode, start, partitions: Some(vec![1]), ..consumer_options() };
        let mut consuming = Consuming::new(11, options);
        for _ in 0..2000 {
            consuming.world.step(&mut consuming.core);
            consuming.take().unwrap();
        }
        let logged = consuming.world.server.log(TOPIC, 1).values();
        assert_eq!(consuming.seen[1], logged[2..]);
        assert!(consuming.core.at_end());
    }
}

#[test]
fn where_the_server_takes_no_more_subscriptions_the_rest_is_pulled() {
    let mut consuming = Consuming::new(17, consumer_options());
    consuming.world.server.subscriptions_max = 1;
    consuming.finish();
    (0..20).for_each(|_| consuming.produce());
    consuming.finish();
    assert!(consuming.world.server.refusals > 0);
    for partition in 0..PARTITIONS as usize {
        assert_eq!(consuming.seen[partition], consuming.world.server.log(TOPIC, partition).values());
    }
}

#[test]
fn an_offset_that_is_gone() {
    for mode in [Mode::Push, Mode::Pull] {
        let options = |out_of_range| ConsumerOptions {
            mode,
            out_of_range,
            start: Start::Offset(1),
            partitions: Some(vec![0]),
            ..consumer_options()
        };
        let mut consuming = Consuming::new(12, options(OutOfRange::Fail));
        (0..20).for_each(|_| consuming.produce());
        let log = consuming.world.server.log(TOPIC, 0);
        log.first = 4;
        let next = log.next;
        let error = consuming.until_error();
        let ClientError::Refused(refusal) = error else { panic!("{error}") };
        assert_eq!(refusal.range(), Some((4, next)));
        consuming.seek(0, 4);
        while consuming.core.position(0) != Some(next) {
            consuming.world.step(&mut consuming.core);
            consuming.take().unwrap();
        }
        assert_eq!(consuming.seen[0].len() as i64, next - 4);

        let mut consuming = Consuming::new(12, options(OutOfRange::Beginning));
        (0..20).for_each(|_| consuming.produce());
        consuming.world.server.log(TOPIC, 0).first = 4;
        while consuming.core.position(0) != Some(next) {
            consuming.world.step(&mut consuming.core);
            consuming.take().unwrap();
        }
        assert_eq!(consuming.seen[0].len() as i64, next - 4);
    }
}

#[test]
fn a_damaged_batch_is_told_and_passed_by_seeking() {
    let mut consuming = Consuming::new(13, ConsumerOptions { partitions: Some(vec![0]), ..consumer_options() });
    (0..20).for_each(|_| consuming.produce());
    let log = consuming.world.server.log(TOPIC, 0);
    let damaged = corelog_batch::BatchView::first(&log.batches[2]).unwrap();
    let (at, behind) = (damaged.base_offset(), damaged.next_offset());
    let last = log.batches[2].len() - 1;
    log.batches[2][last] ^= 1;
    let error = consuming.until_error();
    assert!(matches!(error, ClientError::Corrupt { partition: 0, offset, .. } if offset == at), "{error}");
    assert_eq!(consuming.seen[0].len() as i64, at);
    consuming.seek(0, behind);
    let next = consuming.world.server.log(TOPIC, 0).next;
    while consuming.core.position(0) != Some(next) {
        consuming.world.step(&mut consuming.core);
        consuming.take().unwrap();
    }
}

#[test]
fn seeking_back_gives_the_records_again() {
    for mode in [Mode::Push, Mode::Pull] {
        let mut consuming = Consuming::new(14, ConsumerOptions { mode, ..consumer_options() });
        consuming.finish();
        let first = consuming.seen.clone();
        (0..PARTITIONS).for_each(|partition| consuming.seek(partition, 0));
        consuming.finish();
        for (seen, first) in consuming.seen.iter().zip(&first) {
            assert_eq!(seen[..], [&first[..], &first[..]].concat());
        }
        assert!(consuming.core.seek(9, 0, consuming.world.now).is_err());
        assert!(consuming.core.seek(0, -1, consuming.world.now).is_err());
    }
}

#[test]
fn a_consumer_of_what_is_not_there() {
    let mut world = World::new(15, 1);
    let routes = Routes::new("nothing", Duration::from_millis(5), world.now);
    let mut core = ConsumerCore::new(world.cluster(&ConnectOptions::default()), routes, consumer_options());
    while matches!(core.is_ready(), Ok(false)) {
        world.step(&mut core);
    }
    let error = core.is_ready().unwrap_err();
    assert!(matches!(&error, ClientError::Refused(refusal) if refusal.status() == Some(Status::UnknownTopic)));
    assert!(error.to_string().contains("nothing"), "{error}");
    world.server.create(TOPIC, 2);
    let routes = Routes::new(TOPIC, Duration::from_millis(5), world.now);
    let options = ConsumerOptions { partitions: Some(vec![2]), ..consumer_options() };
    let mut core = ConsumerCore::new(world.cluster(&ConnectOptions::default()), routes, options);
    while matches!(core.is_ready(), Ok(false)) {
        world.step(&mut core);
    }
    assert!(matches!(core.is_ready(), Err(ClientError::Invalid(_))));
}

/// An admin in the pretend world.
struct Administering {
    world: World,
    core: AdminCore,
}

impl Caller for Administering {
    async fn call(&mut self, request: Request) -> Result<Answer, ClientError> {
        self.core.begin(request, Duration::from_secs(5), self.world.now);
        loop {
            self.world.step(&mut self.core);
            if let Some(outcome) = self.core.outcome() {
                return outcome;
            }
        }
    }
}

fn run<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(done) => done,
        std::task::Poll::Pending => panic!("nothing here waits"),
    }
}

#[test]
fn every_call_of_an_admin() {
    let mut world = World::new(21, 2);
    world.losses = 40;
    let core = AdminCore::new(world.cluster(&ConnectOptions::default()), "pretend:7100", &ConnectOptions::default());
    let to = &mut Administering { world, core };
    for name in ["a", "b", "c"] {
        match run(admin::create_topic(to, name, 4, &[])) {
            Ok(facts) => assert_eq!(facts.partitions, 4),
            Err(ClientError::OutcomeUnknown { .. }) => to.world.server.create(name, 4),
            Err(error) => panic!("{error}"),
        }
    }
    for _ in 0..20 {
        run(admin::ping(to)).unwrap();
        assert_eq!(run(admin::cluster(to)).unwrap().endpoints[1].host, "pretend");
        let names = run(admin::topics(to)).unwrap().into_iter().map(|topic| topic.name).collect::<Vec<_>>();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(run(admin::topic(to, "b")).unwrap().owners, [(1, 0), (1, 1), (1, 0), (1, 1)]);
        let found = run(admin::list_offsets(to, "b", 3, ListOffsets::Earliest)).unwrap();
        assert_eq!(found.map(|found| found.offset), Some(0));
        assert_eq!(run(admin::list_offsets(to, "b", 3, ListOffsets::At(5))).unwrap(), None);
        assert_eq!(run(admin::delete_records(to, "b", 0, -1)).unwrap(), 0);
    }
    assert!(to.world.lost > 0);
    let refused =
        |error| matches!(error, Err(ClientError::Refused(refusal)) if refusal.status() == Some(Status::UnknownTopic));
    assert!(refused(run(admin::topic(to, "x")).map(drop)));
    assert!(refused(run(admin::list_offsets(to, "x", 0, ListOffsets::Latest)).map(drop)));
    let error = run(admin::topic(to, &"x".repeat(5000)));
    assert!(matches!(error, Err(ClientError::Invalid(_))));
}

#[test]
fn nobody_there_is_unreachable_in_time() {
    let mut world = World::new(22, 1);
    world.reachable = false;
    let core = AdminCore::new(world.cluster(&ConnectOptions::default()), "pretend:7100", &ConnectOptions::default());
    let to = &mut Administering { world, core };
    let begun = to.world.now;
    let error = run(admin::ping(to)).unwrap_err();
    assert_eq!(error.to_string(), "cannot reach pretend:7100: refused");
    assert!(to.world.now - begun < Duration::from_secs(6));
}

#[test]
fn a_silent_server_is_pinged_then_given_up() {
    let mut producing = Producing::new(23, &producer_options(RetryUnknown::AtMostOnce));
    producing.send(0, 1);
    producing.finish();
    // The server hears, and says nothing more.
    let links = producing.world.links();
    producing.world.server.connections.clear();
    let lost_after = producing.world.now + Duration::from_secs(60);
    while producing.world.links() == links && producing.world.now < lost_after {
        producing.world.now += Duration::from_secs(1);
        producing.step();
    }
    assert!(producing.world.now < lost_after, "the link should have been given up");
}
