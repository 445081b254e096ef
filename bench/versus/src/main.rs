//! corelog and Apache Kafka under the same clients, in turns, on the same disk: `bash bench/versus/run`.
//!
//! Three brokers: corelog as it is, durable; Kafka as it is, which acknowledges what is in the page cache; and Kafka with
//! `flush.messages=1`, which flushes as corelog does. The load is librdkafka's and, where its way of packing many
//! partitions into a request matters, that of Java's producer. Figures mean little by themselves: the ratios count.

mod broker;
mod case;
mod client;
mod table;

use broker::{Setup, Subject};
use case::{CASES, Scale};
use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use table::Table;

/// What ends the comparison.
type Trouble = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Trouble>;

/// Compare corelog with Apache Kafka under the same clients, in turns.
#[derive(Debug, Parser)]
#[command(after_help = "Examples:
  bash bench/versus/run --quick
  bash bench/versus/run --dir /mnt/data --only closed --only 'end to end' --json

Exit status: 0 all bars were met, 1 could not be measured, 2 usage, 3 a bar was not met.")]
struct Args {
    /// The program to compare.
    #[arg(long, value_name = "FILE")]
    corelog: PathBuf,
    /// Directory of Kafka's jars, with those of its tools.
    #[arg(long, value_name = "DIR")]
    kafka: PathBuf,
    /// Directory for data, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Runs of each case and broker.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=50))]
    repeats: u8,
    /// Short runs, one of each, and a tenth of the data.
    #[arg(long)]
    quick: bool,
    /// Only cases whose name has this in it; may be repeated.
    #[arg(long, value_name = "WORD")]
    only: Vec<String>,
    /// Leave out a broker; may be repeated.
    #[arg(long, value_name = "BROKER")]
    without: Vec<Subject>,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(3),
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|word| name.contains(word.as_str()));
    let cases: Vec<_> = CASES.iter().filter(|case| is_wanted(case.name)).collect();
    if cases.is_empty() {
        let names: Vec<&str> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no case has one of these words in its name: they are {}", names.join(", ")).into());
    }
    let subjects: Vec<Subject> = Subject::ALL.into_iter().filter(|subject| !args.without.contains(subject)).collect();
    let scale = if args.quick { Scale::QUICK } else { Scale::WHOLE };
    let repeats = if args.quick { 1 } else { args.repeats };
    let directory = tempfile::Builder::new().prefix("versus-").tempdir_in(&args.dir)?;
    let setup = Setup {
        corelog: args.corelog.canonicalize()?,
        kafka: args.kafka.canonicalize()?,
        directory: directory.path().to_owned(),
    };
    let mut table = Table::new(setup.versions()?);
    for case in cases {
        case::measure(case, &setup, &subjects, scale, repeats, &mut table)?;
    }
    println!("{}", if args.json { table.to_json()? } else { table.to_string() });
    Ok(table.is_met())
}
