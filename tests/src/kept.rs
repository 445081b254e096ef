//! Seeds that found something once. Every test run replays them, whatever else it runs.
//!
//! A seed is one run at one commit only: when what a run draws changes, a kept seed becomes another run. What it found then
//! has a test of its own beside the mend, where one could be written.

/// The seeds, and what each found.
pub const SEEDS: &[(u64, &str)] = &[
    (21, "a node that started on a full disk gave up"),
    (39, "a node that started on a full disk gave up"),
    (50, "an append too little to go to its segment and too much for an entry waited for ever"),
    (62, "damage to a journal's last entry, which cannot be told from a torn one: a fault of the world"),
    (91, "a checkpoint was completed over what another flush, which failed, had let go of"),
    (109, "the same, and after a power cut"),
    (134, "a journal's damage brought a deleted topic back: its missing files were taken for failed reads"),
    (172, "a checkpoint was completed over what another flush, which failed, had let go of"),
    (190, "an append too little to go to its segment and too much for an entry waited for ever"),
    (206, "a fetch that waited for more of a fenced partition turned for ever, and its shard with it"),
    (215, "a journal's damage brought a deleted topic back: its missing files were taken for failed reads"),
    (291, "shards took the disk's reserve from under each other, and the node could not start"),
    (379, "blocks found readable after a failed flush were not written again, and lost in a power cut"),
];

#[cfg(test)]
mod tests {
    use super::SEEDS;

    #[test]
    fn seeds_are_kept_once_and_in_order() {
        assert!(SEEDS.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
