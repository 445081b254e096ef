//! `corelog doctor`: examines the files of a stopped server, and says what can be done about what is wrong.

use crate::failure::Failure;
use clap::Args;
use corelog_engine::log::dump::{DumpError, Finding, Kind, Risk, Severity, Summary, recognise, topic_names, verify};
use corelog_engine::model::TopicId;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Doctor {
    /// The data directory of a server that is stopped
    directory: PathBuf,
    /// Show each finding and the summary as a JSON object
    #[arg(long)]
    json: bool,
}

const EXAMPLES: &str = "\
Example:
  corelog doctor ./corelog-data

Reads every file, holds them against each other, and changes nothing. Of each thing that is not as it should be it says
which file and topic it concerns, whether acknowledged records are lost, and what to do. The same findings as those of
corelog dump-log --verify, one line each there.

Exit status: 0 healthy, 3 found problems, 1 could not look (as when the server runs), 2 asked for wrongly.
What a crash leaves behind and the next start clears away is noted, and no problem.";

pub(crate) fn run(args: Doctor) -> Result<(), Failure> {
    let mut out = BufWriter::with_capacity(64 << 10, io::stdout().lock());
    let summary = examined(&args, &mut out).map_err(failed)?;
    out.flush().map_err(|error| Failure::output(&error))?;
    if summary.is_sound() { Ok(()) } else { Err(Failure::Found) }
}

fn examined(args: &Doctor, out: &mut impl Write) -> Result<Summary, DumpError> {
    let root = &args.directory;
    if recognise(root)? != Kind::DataDir {
        return Err(DumpError::Unrecognised { path: root.clone() });
    }
    let mut findings = Vec::new();
    let summary = verify(root, &mut |finding| {
        findings.push(finding);
        Ok(())
    })?;
    let names = topic_names(root)?;
    let mut show = |finding: &Finding| show_finding(&Diagnosis::of(finding, &names), args.json, out);
    findings.iter().try_for_each(&mut show).map_err(DumpError::Output)?;
    show_verdict(root, &findings, &summary, args.json, out).map_err(DumpError::Output)?;
    Ok(summary)
}

/// A finding as it is shown.
#[derive(Serialize)]
struct Diagnosis<'a> {
    #[serde(flatten)]
    finding: &'a Finding,
    /// The topic's name; none for what a shard or the node shares, and where the metadata log does not have it.
    topic: Option<&'a str>,
    /// What to do, in whole sentences.
    steps: &'static str,
}

impl<'a> Diagnosis<'a> {
    fn of(finding: &'a Finding, names: &'a BTreeMap<TopicId, String>) -> Diagnosis<'a> {
        let topic = finding.partition.and_then(|partition| match partition.topic {
            TopicId::METADATA => Some("the metadata log"),
            topic => names.get(&topic).map(String::as_str),
        });
        Diagnosis { finding, topic, steps: finding.remedy.steps() }
    }
}

impl fmt::Display for Diagnosis<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { severity, path, at, what, partition, risk, .. } = self.finding;
        writeln!(f, "{severity}: {what}")?;
        write!(f, "  file     {}", path.display())?;
        writeln!(f, "{}", at.map_or_else(String::new, |at| format!(", byte {at}")))?;
        match (partition, self.topic) {
            (Some(partition), Some(topic)) => writeln!(f, "  topic    {topic}, partition {}", partition.index)?,
            (Some(partition), None) => writeln!(f, "  topic    unknown, partition {partition}")?,
            (None, _) => {}
        }
        writeln!(f, "  records  {}", of_records(*risk))?;
        writeln!(f, "  do       {}", self.steps)
    }
}

fn of_records(risk: Risk) -> &'static str {
    match risk {
        Risk::None => "nothing acknowledged is lost",
        Risk::AtRisk => "at risk: not all may be served, and it is not known whether any are lost",
        Risk::Lost => "lost, unless there is a copy",
    }
}

fn show_finding(diagnosis: &Diagnosis<'_>, json: bool, out: &mut impl Write) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, diagnosis)?;
    } else {
        write!(out, "{diagnosis}")?;
    }
    writeln!(out)
}

fn show_verdict(
    root: &Path,
    findings: &[Finding],
    summary: &Summary,
    json: bool,
    out: &mut impl Write,
) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, summary)?;
        return writeln!(out);
    }
    let problems = || findings.iter().filter(|finding| finding.severity > Severity::Note);
    let is_certain = findings.iter().all(|finding| finding.risk == Risk::None);
    let verdict = match problems().map(|finding| finding.risk).max() {
        None if is_certain => "healthy",
        None => "healthy, if a crash or a power cut came before (see above)",
        Some(Risk::None) => "damaged, and nothing acknowledged is lost",
        Some(Risk::AtRisk) => "damaged, with acknowledged records at risk",
        Some(Risk::Lost) => "damaged, with acknowledged records lost unless there is a copy",
    };
    writeln!(out, "{} is {verdict}: {summary}", root.display())
}

fn failed(error: DumpError) -> Failure {
    match error {
        DumpError::Output(error) if error.kind() == ErrorKind::BrokenPipe => Failure::OutputClosed,
        DumpError::Unrecognised { path } => {
            Failure::Usage(format!("{} is no data directory of corelog: it has no node file", path.display()))
        }
        _ => Failure::failed(error),
    }
}
