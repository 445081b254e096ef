//! `bench`: reports in each of their forms, loads from files and from several processes, and what changed between two.

use crate::run::{Ended, PATIENCE, corelog, run, run_with};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

/// A short run of a server of its own, in a directory that takes direct I/O.
fn bench(arguments: &[&str]) -> Ended {
    let mut command = corelog(&[&["bench"][..], arguments].concat());
    command.args(["--dir", env!("CARGO_TARGET_TMPDIR")]);
    run_with(command, b"")
}

const SHORT: [&str; 8] = ["--seconds", "0.2", "--warm-up", "0.1", "--repeats", "2", "--serve-arg", "--memory=512MiB"];

fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_load_from_a_file_by_two_processes_is_one_report_in_every_form() {
    let dir = tempfile::tempdir().unwrap();
    let (workload, page) = (dir.path().join("load.toml"), dir.path().join("report.html"));
    std::fs::write(&workload, "record-bytes = \"100..2000\"\nkeys = 10\npartitions = 3\nproducers = 8\nrate = 99999\n")
        .unwrap();
    let (workload, html) = (workload.to_str().unwrap(), page.to_str().unwrap());
    let flags = ["produce", "--workload", workload, "--rate", "500", "--processes", "2", "--json", "--html", html];
    let report = json(&bench(&[&flags[..], &SHORT].concat()).ok());
    let result = &report["results"][0];
    let load = "open loop, 500 records/s, 8 producers, 100..2000 B records, 1 a batch, 10 keys, 3 partitions, durability \
                flush, from 2 processes";
    assert_eq!((&result["subject"], &result["load"]), (&"corelog".into(), &load.into()));
    let figure = |name: &str| {
        let figures = result["figures"].as_array().unwrap();
        figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("{name} in {result}")).clone()
    };
    assert_eq!(figure("records")["runs"].as_array().unwrap().len(), 2);
    assert!(figure("records")["value"].as_f64().unwrap() > 100.0, "{result}");
    assert!(figure("acknowledgement p99")["value"].as_f64().unwrap() > 0.0);
    assert_eq!(result["budget"].as_array().unwrap().len(), 6, "every stage of an append");
    assert!(report["machine"]["facts"].to_string().contains("kernel"));
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!doctype html>") && page.contains(load), "the page has the data");
}

#[test]
fn end_to_end_receives_what_was_sent() {
    let rows =
        bench(&[&["e2e", "--rate", "200", "--consumers", "2", "--partitions", "2", "--csv"][..], &SHORT].concat());
    let rows = rows.ok();
    let value = |figure: &str| -> f64 {
        let row = rows.lines().find(|row| row.contains(&format!(",{figure},")) && row.contains(",all,"));
        row.unwrap_or_else(|| panic!("{figure} in {rows}")).rsplit_once(',').unwrap().1.parse().unwrap()
    };
    assert!(value("records received") > 50.0, "{rows}");
    assert!(value("end to end p50") > 0.0 && value("acknowledgement p50") > 0.0, "{rows}");
}

fn report(path: &Path, records: [f64; 5]) {
    let figure = serde_json::json!({
        "name": "records", "unit": "1/s", "better": "higher", "value": records[2], "runs": records, "limits": [],
    });
    let result = serde_json::json!({
        "case": "produce", "subject": "corelog", "load": "a load", "load_bound": false, "figures": [figure],
        "timings": [], "each_second": [], "budget": [], "notes": [],
    });
    let program = serde_json::json!({ "version": "0", "commit": "0", "command": [], "began": 0 });
    let report = serde_json::json!({
        "format": 1, "program": program, "machine": { "facts": [] }, "limits": [], "results": [result], "notes": [],
    });
    std::fs::write(path, report.to_string()).unwrap();
}

#[test]
fn a_regression_is_told_from_noise_and_ends_with_3() {
    let dir = tempfile::tempdir().unwrap();
    let [before, slower, alike] = ["before", "slower", "alike"].map(|name| dir.path().join(name));
    report(&before, [100.0, 101.0, 102.0, 103.0, 104.0]);
    report(&slower, [80.0, 81.0, 82.0, 83.0, 84.0]);
    report(&alike, [60.0, 99.0, 103.0, 105.0, 130.0]);
    let diff = |after: &Path| run(&["bench", "diff", before.to_str().unwrap(), after.to_str().unwrap()]);
    let worse = diff(&slower);
    assert_eq!((worse.status, worse.text().contains("-19.6 %  p 0.008  WORSE")), (Some(3), true), "{}", worse.text());
    let same = diff(&alike).ok();
    assert!(same.contains("1 of 1 figures are the same within noise"), "{same}");
    let ended = run(&["bench", "diff", "/nowhere", "/nowhere"]);
    assert_eq!(ended.status, Some(1));
    std::fs::write(&alike, "{}").unwrap();
    let ended = diff(&alike);
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.contains("is no report of `bench --json`"), "{}", ended.stderr);
}

#[test]
fn a_form_that_a_command_does_not_have_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("page.html");
    for arguments in [&["diff", "/nowhere", "/nowhere"][..], &["bars", "--only", "idle"]] {
        for form in [&["--html", page.to_str().unwrap()][..], &["--csv"]] {
            let ended = run(&[&["bench"], arguments, form].concat());
            assert_eq!(ended.status, Some(2), "{}", ended.stderr);
            assert!(ended.stderr.contains(&format!("has no {}: it prints a table", form[0])), "{}", ended.stderr);
        }
    }
    assert!(!page.exists(), "nothing is left of a page that was refused");
}

#[test]
fn an_interrupted_benchmark_of_the_engine_leaves_nothing_and_says_nothing_of_damage() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut command = corelog(&["bench", "partitions", "--most", "10000", "--seconds", "30"]);
    command.arg("--dir").arg(dir.path()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    let until = Instant::now() + PATIENCE;
    while !has_topics(dir.path()) {
        assert!(Instant::now() < until, "it does not begin");
        thread::sleep(Duration::from_millis(5));
    }
    // While it makes the files of ten thousand partitions: a node that goes on misses its directories at once.
    thread::sleep(Duration::from_millis(300));
    kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGINT).unwrap();
    let ended = child.wait_with_output().unwrap();
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).as_ref()), (Some(130), ""));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its files are gone");
}

/// Whether a benchmark has begun to write below a directory.
fn has_topics(parent: &Path) -> bool {
    std::fs::read_dir(parent).unwrap().flatten().any(|entry| entry.path().join("data/topics").exists())
}

#[test]
fn what_cannot_be_loaded_is_refused_by_name() {
    let refused = |arguments: &[&str]| {
        let ended = run(&[&["bench", "produce"][..], arguments].concat());
        assert_eq!(ended.status, Some(2), "{}", ended.stderr);
        ended.stderr
    };
    assert!(refused(&["--record-bytes", "big"]).contains("a range like 100..2000"));
    assert!(refused(&["--producers", "0"]).contains("producers is 0; it must be at least 1"));
    assert!(refused(&["--ramp", "5..1"]).contains("two rates"));
    assert!(refused(&["--rate", "0"]).contains("above 0"));
    assert!(refused(&["--workload", "/nowhere.toml"]).contains("cannot read the workload /nowhere.toml: "));
}
