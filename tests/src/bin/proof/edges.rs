//! `proof edges`.

use crate::failure::Failure;
use clap::Args;
use corelog_tests::edges::{Kind, Options, Row, run as run_kind};
use std::time::Duration;

const MIB: f64 = 1024.0 * 1024.0;

#[derive(Args)]
#[command(after_help = "\
Examples:
  proof edges
  proof edges --seconds 600 --rounds 1 --only flood      producers far over the limit for ten minutes on end
  proof edges --only flood --produce-rate-mib 0          the same without a limit: what they do to the others then
  proof edges --only silent --memory-mib 800

Kinds: silent (10,000 connections that never say hello; a shard takes 1,024 at once, who is closed comes again), never-read,
byte-a-second, no-credit, flood.
Connections at once are as the crowd sees them: those that wait for the server in the kernel, or are about to be closed, count too.
Percentiles mean something only on a machine that does nothing else meanwhile.")]
pub(crate) struct Arguments {
    /// Seconds beside each kind of crowd, all rounds together
    #[arg(long, value_name = "N", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// In how many parts; the honest clients are alone before, between and after
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Only this kind
    #[arg(long, value_name = "NAME", value_parser = kind)]
    only: Option<Kind>,
    /// Memory that the server is given, MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    memory_mib: u64,
    /// What a producer of the flood is allowed, MiB a second (the server's --produce-rate-max); 0 is no limit, where the
    /// disk is shared as it comes
    #[arg(long, value_name = "MIB", default_value_t = 8, value_parser = rate)]
    produce_rate_mib: u64,
}

fn rate(text: &str) -> std::result::Result<u64, String> {
    let is_allowed = |rate: &u64| *rate == 0 || (2..=1 << 20).contains(rate);
    text.parse().ok().filter(is_allowed).ok_or_else(|| "it must be 0 or a number from 2 to 1048576".to_owned())
}

fn kind(name: &str) -> std::result::Result<Kind, String> {
    let names = || Kind::ALL.map(Kind::name).join(", ");
    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| format!("it must be one of {}", names()))
}

pub(crate) fn run(arguments: &Arguments) -> std::result::Result<(), Failure> {
    let options = Options {
        beside: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds,
        memory: arguments.memory_mib << 20,
        produce_rate: Some(arguments.produce_rate_mib << 20).filter(|rate| *rate > 0),
    };
    let kinds = Kind::ALL.into_iter().filter(|kind| arguments.only.is_none_or(|only| only == *kind));
    let rows = kinds.map(|kind| run_kind(kind, &options, &mut |line| println!("{line}")));
    let rows =
        rows.collect::<corelog_tests::disk::Result<Vec<_>>>().map_err(|error| Failure::Failed(error.to_string()))?;
    println!("\n{}", Row::HEADING);
    rows.iter().for_each(|row| println!("{row}"));
    rows.iter().for_each(tell_more);
    if rows.iter().all(|row| row.faults().is_empty()) { Ok(()) } else { Err(Failure::Found) }
}

/// What is in no column.
fn tell_more(row: &Row) {
    println!("{}: {}", row.kind, row.numbers);
    println!("{}: the longest that a newcomer waited for its welcome: {:.1?}", row.kind, row.newcomers.longest);
    if row.kind == Kind::Flood {
        let limit =
            row.produce_rate.map_or("without a limit".to_owned(), |rate| format!("of {} MiB allowed", rate >> 20));
        println!("{}: each producer got {:.1} MiB a second {limit}", row.kind, row.flood_rate() / MIB);
    }
    if let Some(refusal) = &row.newcomers.refusal {
        println!("{}: a newcomer was not welcomed: {refusal}", row.kind);
    }
    if let Some(failure) = row.answers.failures.last() {
        println!("{}: {} honest records failed, the last with: {failure}", row.kind, row.answers.failures.len());
    }
}
