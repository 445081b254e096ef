//! Damage of a small data directory (see `damage`): a sample that the seed decides on the simulated disk, and a smaller
//! one with the real program.
//!
//! ```text
//! CORELOG_SEED=7 cargo test --profile proof -p corelog-tests --test damage -- --nocapture
//! cargo run --profile proof -p corelog-tests --bin proof -- damage           # every bit
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test that meets what it did not expect should end there")]

use corelog_bench::{Server, ServerOptions, free_address};
use corelog_tests::chance::seed;
use corelog_tests::damage::{Damage, How, Options, Site, Verdict, damages, run};
use corelog_tests::process::{PATIENCE, program, scratch};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Enough for some thousands.
const TIME: Duration = Duration::from_secs(30);
/// Damage of each kind that the real program is given, beside each file's removal.
const WITH_PROGRAM: usize = 4;

/// One test at a time: a process that is being started has the locks of its parent for a moment, and what is verified meanwhile
/// would be in use.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn damage_is_harmless_or_mended_or_told() {
    let _turn = turn();
    let report = run(&Options { seed: seed(), only: None, time: Some(TIME) }).expect("all of it can be done");
    println!("{report}");
    assert!(report.failures.is_empty(), "{} damages did not end well", report.failures.len());
    for verdict in [Verdict::Harmless, Verdict::Mended, Verdict::Told, Verdict::CutOff] {
        assert!(report.verdicts.contains_key(&verdict), "never {verdict:?}");
    }
}

#[test]
fn doctor_and_verification_say_the_same_and_a_server_starts_or_says_why_not() {
    let _turn = turn();
    let site = Site::make();
    let removed = site.files.keys().map(|path| Damage { path: path.clone(), how: How::Removed });
    let all = damages(&site, seed());
    let cut = all.iter().filter(|damage| matches!(damage.how, How::Cut(_))).take(WITH_PROGRAM);
    let flipped = all.iter().filter(|damage| matches!(damage.how, How::Flipped(..))).take(WITH_PROGRAM);
    for damage in removed.chain(cut.chain(flipped).cloned()) {
        let directory = scratch();
        let root = directory.path().join("data");
        site.write(&root);
        let real = root.join(&damage.path);
        match damage.apply(&site.files[&damage.path]) {
            Some(bytes) => fs::write(&real, bytes).unwrap(),
            None => fs::remove_file(&real).unwrap(),
        }
        let (status, diagnoses) = examine(&["doctor", "--json"], &root);
        let (same, findings) = examine(&["dump-log", "--verify", "--json"], &root);
        assert!([Some(0), Some(3)].contains(&status), "{damage}: doctor ended with {status:?}");
        assert_eq!(status, same, "{damage}");
        assert_eq!(diagnoses, findings, "{damage}");
        start(&root, &damage, status == Some(0));
    }
}

/// The exit status, and path, position and words of each finding.
fn examine(arguments: &[&str], root: &Path) -> (Option<i32>, Vec<[Value; 3]>) {
    let output = Command::new(program()).args(arguments).arg(root).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let findings = lines.filter(|line| line["severity"].is_string());
    (output.status.code(), findings.map(|line| ["path", "at", "what"].map(|field| line[field].clone())).collect())
}

/// A server serves, or ends with a sentence that names the damage.
fn start(root: &Path, damage: &Damage, is_healthy: bool) {
    let options = ServerOptions {
        program: program().to_owned(),
        data_dir: root.to_owned(),
        smp: 1,
        listen: free_address().unwrap(),
        more: ["--memory", "512MiB", "--journal-bytes", "32MiB", "--disk-reserve", "1MiB"].map(str::to_owned).to_vec(),
    };
    let mut server = Server::spawn(options).unwrap();
    match server.wait_ready(PATIENCE) {
        Ok(_) => assert!(server.terminate(PATIENCE).unwrap().success(), "{damage}: {}", server.output()),
        Err(_) => {
            assert!(!is_healthy, "{damage}: it is healthy and does not start: {}", server.output());
            let directory = root.join(&damage.path);
            let named = directory.parent().is_some_and(|parent| server.output().contains(&*parent.to_string_lossy()));
            assert!(named, "{damage}: what is wrong is not named: {}", server.output());
        }
    }
}
