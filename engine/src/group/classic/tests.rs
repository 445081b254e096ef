use super::*;
use proptest::prelude::*;
use std::collections::BTreeSet;

const SESSION: Duration = Duration::from_secs(10);
const REBALANCE: Duration = Duration::from_secs(60);
const DELAY: Duration = Duration::from_secs(3);

/// A group, its clock, and who waits.
struct Bench {
    group: Group,
    now: Instant,
    waiters: Waiter,
    fresh: u32,
}

fn join(member: &str, instance: Option<&str>, protocols: &[&str]) -> Join {
    Join {
        member: member.to_owned(),
        instance: instance.map(str::to_owned),
        client_id: "c".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session: SESSION,
        rebalance: REBALANCE,
        protocol_type: "consumer".to_owned(),
        protocols: protocols.iter().map(|name| ((*name).to_owned(), name.as_bytes().to_vec())).collect(),
        needs_id: false,
    }
}

fn said<'a>(member: &'a str, generation: i32) -> Said<'a> {
    Said { member, instance: None, generation }
}

impl Bench {
    fn new() -> Bench {
        Bench { group: Group::default(), now: Instant::from_nanos(1), waiters: 0, fresh: 0 }
    }

    fn join(&mut self, join: &Join) -> Waiter {
        self.waiters += 1;
        self.fresh += 1;
        self.group.join(self.now, join, format!("m{}", self.fresh), DELAY, self.waiters);
        self.waiters
    }

    fn sync(&mut self, said: &Said<'_>, assignments: &[(&str, &str)]) -> Waiter {
        self.waiters += 1;
        let assignments = assignments.iter().map(|(id, reads)| ((*id).to_owned(), reads.as_bytes().to_vec())).collect();
        self.group.sync(self.now, said, (Some("consumer"), None), assignments, self.waiters);
        self.waiters
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now.plus(time);
        self.group.tick(self.now);
    }

    fn write(&mut self) {
        if let Some(generation) = self.group.take_change() {
            self.group.written(self.now, generation, true);
        }
    }

    fn joined(&mut self, waiter: Waiter) -> Result<Joined, (GroupError, String)> {
        let at = self.group.answers.iter().position(|answer| matches!(answer, Answer::Join(of, _) if *of == waiter));
        match at.map(|at| self.group.answers.remove(at)) {
            Some(Answer::Join(_, outcome)) => outcome,
            _ => panic!("no answer to the join: {:?}", self.group),
        }
    }

    fn synced(&mut self, waiter: Waiter) -> Result<String, GroupError> {
        let at = self.group.answers.iter().position(|answer| matches!(answer, Answer::Sync(of, _) if *of == waiter));
        match at.map(|at| self.group.answers.remove(at)) {
            Some(Answer::Sync(_, outcome)) => {
                outcome.map(|synced| String::from_utf8(synced.assignment).expect("as it was given"))
            }
            _ => panic!("no answer to the sync: {:?}", self.group),
        }
    }

    /// A stable group of so many members m1, m2, ..., of which m1 leads.
    fn stable(members: u32) -> Bench {
        let mut bench = Bench::new();
        let waiters: Vec<Waiter> = (0..members).map(|_| bench.join(&join("", None, &["range"]))).collect();
        bench.pass(DELAY);
        bench.pass(DELAY);
        for waiter in waiters {
            bench.joined(waiter).expect("it has joined");
        }
        bench.assign();
        bench
    }

    /// The leader says that each reads what it is called.
    fn assign(&mut self) {
        let generation = self.group.generation;
        let ids: Vec<String> = self.group.members.keys().cloned().collect();
        let assignments: Vec<(&str, &str)> = ids.iter().map(|id| (&**id, &**id)).collect();
        let leader = self.group.leader.clone().expect("it has one");
        let waiters: Vec<(String, Waiter)> = ids
            .iter()
            .map(|id| {
                let said = said(id, generation);
                (id.clone(), self.sync(&said, if *id == leader { &assignments } else { &[] }))
            })
            .collect();
        assert_eq!(self.group.answers, [], "not before it is written down");
        self.write();
        for (id, waiter) in waiters {
            assert_eq!(self.synced(waiter), Ok(id));
        }
        assert_eq!(self.group.state(), State::Stable);
    }
}

#[test]
fn the_first_members_wait_for_each_other() {
    let mut bench = Bench::new();
    let first = bench.join(&join("", None, &["range", "sticky"]));
    bench.pass(Duration::from_secs(2));
    let second = bench.join(&join("", None, &["sticky"]));
    assert_eq!(bench.group.answers, []);
    bench.pass(Duration::from_secs(2));
    assert_eq!(bench.group.answers, [], "somebody came: there may be more");
    bench.pass(DELAY);
    let leader = bench.joined(first).expect("it has joined");
    assert_eq!((leader.generation, leader.protocol.as_deref()), (1, Some("sticky")), "which both know");
    assert_eq!((&*leader.leader, &*leader.member, leader.members.len()), ("m1", "m1", 2));
    let other = bench.joined(second).expect("it has joined");
    assert_eq!((&*other.leader, &*other.member, other.members.len()), ("m1", "m2", 0));
    bench.assign();
}

#[test]
fn a_new_member_gets_an_id_before_it_counts() {
    let mut bench = Bench::new();
    let wish = Join { needs_id: true, ..join("", None, &["range"]) };
    let waiter = bench.join(&wish);
    assert_eq!(bench.joined(waiter), Err((GroupError::MemberIdRequired, "m1".to_owned())));
    assert!(!bench.group.is_idle());
    let waiter = bench.join(&Join { member: "m1".to_owned(), ..wish.clone() });
    bench.pass(DELAY);
    assert_eq!(bench.joined(waiter).expect("it has joined").member, "m1");
    let waiter = bench.join(&wish);
    assert_eq!(bench.joined(waiter), Err((GroupError::MemberIdRequired, "m3".to_owned())));
    bench.pass(SESSION);
    let waiter = bench.join(&Join { member: "m3".to_owned(), ..wish });
    assert_eq!(bench.joined(waiter), Err((GroupError::UnknownMember, "m3".to_owned())), "it came too late");
}

#[test]
fn a_member_that_comes_makes_the_others_join_again() {
    let mut bench = Bench::stable(1);
    let second = bench.join(&join("", None, &["range"]));
    assert_eq!(bench.group.state(), State::Preparing);
    assert_eq!(bench.group.heartbeat(bench.now, &said("m1", 1)), Err(GroupError::Rebalancing));
    let first = bench.join(&join("m1", None, &["range"]));
    assert_eq!(bench.joined(first).expect("it has joined").generation, 2);
    assert_eq!(bench.joined(second).expect("it has joined").generation, 2);
    assert_eq!(bench.group.heartbeat(bench.now, &said("m1", 1)), Err(GroupError::IllegalGeneration));
    bench.assign();
    assert_eq!(bench.group.heartbeat(bench.now, &said("m1", 2)), Ok(()));
}

#[test]
fn who_is_not_heard_of_is_out() {
    let mut bench = Bench::stable(3);
    bench.pass(SESSION / 2);
    for member in ["m1", "m2"] {
        assert_eq!(bench.group.heartbeat(bench.now, &said(member, 1)), Ok(()));
    }
    bench.pass(SESSION / 2);
    assert_eq!(bench.group.state(), State::Preparing);
    assert_eq!(bench.group.heartbeat(bench.now, &said("m3", 1)), Err(GroupError::UnknownMember));
    let (first, second) = (bench.join(&join("m1", None, &["range"])), bench.join(&join("m2", None, &["range"])));
    assert_eq!(bench.joined(first).expect("it has joined").members.len(), 2);
    bench.joined(second).expect("it has joined");
    bench.assign();
}

#[test]
fn who_does_not_join_again_in_time_is_out() {
    let mut bench = Bench::stable(2);
    let second =
        bench.join(&Join { protocols: join("", None, &["range", "sticky"]).protocols, ..join("m2", None, &[]) });
    for _ in 0..REBALANCE.as_secs() / 5 {
        assert!(bench.group.answers.is_empty());
        let _ = bench.group.heartbeat(bench.now, &said("m1", 1));
        bench.pass(Duration::from_secs(5));
    }
    let joined = bench.joined(second).expect("it has joined");
    assert_eq!((&*joined.leader, joined.members.len(), joined.generation), ("m2", 1, 2));
}

#[test]
fn who_leaves_makes_room_at_once_and_the_last_leaves_an_empty_group() {
    let mut bench = Bench::stable(2);
    assert_eq!(bench.group.leave(bench.now, "m9", None), Err(GroupError::UnknownMember));
    assert_eq!(bench.group.leave(bench.now, "m1", None), Ok(()));
    let second = bench.join(&join("m2", None, &["range"]));
    assert_eq!(&*bench.joined(second).expect("it has joined").leader, "m2");
    bench.assign();
    assert_eq!(bench.group.leave(bench.now, "m2", None), Ok(()));
    assert_eq!((bench.group.state(), bench.group.generation()), (State::Empty, 3));
    assert_eq!(bench.group.take_change(), Some(3), "that nobody is in it is written down");
    assert!(bench.group.is_idle());
}

#[test]
fn an_instance_that_comes_back_takes_its_place_and_fences_the_one_before() {
    let mut bench = Bench::new();
    let (a, b) = (join("", Some("a"), &["range"]), join("", Some("b"), &["range"]));
    let (first, second) = (bench.join(&a), bench.join(&b));
    bench.pass(DELAY);
    bench.pass(DELAY);
    bench.joined(first).expect("it has joined");
    bench.joined(second).expect("it has joined");
    bench.assign();
    let again = bench.join(&b);
    let joined = bench.joined(again).expect("it has its place");
    assert_eq!((&*joined.member, joined.generation, bench.group.state()), ("m3", 1, State::Stable));
    let waiter = bench.sync(&Said { member: "m3", instance: Some("b"), generation: 1 }, &[]);
    assert_eq!(bench.synced(waiter), Ok("m2".to_owned()), "what it read before");
    let old = Said { member: "m2", instance: Some("b"), generation: 1 };
    assert_eq!(bench.group.heartbeat(bench.now, &old), Err(GroupError::FencedInstance));
    let leader = bench.join(&a);
    let joined = bench.joined(leader).expect("it has its place");
    assert_eq!((&*joined.leader, &*joined.member), ("m1", "m4"), "it is not to assign anew");
    assert_eq!(bench.group.take_change(), Some(1), "who is who is written down");
    let waiter = bench.join(&join("", Some("b"), &["sticky", "range"]));
    assert_eq!(bench.joined(waiter).expect("range says the same").generation, 1);
    assert_eq!(bench.group.leave(bench.now, "", Some("b")), Ok(()));
    assert_eq!(bench.group.state(), State::Preparing);
}

#[test]
fn who_has_nothing_in_common_is_refused() {
    let mut bench = Bench::stable(1);
    let waiter = bench.join(&join("", None, &["sticky"]));
    assert_eq!(bench.joined(waiter), Err((GroupError::InconsistentProtocol, String::new())));
    let waiter = bench.join(&Join { protocol_type: "connect".to_owned(), ..join("", None, &["range"]) });
    assert_eq!(bench.joined(waiter), Err((GroupError::InconsistentProtocol, String::new())));
    assert_eq!(bench.group.state(), State::Stable);
}

#[test]
fn an_assignment_that_cannot_be_written_is_made_anew() {
    let mut bench = Bench::new();
    let waiter = bench.join(&join("", None, &["range"]));
    bench.pass(DELAY);
    bench.joined(waiter).expect("it has joined");
    let waiter = bench.sync(&said("m1", 1), &[("m1", "all")]);
    let generation = bench.group.take_change().expect("it is to be written");
    bench.group.written(bench.now, generation, false);
    assert_eq!(bench.synced(waiter), Err(GroupError::Unavailable));
    let waiter = bench.join(&join("m1", None, &["range"]));
    assert_eq!(bench.joined(waiter).expect("it has joined").generation, 2);
    bench.assign();
}

#[test]
fn a_leader_that_never_assigns_is_out() {
    let mut bench = Bench::new();
    let (first, second) = (bench.join(&join("", None, &["range"])), bench.join(&join("", None, &["range"])));
    bench.pass(DELAY);
    bench.pass(DELAY);
    bench.joined(first).expect("it has joined");
    bench.joined(second).expect("it has joined");
    let waiter = bench.sync(&said("m2", 1), &[]);
    for _ in 0..=REBALANCE.as_secs() {
        let _ = bench.group.heartbeat(bench.now, &said("m1", 1));
        bench.pass(Duration::from_secs(1));
    }
    assert_eq!(bench.synced(waiter), Err(GroupError::Rebalancing));
    assert_eq!(bench.group.members().keys().collect::<Vec<_>>(), ["m2"]);
}

#[test]
fn offsets_are_committed_by_members_of_the_generation() {
    let mut bench = Bench::new();
    assert_eq!(bench.group.may_commit(bench.now, &said("", -1)), Ok(()), "it stands alone");
    let mut bench = Bench::stable(1);
    assert_eq!(bench.group.may_commit(bench.now, &said("", -1)), Err(GroupError::UnknownMember));
    assert_eq!(bench.group.may_commit(bench.now, &said("m1", 1)), Ok(()));
    assert_eq!(bench.group.may_commit(bench.now, &said("m1", 0)), Err(GroupError::IllegalGeneration));
    bench.join(&join("", None, &["range"]));
    assert_eq!(bench.group.may_commit(bench.now, &said("m1", 1)), Ok(()), "before it joins again");
    bench.join(&join("m1", None, &["range"]));
    assert_eq!(bench.group.may_commit(bench.now, &said("m1", 2)), Err(GroupError::Rebalancing));
}

/// What a client knows of itself.
#[derive(Debug, Default, Clone)]
struct Model {
    id: String,
    generation: i32,
    leads: bool,
    joining: Option<Waiter>,
    syncing: Option<Waiter>,
    members: Vec<String>,
    reads: Option<String>,
    alive: bool,
}

#[derive(Debug, Clone)]
enum Step {
    Come,
    Die(prop::sample::Index),
    Leave(prop::sample::Index),
    Restart(prop::sample::Index),
    Pass(u64),
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => Just(Step::Come),
        1 => any::<prop::sample::Index>().prop_map(Step::Die),
        1 => any::<prop::sample::Index>().prop_map(Step::Leave),
        1 => any::<prop::sample::Index>().prop_map(Step::Restart),
        8 => (1u64..4000).prop_map(Step::Pass),
    ]
}

/// Lets every client do what clients do: join, sync, send heartbeats.
fn run_clients(bench: &mut Bench, clients: &mut [Model]) {
    for client in clients.iter_mut().filter(|client| client.alive) {
        if client.joining.is_some() || client.syncing.is_some() {
            continue;
        }
        if client.reads.is_some() {
            match bench.group.heartbeat(bench.now, &said(&client.id, client.generation)) {
                Ok(()) => continue,
                Err(GroupError::UnknownMember) => client.id.clear(),
                Err(_) => {}
            }
            client.reads = None;
        }
        let wish = Join { needs_id: true, ..join(&client.id, None, &["range"]) };
        client.joining = Some(bench.join(&wish));
    }
    bench.write();
    for answer in bench.group.take_answers() {
        match answer {
            Answer::Join(waiter, outcome) => {
                let Some(client) = clients.iter_mut().find(|client| client.joining == Some(waiter)) else { continue };
                client.joining = None;
                match outcome {
                    Err((error, id)) => client.id = if error == GroupError::UnknownMember { String::new() } else { id },
                    Ok(joined) => {
                        (client.id, client.generation) = (joined.member.clone(), joined.generation);
                        client.leads = joined.leader == joined.member;
                        client.members = joined.members.into_iter().map(|(id, ..)| id).collect();
                        let own: Vec<(String, Vec<u8>)> = match client.leads && client.alive {
                            true => client.members.iter().map(|id| (id.clone(), id.clone().into_bytes())).collect(),
                            false => Vec::new(),
                        };
                        if client.alive {
                            bench.waiters += 1;
                            client.syncing = Some(bench.waiters);
                            let said = Said { member: &client.id, instance: None, generation: client.generation };
                            bench.group.sync(bench.now, &said, (None, None), own, bench.waiters);
                        }
                    }
                }
            }
            Answer::Sync(waiter, outcome) => {
                let Some(client) = clients.iter_mut().find(|client| client.syncing == Some(waiter)) else { continue };
                client.syncing = None;
                match outcome {
                    Ok(synced) => client.reads = Some(String::from_utf8(synced.assignment).expect("an id")),
                    Err(GroupError::UnknownMember) => client.id.clear(),
                    Err(_) => {}
                }
            }
        }
    }
    bench.write();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever comes and goes: in the end all that are alive read, each its own, in one generation; no two that are heard of
    /// read the same in one generation at any time.
    #[test]
    fn a_group_settles(steps in prop::collection::vec(any_step(), 1..60)) {
        let (mut bench, mut clients) = (Bench::new(), Vec::<Model>::new());
        let mut settle = vec![Step::Pass(500); 400];
        let mut all = steps;
        all.append(&mut settle);
        for step in all {
            match step {
                Step::Come if clients.len() < 8 => clients.push(Model { alive: true, ..Model::default() }),
                Step::Come => {}
                Step::Die(at) if !clients.is_empty() => {
                    let at = at.index(clients.len());
                    clients[at].alive = false;
                }
                Step::Leave(at) if !clients.is_empty() => {
                    let client = clients.remove(at.index(clients.len()));
                    let _ = bench.group.leave(bench.now, &client.id, None);
                }
                Step::Restart(at) if !clients.is_empty() => {
                    let at = at.index(clients.len());
                    clients[at] = Model { alive: true, ..Model::default() };
                }
                Step::Pass(ms) => bench.pass(Duration::from_millis(ms)),
                _ => {}
            }
            run_clients(&mut bench, &mut clients);
            let reading: Vec<_> =
                clients.iter().filter_map(|client| Some((client.generation, client.reads.clone()?))).collect();
            let distinct: BTreeSet<_> = reading.iter().collect();
            prop_assert_eq!(distinct.len(), reading.len());
        }
        let alive: Vec<&Model> = clients.iter().filter(|client| client.alive).collect();
        prop_assert_eq!(bench.group.members().len(), alive.len(), "{:?}", bench.group);
        let expected = if alive.is_empty() { State::Empty } else { State::Stable };
        prop_assert_eq!(bench.group.state(), expected, "{:?}", bench.group);
        for client in alive {
            prop_assert_eq!(client.reads.as_deref(), Some(&*client.id));
            prop_assert_eq!(client.generation, bench.group.generation());
        }
    }
}
