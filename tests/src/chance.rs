//! Numbers from a seed, so that a run can be had again.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Chance(pub u64);

impl Chance {
    /// A number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `bound`, which is not zero.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True once in `times`.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// A generator of its own for part `number` of the run, whatever is drawn here before or after.
    pub fn part(&self, number: u64) -> Chance {
        let mut part = Chance(self.0 ^ number.wrapping_mul(0xd6e8_feb8_6659_fd93));
        part.draw();
        part
    }
}

/// The seed from `CORELOG_SEED`, or one of the time; printed, so that a run can be had again.
pub fn seed() -> u64 {
    let given = std::env::var("CORELOG_SEED").ok().and_then(|text| text.parse().ok());
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let seed = given.unwrap_or(now.as_nanos() as u64);
    println!("CORELOG_SEED={seed}");
    seed
}
