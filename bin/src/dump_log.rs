//! `corelog dump-log`: shows or verifies the files of a data directory, without a server.

use crate::failure::Failure;
use clap::Args;
use corelog_engine::log::dump::{DumpError, Finding, Line, Options, Summary, dump, verify};
use serde::Serialize;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::PathBuf;

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct DumpLog {
    /// A data directory, a shard's, topic's or partition's directory in it, or a journal, checkpoint, segment or index file
    path: PathBuf,
    /// Read everything, check it against the rest of the directory, and show what is wrong; exit 3 if anything is
    #[arg(long)]
    verify: bool,
    /// Also show the records of each batch
    #[arg(long, conflicts_with = "verify")]
    records: bool,
    /// Show each line as a JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Examples:
  corelog dump-log ./corelog-data --records
  corelog dump-log ./corelog-data/shards-1/0/journal --json
  corelog dump-log ./corelog-data --verify

Stop the server before --verify: files that are being written do not agree with each other yet.";

pub(crate) fn run(args: DumpLog) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let sound = if args.verify { verified(&args, &mut out) } else { dumped(&args, &mut out).map(|()| true) };
    let sound = sound.map_err(failed)?;
    out.flush().map_err(|error| Failure::output(&error))?;
    if sound { Ok(()) } else { Err(Failure::Found) }
}

fn dumped(args: &DumpLog, out: &mut impl Write) -> Result<(), DumpError> {
    let mut show = |line: Line| write_one(&line, args.json, out);
    dump(&args.path, Options { records: args.records }, &mut show)
}

fn verified(args: &DumpLog, out: &mut impl Write) -> Result<bool, DumpError> {
    let summary = verify(&args.path, &mut |finding: Finding| write_one(&finding, args.json, out))?;
    write_one::<Summary>(&summary, args.json, out).map_err(DumpError::Output)?;
    Ok(summary.is_sound())
}

fn write_one<T: Serialize + std::fmt::Display>(one: &T, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, one)?;
        writeln!(out)
    } else {
        writeln!(out, "{one}")
    }
}

fn failed(error: DumpError) -> Failure {
    match error {
        DumpError::Output(error) if error.kind() == ErrorKind::BrokenPipe => Failure::OutputClosed,
        DumpError::Unrecognised { .. } => Failure::usage(error),
        _ => Failure::failed(error),
    }
}
