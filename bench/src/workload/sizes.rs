//! How large records are: all alike, spread over a range, or some of each of a few sizes.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// Largest value of a record: what fits the default of max.message.bytes with its batch.
const BYTES_MAX: u32 = 16 << 20;

/// Bytes of records' values: `1024`, evenly from a range `100..2000`, or by weight `100:9,10000:1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "String")]
pub enum Sizes {
    /// All have the same.
    Fixed(u32),
    /// Every size of the range as often, both ends included.
    Range(u32, u32),
    /// Sizes, and how often each comes among the sum of these numbers.
    Weighted(Vec<(u32, u32)>),
}

/// As a TOML file may have it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(i64),
    Text(String),
}

impl TryFrom<Written> for Sizes {
    type Error = String;
    fn try_from(written: Written) -> Result<Sizes, String> {
        match written {
            Written::Number(bytes) => bytes.to_string().parse(),
            Written::Text(text) => text.parse(),
        }
    }
}

impl From<Sizes> for String {
    fn from(sizes: Sizes) -> String {
        sizes.to_string()
    }
}

const ALLOWED: &str = "it must be bytes up to 16777216 like 1024, a range like 100..2000 with the lesser first, or sizes by \
                       weight like 100:9,10000:1";

impl FromStr for Sizes {
    type Err = String;
    fn from_str(text: &str) -> Result<Sizes, String> {
        let bytes = |text: &str| text.trim().parse().ok().filter(|bytes| *bytes <= BYTES_MAX).ok_or(ALLOWED);
        if let Some((low, high)) = text.split_once("..") {
            let (low, high) = (bytes(low)?, bytes(high)?);
            return if low <= high { Ok(Sizes::Range(low, high)) } else { Err(ALLOWED.into()) };
        }
        if !text.contains(':') {
            return Ok(Sizes::Fixed(bytes(text)?));
        }
        let one = |part: &str| {
            let (size, weight) = part.split_once(':').ok_or(ALLOWED)?;
            let weight = weight.trim().parse().ok().filter(|weight| (1..=1_000_000).contains(weight)).ok_or(ALLOWED)?;
            Ok((bytes(size)?, weight))
        };
        text.split(',').map(one).collect::<Result<_, String>>().map(Sizes::Weighted)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Sizes::Fixed(bytes) => write!(f, "{bytes}"),
            Sizes::Range(low, high) => write!(f, "{low}..{high}"),
            Sizes::Weighted(parts) => {
                let parts: Vec<_> = parts.iter().map(|(size, weight)| format!("{size}:{weight}")).collect();
                f.write_str(&parts.join(","))
            }
        }
    }
}

impl Sizes {
    /// Whether all records have the same.
    pub fn is_fixed(&self) -> bool {
        matches!(self, Sizes::Fixed(_))
    }

    /// The size that a random number stands for.
    pub fn draw(&self, random: u64) -> usize {
        let bytes = match self {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Range(low, high) => low + (random % u64::from(high - low + 1)) as u32,
            Sizes::Weighted(parts) => {
                let all: u64 = parts.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut place = random % all.max(1);
                let found = parts.iter().find(|(_, weight)| {
                    let is_here = place < u64::from(*weight);
                    place = place.saturating_sub(u64::from(*weight));
                    is_here
                });
                found.map_or(0, |(size, _)| *size)
            }
        };
        bytes as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_they_are_shown() {
        for text in ["0", "1024", "100..2000", "7..7", "100:9,10000:1"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        for text in ["", "x", "5..1", "1:0", "1:2,3", "99999999", "1..", "-1"] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_drawn_follows_the_weights() {
        let sizes: Sizes = "100:9,10000:1".parse().unwrap();
        let drawn: Vec<usize> = (0..100).map(|random| sizes.draw(random)).collect();
        assert_eq!(drawn.iter().filter(|size| **size == 100).count(), 90);
        assert_eq!(drawn.iter().filter(|size| **size == 10_000).count(), 10);
        let range: Sizes = "5..7".parse().unwrap();
        assert_eq!((0..4).map(|random| range.draw(random)).collect::<Vec<_>>(), [5, 6, 7, 5]);
    }
}
