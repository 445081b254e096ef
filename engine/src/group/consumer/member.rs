//! One member: what it wants, what it may read, and how far it is on its way.

use super::{ENTRY_BYTES, JOIN, PATTERN_BYTES_MAX, PATTERN_TEXT_MAX, Partitions, count};
use crate::group::GroupError;
use crate::reactor::Instant;
use regex::{Regex, RegexBuilder};
use std::collections::BTreeSet;
use std::time::Duration;

/// How far a member is on its way to its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It is there.
    Stable,
    /// It has to give something back.
    Unrevoked,
    /// Something that it is to have is still another's.
    Unreleased,
}

#[derive(Debug, Clone)]
pub(super) struct Member {
    pub(super) epoch: i32,
    pub(super) previous_epoch: i32,
    pub(super) state: State,
    pub(super) instance: Option<String>,
    pub(super) rack: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) rebalance: Duration,
    pub(super) names: BTreeSet<String>,
    pub(super) pattern: Option<Pattern>,
    pub(super) assignor: Option<String>,
    /// What it may read.
    pub(super) assigned: Partitions,
    /// What it has to give back before others may have it.
    pub(super) revoking: Partitions,
    /// It is out then, unless it is heard of.
    pub(super) deadline: Instant,
    /// It is out then, unless it has given back what it must.
    pub(super) revoke_by: Option<Instant>,
}

#[derive(Debug, Clone)]
pub(super) struct Pattern {
    pub(super) text: String,
    /// Of the whole name.
    pub(super) compiled: Regex,
}

impl Pattern {
    pub(super) fn new(text: &str) -> Result<Pattern, GroupError> {
        if text.len() > PATTERN_TEXT_MAX {
            return Err(GroupError::InvalidPattern);
        }
        let mut whole = RegexBuilder::new(&format!("^(?:{text})$"));
        let compiled = whole.size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX).build();
        let compiled = compiled.map_err(|_| GroupError::InvalidPattern)?;
        Ok(Pattern { text: text.to_owned(), compiled })
    }
}

impl Member {
    pub(super) fn new(now: Instant) -> Member {
        Member {
            epoch: JOIN,
            previous_epoch: JOIN,
            state: State::Stable,
            instance: None,
            rack: None,
            client_id: String::new(),
            client_host: String::new(),
            rebalance: Duration::ZERO,
            names: BTreeSet::new(),
            pattern: None,
            assignor: None,
            assigned: Partitions::new(),
            revoking: Partitions::new(),
            deadline: now,
            revoke_by: None,
        }
    }

    pub(super) fn pattern_text(&self) -> Option<&str> {
        self.pattern.as_ref().map(|pattern| pattern.text.as_str())
    }

    pub(super) fn wants(&self, name: &str) -> bool {
        self.names.contains(name) || self.pattern.as_ref().is_some_and(|pattern| pattern.compiled.is_match(name))
    }

    pub(super) fn bytes(&self) -> usize {
        let texts = [self.instance.as_deref(), self.rack.as_deref(), self.pattern_text(), self.assignor.as_deref()];
        let texts: usize = texts.into_iter().flatten().map(str::len).sum();
        let names: usize = self.names.iter().map(|name| name.len() + ENTRY_BYTES).sum();
        let partitions = count(&self.assigned) + count(&self.revoking);
        size_of::<Member>() + ENTRY_BYTES + texts + names + self.client_id.len() + partitions * 16
    }
}
