//! `corelog tune check`: what this machine gives the log, and what to do about what it lacks.

use crate::failure::Failure;
use crate::table::Table;
use clap::{Args, Subcommand};
use corelog_engine::rlimits::Rlimits;
use corelog_engine::{limits, reactor};
use corelog_tuning::{Check, CpuSet, DataDir, Host, Verdict, checks, plan};
use std::io::Write;
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = "Example:\n  corelog tune check")]
pub(crate) struct Tune {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Show what the host gives and lacks; exit 3 if the server cannot run here
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

const CHECK_EXAMPLES: &str = "\
Examples:
  corelog tune check
  corelog tune check --data-dir /var/lib/corelog --memory 4G

A line says ok, advice (it would run better), warning (something may go wrong) or cannot (the server would not start).";

#[derive(Args)]
struct CheckArgs {
    /// The directory the log lies in, or is to lie in
    #[arg(
        long,
        value_name = "DIR",
        default_value = "./corelog-data",
        env = "CORELOG_DATA_DIR",
        hide_env_values = true
    )]
    data_dir: PathBuf,
    /// Memory budget to judge limits against, like 512MiB or 4G [default: what `serve` would take]
    #[arg(long, value_name = "SIZE", value_parser = crate::quantity::size)]
    memory: Option<u64>,
    /// Show one JSON array of checks
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(tune: Tune) -> Result<(), Failure> {
    let Action::Check(args) = tune.action;
    let host = Host::this();
    let data_dir = DataDir::look(&args.data_dir).map_err(Failure::failed)?;
    let shards = plan(&host, None, None, &CpuSet::default()).map_or(1, |plan| plan.shards.len() as u16);
    let memory = args.memory.unwrap_or_else(|| default_memory(&host, shards));
    let mut found = checks(&host, &data_dir, memory);
    judge_limits(Rlimits::raised(), shards, &mut found);
    found.push(reactor_check());
    let mut out = std::io::stdout().lock();
    let written = if args.json { write_json(&found, &mut out) } else { write_table(&found, &mut out) };
    written.and_then(|()| out.flush()).map_err(|error| Failure::output(&error))?;
    if found.iter().any(|check| check.verdict == Verdict::Cannot) { Err(Failure::Found) } else { Ok(()) }
}

/// What the server would make of the limits of this process.
fn judge_limits(rlimits: Rlimits, shards: u16, found: &mut [Check]) {
    let mut judge = |name, verdict, what_to_do: String| {
        if let Some(check) = found.iter_mut().find(|check| check.name == name) {
            (check.verdict, check.what_to_do) = (verdict, what_to_do);
        }
    };
    for remark in rlimits.remarks(shards) {
        judge(remark.name, Verdict::Warning, remark.what_to_do);
    }
    if let Err(too_few) = rlimits.check(shards) {
        judge("open files", Verdict::Cannot, too_few.to_string());
    }
}

/// The memory budget of `shards` shards where none is given.
pub(crate) fn default_memory(host: &Host, shards: u16) -> u64 {
    // A machine that does not say what it has is taken for a small one.
    limits::default_memory(host.memory_bytes().unwrap_or(1 << 30), shards)
}

/// What the kernel's io_uring said when it was tried.
fn reactor_check() -> Check {
    let (found, verdict, what_to_do) = match reactor::probe() {
        Err(cannot) => ("refused".to_owned(), Verdict::Cannot, cannot.to_string()),
        Ok(features) if features.notes.is_empty() => ("every feature in use".to_owned(), Verdict::Ok, String::new()),
        Ok(features) => {
            (format!("{} features absent", features.notes.len()), Verdict::Advice, features.notes.join("; "))
        }
    };
    Check { name: "reactor", found, verdict, what_to_do }
}

fn write_json(found: &[Check], out: &mut impl Write) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, found)?;
    writeln!(out)
}

fn write_table(found: &[Check], out: &mut impl Write) -> std::io::Result<()> {
    let mut table = Table::new(["CHECK", "VERDICT", "FOUND", "WHAT TO DO"]);
    for check in found {
        let verdict = format!("{:?}", check.verdict).to_lowercase();
        table.row([check.name.to_owned(), verdict, check.found.clone(), check.what_to_do.clone()]);
    }
    out.write_all(table.text().as_bytes())
}
