//! Rare paths that a set of runs must have met: a simulation that never filled its journal proves nothing of full
//! journals. Each place says `sometimes!("what happened")`; at the end the suite asks which of the list never did.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

static MET: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// Counts that something happened. Use [`crate::sometimes!`].
pub fn met(what: &'static str, times: u64) {
    if times > 0 {
        *MET.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += times;
    }
}

/// How often each thing happened in this process.
pub fn counts() -> BTreeMap<&'static str, u64> {
    MET.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Which of `wanted` never happened.
pub fn never<'a>(wanted: &[&'a str]) -> Vec<&'a str> {
    let counts = counts();
    wanted.iter().copied().filter(|what| !counts.contains_key(what)).collect()
}

/// Counts a rare path: `sometimes!("name")`, or `sometimes!("name", how_often)`.
#[macro_export]
macro_rules! sometimes {
    ($what:literal) => {
        $crate::sometimes::met($what, 1)
    };
    ($what:literal, $times:expr) => {
        $crate::sometimes::met($what, u64::from($times))
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_never_happened_is_named() {
        crate::sometimes!("it rained");
        crate::sometimes!("it snowed", false);
        assert_eq!(super::never(&["it rained", "it snowed"]), ["it snowed"]);
    }
}
