//! Lines for the operator about what clients do: clients decide how often, so that there is a bound.

use corelog_engine::reactor::Instant;
use std::cell::Cell;
use std::time::Duration;

/// At most one line in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Log {
    next: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Log {
    pub(crate) fn say(&self, now: Instant, line: impl FnOnce() -> String) {
        if self.next.get().is_some_and(|next| now < next) {
            return self.left_out.set(self.left_out.get() + 1);
        }
        self.next.set(Some(now.plus(LOG_INTERVAL)));
        match self.left_out.replace(0) {
            0 => eprintln!("corelog: {}", line()),
            left_out => eprintln!("corelog: {} ({left_out} more lines left out)", line()),
        }
    }
}
