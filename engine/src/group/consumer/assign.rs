//! Who is to read what: pure functions of members, topics, and what was decided before.

use super::member::Member;
use super::{Partitions, Topic, collected, each};
use crate::model::TopicId;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// How partitions are assigned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Assignor {
    /// Of each topic everybody who wants it gets a range, in the order of members: partitions of the same number go together.
    Range,
    /// Everybody gets as many as the others, and keeps what it had.
    Uniform,
}

/// How often it is looked whether what was moved lets others move.
const ROUNDS_MAX: usize = 10;

type Members = BTreeMap<String, Member>;
type Topics = BTreeMap<TopicId, Topic>;
type Targets = BTreeMap<String, Partitions>;

impl Assignor {
    /// Its name in Kafka's protocol.
    pub fn name(self) -> &'static str {
        match self {
            Assignor::Range => "range",
            Assignor::Uniform => "uniform",
        }
    }

    /// The one of this name.
    pub fn of(name: &str) -> Option<Assignor> {
        [Assignor::Range, Assignor::Uniform].into_iter().find(|assignor| assignor.name() == name)
    }

    pub(super) fn assign(self, members: &Members, topics: &Topics, before: &Targets) -> Targets {
        let wanted = wanted(members, topics);
        match self {
            Assignor::Range => range(members, topics, &wanted),
            Assignor::Uniform => uniform(members, topics, &wanted, before),
        }
    }
}

/// Of each topic who wants it, as places in the order of members.
fn wanted(members: &Members, topics: &Topics) -> BTreeMap<TopicId, Vec<usize>> {
    let who = |topic: &Topic| {
        let wants = |(at, member): (usize, &Member)| member.wants(&topic.name).then_some(at);
        members.values().enumerate().filter_map(wants).collect()
    };
    topics.iter().map(|(id, topic)| (*id, who(topic))).collect()
}

fn range(members: &Members, topics: &Topics, wanted: &BTreeMap<TopicId, Vec<usize>>) -> Targets {
    let mut all = vec![Partitions::new(); members.len()];
    for (id, topic) in topics {
        // By instance first, so that a restart does not change the order.
        let names: Vec<_> = members.iter().map(|(id, member)| (member.instance.as_ref().unwrap_or(id), id)).collect();
        let mut who = wanted[id].clone();
        who.sort_by_key(|at| names[*at]);
        let mut next = 0;
        for (place, at) in who.iter().enumerate() {
            let left = (who.len() - place) as u32;
            let share = (topic.partitions - next).div_ceil(left);
            if share > 0 {
                all[*at].insert(*id, (next..next + share).collect());
            }
            next += share;
        }
    }
    members.keys().cloned().zip(all).collect()
}

/// Partitions by whom they are given to.
struct Shares {
    of: Vec<BTreeSet<(TopicId, u32)>>,
    /// Members by how many they have, fewest first.
    by_count: BTreeSet<(usize, usize)>,
}

impl Shares {
    fn new(members: usize) -> Shares {
        Shares { of: vec![BTreeSet::new(); members], by_count: (0..members).map(|at| (0, at)).collect() }
    }

    fn give(&mut self, at: usize, one: (TopicId, u32)) {
        let had = self.of[at].len();
        self.of[at].insert(one);
        self.by_count.remove(&(had, at));
        self.by_count.insert((had + 1, at));
    }

    fn take(&mut self, at: usize, one: (TopicId, u32)) {
        let had = self.of[at].len();
        if self.of[at].remove(&one) {
            self.by_count.remove(&(had, at));
            self.by_count.insert((had - 1, at));
        }
    }

    /// Who has the fewest, of those that may.
    fn poorest(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        self.by_count.iter().map(|(_, at)| *at).find(|at| may(*at))
    }
}

fn uniform(members: &Members, topics: &Topics, wanted: &BTreeMap<TopicId, Vec<usize>>, before: &Targets) -> Targets {
    let wants: BTreeMap<TopicId, BTreeSet<usize>> =
        wanted.iter().map(|(id, who)| (*id, who.iter().copied().collect())).collect();
    let may = |at: usize, topic: TopicId| wants.get(&topic).is_some_and(|who| who.contains(&at));
    let mut shares = Shares::new(members.len());
    let mut kept = BTreeSet::new();
    for (at, id) in members.keys().enumerate() {
        for (topic, partition) in before.get(id).into_iter().flat_map(each) {
            let is_there = topics.get(&topic).is_some_and(|topic| partition < topic.partitions);
            if is_there && may(at, topic) && kept.insert((topic, partition)) {
                shares.give(at, (topic, partition));
            }
        }
    }
    // Those that the fewest may have come first: the others can make up for them.
    let mut order: Vec<TopicId> = topics.keys().copied().collect();
    order.sort_by_key(|id| (wants[id].len(), *id));
    for id in &order {
        for partition in (0..topics[id].partitions).filter(|partition| !kept.contains(&(*id, *partition))) {
            if let Some(at) = shares.poorest(|at| may(at, *id)) {
                shares.give(at, (*id, partition));
            }
        }
    }
    even_out(&mut shares, &may);
    members.keys().cloned().zip(shares.of.into_iter().map(|share| collected(share.into_iter()))).collect()
}

/// Moves partitions from those who have more to those who have at least two fewer, as long as there are such.
fn even_out(shares: &mut Shares, may: &impl Fn(usize, TopicId) -> bool) {
    // Each pass is worth less than the one before; few are needed unless everybody wants something else.
    for _ in 0..ROUNDS_MAX {
        // Those who can give nothing away, in this pass.
        let mut stuck = BTreeSet::new();
        let mut has_moved = false;
        while let Some((had, from)) = shares.by_count.iter().rev().find(|(_, at)| !stuck.contains(at)).copied() {
            let poorest_for = |topic: TopicId| shares.poorest(|at| at != from && may(at, topic));
            let topics: BTreeSet<TopicId> = shares.of[from].iter().map(|(topic, _)| *topic).collect();
            let takers =
                topics.into_iter().filter_map(|topic| poorest_for(topic).map(|to| (shares.of[to].len(), topic, to)));
            let poorest = takers.min_by_key(|(has, topic, _)| (*has, Reverse(*topic)));
            let last = poorest.filter(|(has, ..)| has + 1 < had).and_then(|(_, topic, to)| {
                let of_topic = shares.of[from].range((topic, 0)..=(topic, u32::MAX));
                of_topic.last().map(|one| (*one, to))
            });
            match last {
                Some((one, to)) => {
                    shares.take(from, one);
                    shares.give(to, one);
                    has_moved = true;
                }
                None => drop(stuck.insert(from)),
            }
        }
        if !has_moved {
            return;
        }
    }
}
