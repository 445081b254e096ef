//! Kafka's clients as they are published, against the real program. The programs that drive them are in `tests/clients`, and
//! `tests/clients/install` installs them. One binary, a module for each story.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

mod exchange;
mod groups;
mod killed;
mod programs;
mod records;
mod refusals;
mod times;
mod tools;

use std::sync::Mutex;
use std::thread;

/// How many programs run at once: a JVM starts for seconds on two cores.
const AT_ONCE: usize = 3;

/// Does `work` with each item, a few at once. The first that panics is passed on when all have ended.
fn a_few_at_once<T: Send>(items: impl IntoIterator<Item = T, IntoIter: Send>, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    let next = || items.lock().expect("no panic in an iterator").next();
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(item) = next() {
                    work(item);
                }
            });
        }
    });
}
