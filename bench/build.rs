//! Notes the commit that the program is built from: a figure without it cannot be repeated.

use std::process::Command;

fn main() {
    // Whatever is part of the program makes this look again; so does a commit, which changes the log of HEAD.
    for part in ["../Cargo.lock", "../engine", "../net", "../bin", "../tuning", "src", "yardstick"] {
        println!("cargo::rerun-if-changed={part}");
    }
    if let Some(log) = git(&["rev-parse", "--git-path", "logs/HEAD"]) {
        println!("cargo::rerun-if-changed={log}");
    }
    let commit = git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    let is_changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| !changes.is_empty());
    println!("cargo::rustc-env=CORELOG_COMMIT={commit}{}", if is_changed { " and changes" } else { "" });
}

/// What git says; `None` where there is no git or no repository, as in a copy of the sources.
fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_owned())
}
