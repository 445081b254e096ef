//! Members of a group come, die and leave: the partitions are shared out anew, and no record is skipped.

use super::programs::{Client, Running, clients};
use super::records::{Written, an_hour_ago, write_natively};
use corelog_client::Codec;
use corelog_tests::process::Node;
use corelog_tests::serving::{PATIENCE, create_topic, start};
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

#[test]
fn groups_of_each_client_share_out_and_skip_nothing() {
    let clients = clients();
    let (mut node, address) = start();
    // All at once: they wait for each other and for sessions to end far more than they compute.
    thread::scope(|scope| {
        for client in &clients {
            let node = &node;
            scope.spawn(move || come_die_and_leave(node, address, client));
        }
    });
    node.stop();
}

fn come_die_and_leave(node: &Node, address: SocketAddr, client: &Client) {
    let mut topic = Topic::create(node, client.name);
    let join = || Member::join(address, client);

    let (first, second) = (join(), join());
    shared_out(&[&first, &second]);
    topic.write();
    topic.is_read_by(&[&first, &second]);

    let read_before = second.read();
    second.kill();
    topic.write();
    shared_out(&[&first]);
    let third = join();
    shared_out(&[&first, &third]);
    topic.write();
    topic.is_read(&[&first, &third], &read_before);

    let read_before = [read_before, first.read(), third.read()].concat();
    first.leave();
    third.leave();
    topic.write();
    let fourth = join();
    topic.is_read(&[&fourth], &read_before);
    // Whoever left had committed what it read.
    let again: Vec<_> = fourth.read().into_iter().filter(|record| read_before.contains(record)).collect();
    assert!(again.is_empty(), "{} reads again what was committed: {again:?}", client.name);
    fourth.leave();
}

/// A topic that is written to now and then.
struct Topic<'a> {
    node: &'a Node,
    name: &'a str,
    written: i64,
}

type Records = Vec<(u32, i64)>;

impl Topic<'_> {
    fn create<'a>(node: &'a Node, name: &'a str) -> Topic<'a> {
        create_topic(node, name, PARTITIONS, &[]);
        Topic { node, name, written: 0 }
    }

    fn write(&mut self) {
        let timestamp = an_hour_ago();
        let record = |number| Written { partition: number as u32 % PARTITIONS, timestamp, ..Written::default() };
        let records: Vec<Written> = (0..RECORDS).map(record).collect();
        write_natively(self.node, self.name, Codec::None, &records);
        self.written += RECORDS / i64::from(PARTITIONS);
    }

    fn is_read_by(&self, members: &[&Member]) {
        self.is_read(members, &Records::new());
    }

    /// Waits until these members have read all that was not read before.
    fn is_read(&self, members: &[&Member], before: &Records) {
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
    name: &'static str,
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
    fn join(address: SocketAddr, client: &Client) -> Member {
        // The group is named like the topic.
        let mut program = Running::start(client, address, &["group", client.name, client.name]);
        let told = Arc::new(Mutex::new(Told::default()));
        let (output, listener) = (program.output(), Arc::clone(&told));
        // It ends with the program.
        thread::spawn(move || listen(output, &listener));
        Member { name: client.name, program: Mutex::new(program), told }
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
