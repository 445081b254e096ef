//! A client that comes while a crowd is there: is it let in, and how soon?

use corelog_bench::Connection;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Between one and the next.
const PAUSE: Duration = Duration::from_millis(200);

/// What newcomers were told.
#[derive(Debug, Clone, Default)]
pub struct Told {
    /// How many came.
    pub came: usize,
    /// How many were welcomed.
    pub welcomed: usize,
    /// The longest that one waited for its welcome.
    pub longest: Duration,
    /// What the last one that was not welcomed was told.
    pub refusal: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct Newcomer(Arc<Mutex<Told>>);

pub(super) struct Coming {
    over: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Newcomer {
    /// One after the other, until it ends.
    pub(super) fn come(&self, bootstrap: SocketAddr) -> Coming {
        let over = Arc::new(AtomicBool::new(false));
        let (told, ending) = (self.0.clone(), over.clone());
        let thread = thread::spawn(move || {
            while !ending.load(Ordering::Relaxed) {
                let came = Instant::now();
                let outcome = Connection::open(bootstrap).map(drop).map_err(|error| error.to_string());
                told.lock().unwrap_or_else(PoisonError::into_inner).note(outcome, came.elapsed());
                thread::sleep(PAUSE);
            }
        });
        Coming { over, thread }
    }

    pub(super) fn told(&self) -> Told {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Coming {
    pub(super) fn end(self) {
        self.over.store(true, Ordering::Relaxed);
        let _ = self.thread.join();
    }
}

impl Told {
    fn note(&mut self, outcome: Result<(), String>, waited: Duration) {
        self.came += 1;
        match outcome {
            Ok(()) => {
                self.welcomed += 1;
                self.longest = self.longest.max(waited);
            }
            Err(error) => self.refusal = Some(error),
        }
    }
}
