use super::*;
use crate::log::testing::golden;
use crate::metadata::{Bounds, MetadataRecord};
use proptest::prelude::*;
use uuid::Uuid;

const TIMES: Times = Times { session: Duration::from_secs(45), heartbeat: Duration::from_secs(5) };
const REBALANCE: Duration = Duration::from_secs(60);

fn id(number: u128) -> TopicId {
    TopicId(Uuid::from_u128(number))
}

fn create(catalog: &mut Catalog, number: u128, name: &str, partitions: u32) {
    let none: [(&str, &str); 0] = [];
    let record = catalog.decide_create(&Bounds::default(), id(number), name, partitions, &none).unwrap();
    catalog.apply(&record).unwrap();
}

/// As a client keeps it: what it reads follows what it is told.
#[derive(Debug, Clone, Default)]
struct Client {
    member: String,
    epoch: i32,
    owned: Partitions,
}

struct Bench {
    group: Group,
    catalog: Catalog,
    now: Instant,
    fresh: u32,
    log: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
}

impl Bench {
    fn new(topics: &[(&str, u32)]) -> Bench {
        let mut catalog = Catalog::default();
        for (number, (name, partitions)) in (10..).zip(topics) {
            create(&mut catalog, number, name, *partitions);
        }
        Bench { group: Group::default(), catalog, now: Instant::from_nanos(1), fresh: 0, log: BTreeMap::new() }
    }

    fn say(&mut self, said: &Heartbeat) -> Result<Told, GroupError> {
        self.fresh += 1;
        let told = self.group.heartbeat(self.now, &TIMES, said, format!("m{}", self.fresh), &self.catalog);
        self.write();
        told
    }

    /// What changed goes to the log, and the log alone gives the same group.
    fn write(&mut self) {
        self.log.extend(self.group.take_changes("g"));
        let mut again = Group::default();
        for (key, value) in &self.log {
            let crate::group::records::Key::Consumer(_, key) = crate::group::records::Key::decode(key).unwrap() else {
                panic!("{key:?}")
            };
            again.take(key, value.as_deref(), self.now).unwrap();
        }
        assert_eq!(again.records("g"), self.group.records("g"));
        again.loaded(self.now, &TIMES, &self.catalog);
        assert_eq!(again.taken, self.group.taken);
    }

    fn join(&mut self, names: &[&str]) -> Client {
        self.join_as(joining(names)).unwrap()
    }

    fn join_as(&mut self, said: Heartbeat) -> Result<Client, GroupError> {
        let told = self.say(&said)?;
        Ok(Client { member: told.member, epoch: told.epoch, owned: told.assignment.unwrap() })
    }

    /// A client says what it reads, and takes what it is told.
    fn beat(&mut self, client: &mut Client) -> Result<Told, GroupError> {
        let said = beating(client);
        let told = self.say(&said)?;
        client.epoch = told.epoch;
        if let Some(assignment) = &told.assignment {
            client.owned = assignment.clone();
        }
        Ok(told)
    }

    /// One that is out, for two answers in a row were lost or it was silent, gives up what it reads, and joins again.
    fn beat_or_join(&mut self, client: &mut Client, wanted: &[&str], assignor: &Option<String>) {
        if self.beat(client).is_err() {
            let said = Heartbeat { assignor: assignor.clone(), member: client.member.clone(), ..joining(wanted) };
            *client = self.join_as(said).unwrap();
        }
    }

    fn settle(&mut self, clients: &mut [Client]) {
        for _ in 0..6 {
            for client in &mut *clients {
                self.beat(client).unwrap();
                self.group.tick(self.now);
            }
        }
        assert_eq!(self.group.state(), "Stable");
    }

    /// The same of clients that say their instances' names.
    fn settle_as(&mut self, clients: &mut [Client], instances: &[&str]) {
        for _ in 0..6 {
            for (client, instance) in clients.iter_mut().zip(instances) {
                let instance = Some((*instance).to_owned()).filter(|instance| !instance.is_empty());
                let told = self.say(&Heartbeat { instance, ..beating(client) }).unwrap();
                client.epoch = told.epoch;
                client.owned = told.assignment.unwrap_or(client.owned.clone());
            }
        }
        assert_eq!(self.group.state(), "Stable");
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.group.tick(self.now);
        self.write();
    }
}

fn joining(names: &[&str]) -> Heartbeat {
    Heartbeat {
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        rebalance: Some(REBALANCE),
        names: Some(names.iter().map(|name| (*name).to_owned()).collect()),
        owned: Some(Partitions::new()),
        ..Heartbeat::default()
    }
}

fn beating(client: &Client) -> Heartbeat {
    Heartbeat {
        member: client.member.clone(),
        epoch: client.epoch,
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        owned: Some(client.owned.clone()),
        ..Heartbeat::default()
    }
}

fn counts(clients: &[Client]) -> Vec<usize> {
    clients.iter().map(|client| count(&client.owned)).collect()
}

#[test]
fn a_partition_goes_over_when_it_was_given_back() {
    let mut bench = Bench::new(&[("t", 4)]);
    let mut one = bench.join(&["t"]);
    assert_eq!((one.epoch, count(&one.owned)), (1, 4), "who is alone reads all, at once");
    let mut two = bench.join(&["t"]);
    assert_eq!((two.epoch, count(&two.owned)), (2, 0), "what it is to read is still another's");
    assert_eq!(bench.group.state(), "Reconciling");
    let before = one.owned.clone();
    let told = bench.beat(&mut one).unwrap();
    assert_eq!((told.epoch, count(&one.owned)), (1, 2), "it stays at its epoch until it has given back");
    assert_eq!(told.heartbeat, SOON);
    assert_eq!(bench.beat(&mut two).unwrap().assignment, None, "not yet");
    // What it read before is in the request: that is no giving back.
    let late = Heartbeat { owned: Some(before), ..beating(&one) };
    assert_eq!(bench.say(&late).unwrap().epoch, 1);
    let told = bench.beat(&mut one).unwrap();
    assert_eq!((told.epoch, told.heartbeat), (2, TIMES.heartbeat));
    bench.beat(&mut two).unwrap();
    assert_eq!(counts(&[one.clone(), two.clone()]), [2, 2]);
    assert!(each(&one.owned).all(|partition| !has(&two.owned, partition)));
    assert_eq!(bench.group.state(), "Stable");
    let leave = Heartbeat { epoch: LEAVE, ..beating(&two) };
    assert_eq!(bench.say(&leave).unwrap().epoch, LEAVE);
    bench.beat(&mut one).unwrap();
    assert_eq!((one.epoch, count(&one.owned)), (3, 4));
}

#[test]
fn epochs_that_are_not_the_members_are_refused() {
    let mut bench = Bench::new(&[("t", 2)]);
    let mut one = bench.join(&["t"]);
    let at = |epoch: i32| Heartbeat { epoch, ..beating(&one.clone()) };
    assert_eq!(bench.say(&at(7)), Err(GroupError::FencedMember));
    assert_eq!(bench.say(&at(-3)), Err(GroupError::InvalidRequest("a member's epoch is -2 or more")));
    assert_eq!(bench.say(&Heartbeat { member: "nobody".to_owned(), ..at(1) }), Err(GroupError::UnknownMember));
    let two = bench.join(&["t"]);
    let missed = beating(&one);
    bench.beat(&mut one).unwrap();
    bench.beat(&mut one).unwrap();
    assert_eq!(one.epoch, 2);
    // The answer that told it so was lost, and it reads no more than it may: it is told again.
    let again = Heartbeat { owned: Some(one.owned.clone()), ..missed.clone() };
    assert_eq!(bench.say(&again).unwrap().epoch, 2);
    assert_eq!(bench.say(&missed), Err(GroupError::FencedMember), "it reads more than it may");
    assert_eq!(bench.say(&Heartbeat { owned: None, ..missed }), Err(GroupError::FencedMember));
    let commit = |member: &str, generation| bench.group.may_commit(&Said { member, instance: None, generation });
    assert_eq!(commit(&one.member, 2), Ok(()));
    assert_eq!(commit(&one.member, 1), Err(GroupError::StaleMember));
    assert_eq!(commit("", -1), Err(GroupError::UnknownMember), "not beside members");
    assert_eq!(commit(&two.member, 2), Ok(()));
    // One that was thrown out begins anew under its own id.
    let back = bench.join_as(Heartbeat { member: one.member.clone(), ..joining(&["t"]) }).unwrap();
    assert_eq!((back.member, back.epoch), (one.member, 2));
}

#[test]
fn who_joins_says_what_is_needed() {
    let mut bench = Bench::new(&[("t", 2)]);
    let refused = |bench: &mut Bench, said: Heartbeat| matches!(bench.say(&said), Err(GroupError::InvalidRequest(_)));
    assert!(refused(&mut bench, Heartbeat { names: None, ..joining(&["t"]) }));
    assert!(refused(&mut bench, Heartbeat { rebalance: None, ..joining(&["t"]) }));
    let owned = Some(collected([(id(10), 0)].into_iter()));
    assert!(refused(&mut bench, Heartbeat { owned, ..joining(&["t"]) }));
    let assignor = Some("sticky".to_owned());
    assert_eq!(bench.say(&Heartbeat { assignor, ..joining(&["t"]) }), Err(GroupError::UnsupportedAssignor));
    for pattern in ["(".to_owned(), "(a{1000}){1000}".to_owned(), "a".repeat(5000)] {
        let said = Heartbeat { pattern: Some(pattern), ..joining(&[]) };
        assert_eq!(bench.say(&said), Err(GroupError::InvalidPattern));
    }
    assert!(bench.group.is_nothing(), "nothing is left of them");
}

#[test]
fn who_is_silent_or_gives_nothing_back_is_out() {
    let mut bench = Bench::new(&[("t", 2)]);
    let mut one = bench.join(&["t"]);
    let mut two = bench.join(&["t"]);
    bench.beat(&mut one).unwrap();
    for _ in 0..5 {
        bench.pass(Duration::from_secs(11));
        // It is alive, and reads on what it is to give back.
        let stubborn = Heartbeat { owned: None, ..beating(&one) };
        let _ = bench.say(&stubborn);
        bench.beat(&mut two).unwrap();
    }
    assert_eq!(bench.group.size(), 2);
    bench.pass(Duration::from_secs(6));
    assert!(!bench.group.contains(&one.member), "a minute is over");
    bench.beat(&mut two).unwrap();
    assert_eq!(count(&two.owned), 2);
    bench.pass(TIMES.session);
    assert!(bench.group.is_idle());
    assert_eq!(bench.say(&beating(&two)), Err(GroupError::UnknownMember));
}

#[test]
fn an_instance_comes_back_to_what_it_had() {
    let mut bench = Bench::new(&[("t", 4)]);
    let instance = |name: &str| Heartbeat { instance: Some(name.to_owned()), ..joining(&["t"]) };
    let one = bench.join_as(instance("a")).unwrap();
    let two = bench.join_as(instance("b")).unwrap();
    let mut both = [one, two];
    bench.settle(&mut both);
    let [one, two] = both;
    assert_eq!(bench.join_as(instance("a")).unwrap_err(), GroupError::UnreleasedInstance);
    let away = Heartbeat { epoch: LEAVE_FOR_A_WHILE, instance: Some("a".to_owned()), ..beating(&one) };
    assert_eq!(bench.say(&away).unwrap().epoch, LEAVE_FOR_A_WHILE);
    let epoch = bench.group.epoch;
    let back = bench.join_as(instance("a")).unwrap();
    assert_ne!(back.member, one.member);
    assert_eq!((back.epoch, &back.owned, bench.group.epoch), (one.epoch, &one.owned, epoch), "nobody noticed");
    let late = Heartbeat { instance: Some("a".to_owned()), ..beating(&one) };
    assert_eq!(bench.say(&late), Err(GroupError::FencedInstance));
    // A member that was there without the name takes the place: what it had is free.
    let plain = bench.join(&["t"]);
    let mut all = [back, two, plain];
    bench.settle_as(&mut all, &["a", "b", ""]);
    let [back, two, plain] = all;
    let away = Heartbeat { epoch: LEAVE_FOR_A_WHILE, instance: Some("a".to_owned()), ..beating(&back) };
    bench.say(&away).unwrap();
    let back = bench.join_as(Heartbeat { member: plain.member.clone(), ..instance("a") }).unwrap();
    assert_eq!(back.member, plain.member);
    let mut both = [back, two];
    bench.settle_as(&mut both, &["a", "b"]);
    assert_eq!(counts(&both), [2, 2]);
    let [back, two] = both;
    let away = Heartbeat { epoch: LEAVE_FOR_A_WHILE, instance: Some("b".to_owned()), ..beating(&two) };
    bench.say(&away).unwrap();
    bench.pass(TIMES.session - Duration::from_secs(1));
    let mut back = back;
    bench.beat(&mut back).unwrap();
    bench.pass(Duration::from_secs(1));
    bench.beat(&mut back).unwrap();
    assert_eq!(count(&back.owned), 4, "it did not come back in time");
}

#[test]
fn topics_are_followed() {
    let mut bench = Bench::new(&[("logs-a", 2), ("logs-b", 1), ("other", 1)]);
    let pattern = Some("logs-[a-z]".to_owned());
    let said = Heartbeat { names: None, pattern: pattern.clone(), ..joining(&[]) };
    let mut one = bench.join_as(said).unwrap();
    assert_eq!(one.owned.keys().copied().collect::<Vec<_>>(), [id(10), id(11)], "of the whole name");
    create(&mut bench.catalog, 13, "logs-c", 5);
    create(&mut bench.catalog, 14, "logs-cc", 5);
    bench.group.topics_changed(bench.now, &bench.catalog);
    bench.beat(&mut one).unwrap();
    assert_eq!((one.epoch, count(&one.owned)), (2, 8));
    let record = bench.catalog.decide_partitions(&Bounds::default(), "logs-b", 3).unwrap();
    bench.catalog.apply(&record).unwrap();
    bench.catalog.apply(&MetadataRecord::TopicDeleted { id: id(10) }).unwrap();
    bench.group.topics_changed(bench.now, &bench.catalog);
    bench.group.topics_changed(bench.now, &bench.catalog);
    bench.beat(&mut one).unwrap();
    bench.beat(&mut one).unwrap();
    assert_eq!((one.epoch, count(&one.owned), bench.group.state()), (3, 8, "Stable"));
    assert_eq!(bench.group.may_forget("logs-z"), Err(GroupError::Subscribed));
    assert_eq!(bench.group.may_forget("other"), Ok(()));
    // Names, and no pattern any more.
    let said = Heartbeat { names: Some(vec!["other".to_owned()]), pattern: Some(String::new()), ..beating(&one) };
    let told = bench.say(&said).unwrap();
    assert_eq!(told.assignment, Some(Partitions::new()));
    one.owned.clear();
    bench.beat(&mut one).unwrap();
    assert_eq!(one.owned.keys().copied().collect::<Vec<_>>(), [id(12)]);
}

#[test]
fn a_group_has_so_many_patterns_and_no_more() {
    let mut bench = Bench::new(&[("t", 1)]);
    let with = |number: usize| Heartbeat { pattern: Some(format!("t{number}")), names: None, ..joining(&[]) };
    for number in 0..PATTERNS_MAX {
        bench.join_as(with(number)).unwrap();
    }
    assert_eq!(bench.say(&with(PATTERNS_MAX)), Err(GroupError::Full));
    bench.join_as(with(0)).unwrap();
}

#[test]
fn what_happened_to_topics_while_nobody_looked_is_seen() {
    let mut bench = Bench::new(&[("t", 2)]);
    bench.join(&["t"]);
    let record = bench.catalog.decide_partitions(&Bounds::default(), "t", 4).unwrap();
    let mut again = Group::default();
    for (key, value) in bench.group.records("g") {
        let crate::group::records::Key::Consumer(_, key) = crate::group::records::Key::decode(&key).unwrap() else {
            panic!("{key:?}")
        };
        again.take(key, value.as_deref(), bench.now).unwrap();
    }
    bench.catalog.apply(&record).unwrap();
    again.loaded(bench.now, &TIMES, &bench.catalog);
    assert_eq!((again.epoch, again.has_changes()), (2, true));
}

#[test]
fn the_assignor_is_that_of_most() {
    let mut bench = Bench::new(&[("t", 4), ("u", 4)]);
    let with = |assignor: &str| Heartbeat { assignor: Some(assignor.to_owned()), ..joining(&["t", "u"]) };
    let one = bench.join_as(with("range")).unwrap();
    assert_eq!(bench.group.status().assignor, "range");
    let two = bench.join_as(with("range")).unwrap();
    bench.join_as(with("uniform")).unwrap();
    assert_eq!(bench.group.status().assignor, "range");
    let status = bench.group.status();
    let target =
        |client: &Client| status.members.iter().find(|one| one.member == client.member).unwrap().target.clone();
    for client in [&one, &two] {
        let target = target(client);
        assert_eq!(target[&id(10)], target[&id(11)], "partitions of the same number go together");
    }
}

#[test]
fn who_stays_keeps_what_it_reads() {
    let mut bench = Bench::new(&[("t", 100), ("u", 20)]);
    let mut clients: Vec<Client> = (0..10).map(|_| bench.join(&["t", "u"])).collect();
    bench.settle(&mut clients);
    assert_eq!(counts(&clients), [12; 10]);
    let before = clients.clone();
    clients.push(bench.join(&["t", "u"]));
    bench.settle(&mut clients);
    let moved: usize =
        before.iter().zip(&clients).map(|(before, after)| count(&before.owned) - count(&after.owned)).sum();
    assert_eq!((moved, count(&clients[10].owned)), (10, 10), "no more than the new one gets");
    for (before, after) in before.iter().zip(&clients) {
        assert!(each(&after.owned).all(|partition| has(&before.owned, partition)));
    }
}

#[test]
fn a_large_group_settles_soon() {
    let mut bench = Bench::new(&[("t", 10_000)]);
    let mut clients = Vec::new();
    let begun = std::time::Instant::now();
    for _ in 0..1000 {
        let said = joining(&["t"]);
        bench.fresh += 1;
        let fresh = format!("m{:04}", bench.fresh);
        let told = bench.group.heartbeat(bench.now, &TIMES, &said, fresh, &bench.catalog).unwrap();
        clients.push(Client { member: told.member, epoch: told.epoch, owned: told.assignment.unwrap() });
        bench.now = bench.now.plus(Duration::from_millis(1));
        bench.group.tick(bench.now);
    }
    for _ in 0..3 {
        bench.now = bench.now.plus(SOON);
        bench.group.tick(bench.now);
        for client in &mut clients {
            let told =
                bench.group.heartbeat(bench.now, &TIMES, &beating(client), String::new(), &bench.catalog).unwrap();
            client.epoch = told.epoch;
            client.owned = told.assignment.unwrap_or(client.owned.clone());
        }
    }
    assert_eq!((bench.group.state(), counts(&clients)), ("Stable", vec![10; 1000]), "in {:?}", begun.elapsed());
}

#[test]
fn records_are_written_as_they_always_were() {
    let mut bench = Bench::new(&[("t", 3)]);
    let said = Heartbeat {
        instance: Some("first".to_owned()),
        rack: Some("r1".to_owned()),
        pattern: Some("t.*".to_owned()),
        assignor: Some("range".to_owned()),
        ..joining(&["t"])
    };
    let mut one = bench.join_as(said).unwrap();
    bench.join(&["t"]);
    bench.beat(&mut one).unwrap();
    let mut all = bench.group.records("g");
    all.extend(bench.group.farewell("g"));
    let all = all.into_iter();
    let bytes: Vec<u8> = all
        .flat_map(|(key, value)| {
            let lengths = [key.len() as i32, value.as_ref().map_or(-1, |value| value.len() as i32)];
            let lengths: Vec<u8> = lengths.into_iter().flat_map(i32::to_be_bytes).collect();
            [lengths, key, value.unwrap_or_default()].concat()
        })
        .collect();
    golden("consumer-groups-v0.bin", &bytes);
    for (key, value) in bench.group.records("g") {
        let crate::group::records::Key::Consumer(_, key) = crate::group::records::Key::decode(&key).unwrap() else {
            panic!("{key:?}")
        };
        let value = value.unwrap();
        for cut in 0..value.len() {
            let mut group = Group::default();
            group.members.insert("m1".to_owned(), Member::new(bench.now));
            group.members.insert("m2".to_owned(), Member::new(bench.now));
            assert!(group.take(key.clone(), Some(&value[..cut]), bench.now).is_err());
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Join(usize),
    Beat(usize),
    /// The answer is lost.
    Shout(usize),
    Leave(usize),
    Pass(u64),
    Grow,
    Make,
    Delete,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4usize).prop_map(Step::Join),
        12 => (0..8usize).prop_map(Step::Beat),
        2 => (0..8usize).prop_map(Step::Shout),
        1 => (0..8usize).prop_map(Step::Leave),
        2 => (1..20u64).prop_map(Step::Pass),
        1 => Just(Step::Grow),
        1 => Just(Step::Make),
        1 => Just(Step::Delete),
    ]
}

const WANTS: [&[&str]; 4] = [&["t0"], &["t0", "t1"], &["t1", "t2"], &["t0", "t1", "t2", "t3"]];

proptest! {
    #[test]
    fn nobody_reads_what_another_reads_and_all_is_read_in_the_end(
        steps in proptest::collection::vec(step(), 1..80),
        with_range in any::<bool>(),
    ) {
        let mut bench = Bench::new(&[("t0", 3), ("t1", 5), ("t2", 1)]);
        let assignor = with_range.then(|| "range".to_owned());
        let mut clients: Vec<(Client, &[&str])> = Vec::new();
        let mut topics = 20;
        for step in steps {
            let at = |number: usize| number % clients.len().max(1);
            match step {
                Step::Join(wants) if clients.len() < 8 => {
                    let said = Heartbeat { assignor: assignor.clone(), ..joining(WANTS[wants]) };
                    clients.push((bench.join_as(said).unwrap(), WANTS[wants]));
                }
                Step::Beat(number) if !clients.is_empty() => {
                    let number = at(number);
                    let (client, wanted) = &mut clients[number];
                    bench.beat_or_join(client, wanted, &assignor);
                }
                Step::Shout(number) if !clients.is_empty() => drop(bench.say(&beating(&clients[at(number)].0))),
                Step::Leave(number) if !clients.is_empty() => {
                    let (client, _) = clients.remove(at(number));
                    let _ = bench.say(&Heartbeat { epoch: LEAVE, ..beating(&client) });
                }
                Step::Pass(seconds) => {
                    bench.pass(Duration::from_secs(seconds));
                    // Who was not heard of for its session's time stops reading by itself.
                    clients.retain(|(client, _)| bench.group.contains(&client.member));
                }
                Step::Grow => {
                    let count = bench.catalog.topics().next().map_or(1, |topic| topic.partitions + 1);
                    let first = bench.catalog.topics().next().map(|topic| topic.name.as_str().to_owned());
                    if let Some(name) = first {
                        let record = bench.catalog.decide_partitions(&Bounds::default(), &name, count).unwrap();
                        bench.catalog.apply(&record).unwrap();
                    }
                    bench.group.topics_changed(bench.now, &bench.catalog);
                    bench.write();
                }
                Step::Make if bench.catalog.named(&TopicName::parse("t3").unwrap()).is_none() => {
                    topics += 1;
                    create(&mut bench.catalog, topics, "t3", 2);
                    bench.group.topics_changed(bench.now, &bench.catalog);
                    bench.write();
                }
                Step::Delete => {
                    if let Some(topic) = bench.catalog.named(&TopicName::parse("t3").unwrap()) {
                        let record = MetadataRecord::TopicDeleted { id: topic.id };
                        bench.catalog.apply(&record).unwrap();
                        bench.group.topics_changed(bench.now, &bench.catalog);
                        bench.write();
                    }
                }
                _ => {}
            }
            let mut read = BTreeSet::new();
            for (client, _) in &clients {
                for partition in each(&client.owned) {
                    prop_assert!(read.insert(partition), "{partition:?} is read twice");
                }
            }
        }
        for _ in 0..8 {
            for (client, wanted) in &mut clients {
                bench.beat_or_join(client, wanted, &assignor);
            }
        }
        prop_assert!(clients.is_empty() || bench.group.state() == "Stable", "{}", bench.group.state());
        for topic in bench.catalog.topics() {
            let wants = |wanted: &&[&str]| wanted.contains(&topic.name.as_str());
            let readers = clients.iter().filter(|(_, wanted)| wants(wanted)).count();
            for partition in 0..topic.partitions {
                let read = clients.iter().filter(|(client, _)| has(&client.owned, (topic.id, partition))).count();
                prop_assert_eq!(read, readers.min(1), "{} {}", topic.name, partition);
            }
        }
    }
}
