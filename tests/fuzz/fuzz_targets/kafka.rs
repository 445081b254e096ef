#![no_main]

#[allow(dead_code, reason = "a binary runs one of the targets")]
#[path = "../../src/fuzz.rs"]
mod fuzz;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzz::kafka(bytes));
