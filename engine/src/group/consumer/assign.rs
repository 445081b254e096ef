//! Who is to read what: pure functions of members, topics, and what was decided before.

use super::member::Member;
use super::{Partitions, Topic, each};
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
/// Of each topic who wants it, as places in the order of members.
pub(super) type Wanted = BTreeMap<TopicId, BTreeSet<usize>>;

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

    pub(super) fn assign(self, members: &Members, topics: &Topics, wanted: &Wanted, before: &Targets) -> Targets {
        match self {
            Assignor::Range => range(members, topics, wanted),
            Assignor::Uniform => uniform(members, topics, wanted, before),
        }
    }
}

fn range(members: &Members, topics: &Topics, wanted: &Wanted) -> Targets {
    let mut all = vec![Partitions::new(); members.len()];
    // By instance first, so that a restart does not change the order.
    let names: Vec<_> = members.iter().map(|(id, member)| (member.instance.as_ref().unwrap_or(id), id)).collect();
    for (id, topic) in topics {
        let mut who: Vec<usize> = wanted[id].iter().copied().collect();
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
    of: Vec<Partitions>,
    counts: Vec<usize>,
    /// Members by how many they have, fewest first.
    by_count: BTreeSet<(usize, usize)>,
}

impl Shares {
    fn new(members: usize) -> Shares {
        let by_count = (0..members).map(|at| (0, at)).collect();
        Shares { of: vec![Partitions::new(); members], counts: vec![0; members], by_count }
    }

    fn give(&mut self, at: usize, (topic, partition): (TopicId, u32)) {
        if self.of[at].entry(topic).or_default().insert(partition) {
            self.count(at, self.counts[at] + 1);
        }
    }

    /// Moves the last partitions of a topic.
    fn pass(&mut self, from: usize, to: usize, topic: TopicId, partitions: usize) {
        let Some(has) = self.of[from].get_mut(&topic) else { return };
        let moved = partitions.min(has.len());
        let first = has.iter().rev().nth(moved.saturating_sub(1)).copied();
        let passed = first.map(|first| has.split_off(&first)).unwrap_or_default();
        if has.is_empty() {
            self.of[from].remove(&topic);
        }
        self.of[to].entry(topic).or_default().extend(passed);
        self.count(from, self.counts[from] - moved);
        self.count(to, self.counts[to] + moved);
    }

    fn count(&mut self, at: usize, count: usize) {
        self.by_count.remove(&(self.counts[at], at));
        self.by_count.insert((count, at));
        self.counts[at] = count;
    }

    /// Who has the fewest, of those that may.
    fn poorest(&self, may: impl Fn(usize) -> bool) -> Option<usize> {
        self.by_count.iter().map(|(_, at)| *at).find(|at| may(*at))
    }
}

fn uniform(members: &Members, topics: &Topics, wanted: &Wanted, before: &Targets) -> Targets {
    let may = |at: usize, topic: TopicId| wanted.get(&topic).is_some_and(|who| who.contains(&at));
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
    order.sort_by_key(|id| (wanted[id].len(), *id));
    for id in &order {
        for partition in (0..topics[id].partitions).filter(|partition| !kept.contains(&(*id, *partition))) {
            if let Some(at) = shares.poorest(|at| may(at, *id)) {
                shares.give(at, (*id, partition));
            }
        }
    }
    even_out(&mut shares, &may);
    members.keys().cloned().zip(shares.of).collect()
}

/// Moves partitions from those who have more to those who have at least two fewer, as long as there are such.
fn even_out(shares: &mut Shares, may: &impl Fn(usize, TopicId) -> bool) {
    let fair = shares.counts.iter().sum::<usize>().div_ceil(shares.counts.len().max(1));
    // Each pass is worth less than the one before; few are needed unless everybody wants something else.
    for _ in 0..ROUNDS_MAX {
        // Those who can give nothing away, in this pass.
        let mut stuck = BTreeSet::new();
        let mut has_moved = false;
        while let Some((had, from)) = shares.by_count.iter().rev().find(|(_, at)| !stuck.contains(at)).copied() {
            let poorest_for = |topic: TopicId| shares.poorest(|at| at != from && may(at, topic));
            let topics = shares.of[from].keys().copied();
            let takers = topics.filter_map(|topic| poorest_for(topic).map(|to| (shares.counts[to], topic, to)));
            match takers.min_by_key(|(has, topic, _)| (*has, Reverse(*topic))) {
                Some((has, topic, to)) if has + 1 < had => {
                    // No more than leaves the giver its share: what it is to keep does not go and come back.
                    let more = ((had - has) / 2).min(had.saturating_sub(fair)).max(1);
                    shares.pass(from, to, topic, more);
                    has_moved = true;
                }
                _ => drop(stuck.insert(from)),
            }
        }
        if !has_moved {
            return;
        }
    }
}
