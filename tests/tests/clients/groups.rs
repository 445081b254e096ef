//! Members of a group come, die and leave, and the server is killed: the partitions are shared out anew, and no record is
//! skipped.

use super::programs::{Client, Running, clients};
use super::records::{Written, an_hour_ago, write_natively};
use corelog_client::Codec;
use corelog_tests::process::Node;
use corelog_tests::serving::{PATIENCE, SHARDS, create_topic, start_with};
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::ChildStdout;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

const PARTITIONS: u32 = 4;
const RECORDS: i64 = 40;
const PAUSE: Duration = Duration::from_millis(20);

/// Members that the coordinator assigns do not choose when they are out.
const SESSION: [&str; 4] =
    ["--set", "group.consumer.session.timeout.ms=6000", "--set", "group.consumer.heartbeat.interval.ms=500"];

/// A client, and by which protocol its members are in their group.
#[derive(Debug, Clone, Copy)]
struct Kind {
    client: Client,
    /// What its program is told to do.
    command: &'static str,
}

impl Kind {
    fn all() -> Vec<Kind> {
        let of = |client: Client| {
            let assigned = client.is_assigned.then_some(Kind { client, command: "assigned" });
            [Kind { client, command: "group" }].into_iter().chain(assigned)
        };
        clients().into_iter().flat_map(of).collect()
    }

    /// Of its group, and of its topic.
    fn name(&self) -> String {
        format!("{}.{}", self.client.name, self.command)
    }
}

#[test]
fn groups_of_each_client_share_out_and_skip_nothing() {
    let (mut node, address) = start_with(&SESSION);
    each(Kind::all(), |kind| come_die_and_leave(&node, address, kind));
    node.stop();
}

#[test]
fn groups_of_each_client_outlive_a_kill_of_the_server() {
    let (mut node, address) = start_with(&SESSION);
    let groups = each(Kind::all(), |kind| {
        let mut topic = Topic::create(&node, &kind);
        let members = [Member::join(address, &kind), Member::join(address, &kind)];
        shared_out(&members.each_ref());
        topic.write(&node);
        topic.is_read(&members.each_ref(), &[]);
        (kind, topic, members)
    });
    node.kill();
    node.restart(SHARDS);
    each(groups, |(kind, mut topic, members)| {
        topic.write(&node);
        topic.is_read(&members.each_ref(), &[]);
        shared_out(&members.each_ref());
        let read_before = members.each_ref().map(Member::read).concat();
        members.into_iter().for_each(Member::leave);
        goes_on(&node, address, kind, topic, &read_before);
    });
    node.stop();
}

/// Does `work` with all at once: groups wait for each other and for sessions to end far more than they compute.
fn each<T: Send, R: Send>(items: impl IntoIterator<Item = T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        started.into_iter().map(|one| one.join().expect("a group that does what it is to")).collect()
    })
}

fn come_die_and_leave(node: &Node, address: SocketAddr, kind: Kind) {
    let mut topic = Topic::create(node, &kind);
    let join = || Member::join(address, &kind);

    let (first, second) = (join(), join());
    shared_out(&[&first, &second]);
    topic.write(node);
    topic.is_read(&[&first, &second], &[]);

    let read_before = second.read();
    second.kill();
    topic.write(node);
    shared_out(&[&first]);
    let third = join();
    shared_out(&[&first, &third]);
    topic.write(node);
    topic.is_read(&[&first, &third], &read_before);

    let read_before = [read_before, first.read(), third.read()].concat();
    first.leave();
    third.leave();
    goes_on(node, address, kind, topic, &read_before);
}

/// Whoever comes when all have left reads what is new, and nothing again: those who left had committed what they read.
fn goes_on(node: &Node, address: SocketAddr, kind: Kind, mut topic: Topic, read_before: &[(u32, i64)]) {
    topic.write(node);
    let member = Member::join(address, &kind);
    topic.is_read(&[&member], read_before);
    let again: Vec<_> = member.read().into_iter().filter(|record| read_before.contains(record)).collect();
    assert!(again.is_empty(), "{} reads again what was committed: {again:?}", kind.name());
    member.leave();
}

/// A topic that is written to now and then.
struct Topic {
    name: String,
    written: i64,
}

type Records = Vec<(u32, i64)>;

impl Topic {
    fn create(node: &Node, kind: &Kind) -> Topic {
        create_topic(node, &kind.name(), PARTITIONS, &[]);
        Topic { name: kind.name(), written: 0 }
    }

    fn write(&mut self, node: &Node) {
        let timestamp = an_hour_ago();
        let record = |number| Written { partition: number as u32 % PARTITIONS, timestamp, ..Written::default() };
        let records: Vec<Written> = (0..RECORDS).map(record).collect();
        write_natively(node, &self.name, Codec::None, &records);
        self.written += RECORDS / i64::from(PARTITIONS);
    }

    /// Waits until these members have read all that was not read before.
    fn is_read(&self, members: &[&Member], before: &[(u32, i64)]) {
        let all = || (0..PARTITIONS).flat_map(|partition| (0..self.written).map(move |offset| (partition, offset)));
        let left = || {
            let read: BTreeSet<_> =
                members.iter().flat_map(|member| member.read()).chain(before.iter().copied()).collect();
            all().filter(|record| !read.contains(record)).collect::<Records>()
        };
        wait_until(members, || left().is_empty(), || format!("{:?} are not read", left()));
    }
}

/// Waits until each of the members has partitions, none has another's, and together they have all.
fn shared_out(members: &[&Member]) {
    let is_shared_out = || {
        let owned: Vec<BTreeSet<u32>> = members.iter().map(|member| member.owned()).collect();
        let count: usize = owned.iter().map(BTreeSet::len).sum();
        let all: BTreeSet<u32> = owned.iter().flatten().copied().collect();
        owned.iter().all(|owned| !owned.is_empty()) && count == all.len() && all == (0..PARTITIONS).collect()
    };
    let owned = || format!("not shared out: {:?}", members.iter().map(|member| member.owned()).collect::<Vec<_>>());
    wait_until(members, is_shared_out, owned);
}

fn wait_until(members: &[&Member], mut holds: impl FnMut() -> bool, otherwise: impl FnOnce() -> String) {
    let began = Instant::now();
    while !holds() {
        if began.elapsed() > PATIENCE {
            let complaints: Vec<String> = members.iter().map(|member| member.complaints()).collect();
            panic!("{}: {}\n{}", members[0].name, otherwise(), complaints.join("\n"));
        }
        thread::sleep(PAUSE);
    }
}

/// A program that is a member of a group.
struct Member {
    name: String,
    program: Mutex<Running>,
    told: Arc<Mutex<Told>>,
}

/// What it told.
#[derive(Default)]
struct Told {
    owned: BTreeSet<u32>,
    read: Records,
}

impl Member {
    fn join(address: SocketAddr, kind: &Kind) -> Member {
        // The group is named like the topic.
        let name = kind.name();
        let mut program = Running::start(&kind.client, address, &[kind.command, &name, &name]);
        let told = Arc::new(Mutex::new(Told::default()));
        let (output, listener) = (program.output(), Arc::clone(&told));
        // It ends with the program.
        thread::spawn(move || listen(output, &listener));
        Member { name, program: Mutex::new(program), told }
    }

    fn owned(&self) -> BTreeSet<u32> {
        self.told.lock().expect("no panic").owned.clone()
    }

    fn read(&self) -> Records {
        self.told.lock().expect("no panic").read.clone()
    }

    fn complaints(&self) -> String {
        self.program.lock().expect("no panic").complaints()
    }

    fn kill(self) {
        self.program.into_inner().expect("no panic").kill();
    }

    fn leave(self) {
        self.program.into_inner().expect("no panic").end();
    }
}

fn listen(output: ChildStdout, told: &Mutex<Told>) {
    for line in BufReader::new(output).lines().map_while(Result::ok) {
        let mut told = told.lock().expect("no panic");
        let (what, rest) = line.split_once(' ').unwrap_or((&line, ""));
        let numbers = || rest.split_whitespace().map(|word| word.parse::<i64>().expect("a number"));
        match what {
            "assigned" => told.owned = numbers().map(|number| number as u32).collect(),
            "at" => {
                let [partition, offset] = numbers().collect::<Vec<_>>()[..] else { panic!("{line}") };
                told.read.push((partition as u32, offset));
            }
            // A commit came too late.
            "uncommitted" => {}
            _ => panic!("{line}"),
        }
    }
}
