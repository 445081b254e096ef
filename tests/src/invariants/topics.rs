//! **An acknowledged change of the topics survives every crash; one that was under way has happened whole or not at
//! all; nothing comes back that was deleted.**

use super::{Event, Invariant};
use std::collections::BTreeMap;

#[derive(Default)]
pub(super) struct Topics {
    known: BTreeMap<String, State>,
}

enum State {
    /// With so many partitions.
    Exists(u32),
    Gone,
    /// A change is under way, or its outcome was lost in a crash.
    Uncertain,
}

impl Invariant for Topics {
    fn name(&self) -> &'static str {
        "topics"
    }

    fn observe(&mut self, event: &Event<'_>) -> Result<(), String> {
        match *event {
            Event::Created { topic, partitions } => {
                self.known.insert(topic.to_owned(), State::Exists(partitions));
            }
            Event::TopicUncertain { topic } => {
                self.known.insert(topic.to_owned(), State::Uncertain);
            }
            Event::Deleted { topic } => {
                self.known.insert(topic.to_owned(), State::Gone);
            }
            Event::Topics { listed } => return self.check(listed),
            _ => {}
        }
        Ok(())
    }
}

impl Topics {
    fn check(&self, listed: &[(String, u32)]) -> Result<(), String> {
        let listed: BTreeMap<&str, u32> = listed.iter().map(|(name, count)| (name.as_str(), *count)).collect();
        for (name, state) in &self.known {
            match (state, listed.get(name.as_str())) {
                (State::Exists(partitions), Some(found)) if partitions == found => {}
                (State::Exists(partitions), found) => {
                    return Err(format!("topic {name} was created with {partitions} partitions and has {found:?}"));
                }
                (State::Gone, Some(_)) => return Err(format!("topic {name} was deleted and is back")),
                (State::Gone, None) | (State::Uncertain, _) => {}
            }
        }
        match listed.keys().find(|name| !self.known.contains_key(**name)) {
            Some(name) => Err(format!("nobody created topic {name}")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(topic: &str) -> Event<'_> {
        Event::Created { topic, partitions: 2 }
    }

    #[test]
    fn topics_that_are_lost_or_back_are_found() {
        let check = |events: &[Event<'_>], listed: &[(&str, u32)]| {
            let mut invariant = Topics::default();
            events.iter().for_each(|event| invariant.observe(event).unwrap());
            let listed: Vec<_> = listed.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
            invariant.observe(&Event::Topics { listed: &listed }).is_ok()
        };
        assert!(check(&[created("a")], &[("a", 2)]));
        assert!(!check(&[created("a")], &[]));
        assert!(!check(&[created("a")], &[("a", 1)]));
        assert!(!check(&[], &[("a", 2)]));
        assert!(!check(&[created("a"), Event::Deleted { topic: "a" }], &[("a", 2)]));
        assert!(check(&[Event::TopicUncertain { topic: "a" }], &[]));
        assert!(check(&[Event::TopicUncertain { topic: "a" }], &[("a", 2)]));
    }
}
