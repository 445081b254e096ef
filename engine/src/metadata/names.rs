//! Topic names, by Kafka's rules.

use std::fmt;
use std::sync::Arc;

/// The topic that groups of consumers are written to. Clients read it, and write to it through their groups only.
pub const GROUPS_TOPIC: &str = "__consumer_offsets";

/// Longest name of a topic, in bytes. Kafka's number: with a partition's suffix the name still fits a directory entry.
pub const TOPIC_NAME_BYTES_MAX: usize = 249;

/// A name that a topic may bear: 1 to 249 characters of `[a-zA-Z0-9._-]`, and neither `.` nor `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicName(Arc<str>);

/// Why a name cannot be a topic's. The caller has to choose another.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a topic name must not be empty")]
    Empty,
    /// More than [`TOPIC_NAME_BYTES_MAX`].
    #[error("a topic name has at most {TOPIC_NAME_BYTES_MAX} bytes, this one has {bytes}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// `.` and `..` mean directories.
    #[error("a topic cannot be named {name:?}")]
    Dots {
        /// What was given.
        name: String,
    },
    /// A character outside the allowed ones.
    #[error("topic name {name:?} has {character:?} in it; allowed are letters, digits, '.', '_' and '-'")]
    Character {
        /// What was given.
        name: String,
        /// The first character that is not allowed.
        character: char,
    },
}

impl TopicName {
    /// Checks `name` and takes a copy of it.
    pub fn parse(name: &str) -> Result<TopicName, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        // Before anything is copied into an error: the name is as long as a client cares to make it.
        if name.len() > TOPIC_NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: name.len() });
        }
        if name == "." || name == ".." {
            return Err(NameError::Dots { name: name.to_owned() });
        }
        match name.chars().find(|c| !is_allowed(*c)) {
            Some(character) => Err(NameError::Character { name: name.to_owned(), character }),
            None => Ok(TopicName(name.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `.` folded into `_`. Two names with one folded form collide: metrics systems cannot tell them
    /// apart, and Kafka refuses the second one.
    pub fn folded(&self) -> String {
        self.0.replace('.', "_")
    }
}

fn is_allowed(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_rules_of_kafka() {
        for good in ["a", "A.b_c-9", "...", "__consumer_offsets", &"x".repeat(249)] {
            assert_eq!(TopicName::parse(good).unwrap().as_str(), good);
        }
        assert_eq!(TopicName::parse(""), Err(NameError::Empty));
        assert_eq!(TopicName::parse(&"x".repeat(250)), Err(NameError::TooLong { bytes: 250 }));
        for dots in [".", ".."] {
            assert_eq!(TopicName::parse(dots), Err(NameError::Dots { name: dots.into() }));
        }
        for bad in ["a b", "a/b", "é", "a\0", "a\n", "../x"] {
            assert!(matches!(TopicName::parse(bad), Err(NameError::Character { .. })), "{bad:?}");
        }
    }

    #[test]
    fn an_error_names_the_character() {
        let error = TopicName::parse("click stream").unwrap_err().to_string();
        assert_eq!(error, "topic name \"click stream\" has ' ' in it; allowed are letters, digits, '.', '_' and '-'");
    }

    #[test]
    fn dots_and_underscores_fold_into_one() {
        let name = |text| TopicName::parse(text).unwrap();
        assert_eq!(name("a.b_c").folded(), name("a_b.c").folded());
        assert_ne!(name("a-b").folded(), name("a_b").folded());
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_safe_as_a_file_name(text in ".{0,300}") {
            if let Ok(name) = TopicName::parse(&text) {
                prop_assert!(std::path::Path::new(name.as_str()).components().count() == 1);
                prop_assert!(name.as_str().len() <= TOPIC_NAME_BYTES_MAX && !name.as_str().contains('\0'));
            }
        }
    }
}
