//! Seeds that found something once, in `tests/seeds.txt`. Every test run replays them, whatever else it runs.
//!
//! A seed is one run at one commit only: when what a run draws changes, a kept seed becomes another run. What it found then
//! has a test of its own beside the mend, where one could be written.

use std::collections::BTreeMap;
use std::io;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/seeds.txt");
const SEEDS: &str = include_str!("../seeds.txt");
/// What is kept of a long finding.
const WORDS_MAX: usize = 120;

/// The seeds, and what each found.
pub fn seeds() -> BTreeMap<u64, &'static str> {
    parse(SEEDS)
}

/// Adds a seed to the file, for the runs of the next build and all later ones.
///
/// # Errors
/// When the file cannot be written.
pub fn keep(seed: u64, found: &str) -> io::Result<()> {
    std::fs::write(FILE, with(&std::fs::read_to_string(FILE)?, seed, found))
}

fn parse(text: &str) -> BTreeMap<u64, &str> {
    text.lines()
        .filter_map(|line| line.split_once(' ').and_then(|(seed, found)| Some((seed.parse().ok()?, found))))
        .collect()
}

fn with(text: &str, seed: u64, found: &str) -> String {
    let words: String = found.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(WORDS_MAX).collect();
    let mut all = parse(text);
    all.entry(seed).or_insert(&words);
    all.iter().map(|(seed, found)| format!("{seed} {found}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_kept_once_and_in_order() {
        assert_eq!(seeds().len(), SEEDS.lines().count(), "each line is a seed of its own, and what it found");
        assert_eq!(with(SEEDS, 21, "something else"), SEEDS, "what it found first stays");
        assert_eq!(with("3 b\n17 d\n", 5, "two\nlines"), "3 b\n5 two lines\n17 d\n");
    }
}
