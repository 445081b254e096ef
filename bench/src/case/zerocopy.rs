//! `bench zerocopy`: whether it pays that a file's bytes get to a socket without passing through memory of ours. The sizes
//! are those of the table that Kafka's design was first defended with, read and write against transferTo.

use crate::error::{Doing, Result};
use crate::machine::limits::WARMED;
use crate::report::{Better, Machine, Measured, Report, live, median};
use crate::server::interrupt;
use crate::server::veth::Veth;
use clap::Args;
use corelog_yardstick::transfer::{Net, Took, Way, transfer};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Megabytes of the files.
const SIZES_MB: [u64; 8] = [7, 21, 63, 98, 200, 350, 700, 1024];
const MB: u64 = 1 << 20;

/// Arguments of `bench zerocopy`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Examples:
  corelog bench zerocopy --html zerocopy.html
  corelog bench zerocopy --most-mb 100 --repeats 1

Over loopback and, by root, over a pair of network namespaces joined by a veth. Ratios are to read + send in the same runs.")]
pub struct ZerocopyArgs {
    /// Directory for the file, removed afterwards: on the file system to be measured.
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub dir: PathBuf,
    /// Leave out files larger than this, MB.
    #[arg(long, value_name = "MB", default_value_t = 1024)]
    pub most_mb: u64,
    /// Transfers of each kind.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub repeats: usize,
}

/// A way in one state of the page cache, and what its transfers took.
struct Row {
    way: Way,
    is_hot: bool,
    took: Vec<Took>,
}

/// Runs `bench zerocopy`.
pub(crate) fn run(args: &ZerocopyArgs) -> Result<Report> {
    let mut report = Report::new(Machine::this(&args.dir));
    add(args, &mut report)?;
    report.notes.push(WARMED.into());
    Ok(report)
}

/// Adds the transfers to a report.
pub(crate) fn add(args: &ZerocopyArgs, report: &mut Report) -> Result<()> {
    let directory = interrupt::scratch(&args.dir)?;
    let path = directory.path().join("file");
    let sizes: Vec<u64> = SIZES_MB.into_iter().filter(|size| *size <= args.most_mb).collect();
    write_file(&path, sizes.last().copied().unwrap_or(0) * MB)?;
    let loopback = Net::loopback();
    report.results.extend(over("loopback", &loopback, &path, &sizes, args.repeats.max(1))?);
    match Veth::new() {
        Ok(veth) => report.results.extend(over("veth", &veth.net(), &path, &sizes, args.repeats.max(1))?),
        Err(why) => report.notes.push(format!("not measured over a veth, which takes root and ip(8): {why}")),
    }
    Ok(())
}

/// Bytes that no file system can leave out or compress.
pub(crate) fn write_file(path: &Path, bytes: u64) -> Result<()> {
    let doing = "writing the file to be sent";
    let (mut noise, mut piece) = (0x9e37_79b9_7f4a_7c15_u64, vec![0; MB as usize]);
    let mut file = File::create(path).doing(doing)?;
    for _ in 0..bytes / MB {
        for word in piece.chunks_exact_mut(8) {
            noise = noise.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            word.copy_from_slice(&noise.to_le_bytes());
        }
        file.write_all(&piece).doing(doing)?;
    }
    file.sync_all().doing(doing)
}

fn over(net_name: &str, net: &Net, path: &Path, sizes: &[u64], repeats: usize) -> Result<Vec<Measured>> {
    let mut results = Vec::new();
    for (place, size) in sizes.iter().enumerate() {
        live::say(&format!("{} over {net_name}, {size} MB", live::bar(place as f64 / sizes.len() as f64)));
        let mut rows: Vec<Row> = Way::ALL.into_iter().flat_map(rows_of).collect();
        for _ in 0..repeats {
            // In turns, so that all see the same minute of the machine.
            for row in &mut rows {
                let took = transfer(net, path, size * MB, row.way, row.is_hot);
                row.took.push(took.doing(&format!("sending by {} over {net_name}", row.way.name()))?);
            }
        }
        results.push(of_rows(net_name, *size, &rows));
    }
    Ok(results)
}

fn rows_of(way: Way) -> Vec<Row> {
    let states: &[bool] = if way.is_cached() { &[true, false] } else { &[false] };
    states.iter().map(|is_hot| Row { way, is_hot: *is_hot, took: Vec::new() }).collect()
}

impl Row {
    fn name(&self) -> String {
        match (self.way.is_cached(), self.is_hot) {
            (false, _) => self.way.name().to_owned(),
            (true, true) => format!("{}, hot", self.way.name()),
            (true, false) => format!("{}, cold", self.way.name()),
        }
    }

    fn milliseconds(&self) -> Vec<f64> {
        self.took.iter().map(|took| took.time.as_secs_f64() * 1e3).collect()
    }

    /// What it is compared with: read and send in the same state of the page cache; cold where that does not matter, for
    /// that is when a server has to read at all.
    fn is_yardstick_of(&self, other: &Row) -> bool {
        self.way == Way::ReadSend && self.is_hot == (other.is_hot && other.way.is_cached())
    }
}

fn of_rows(net: &str, size: u64, rows: &[Row]) -> Measured {
    let mut measured = Measured::new(&format!("zerocopy, {net}"), "machine", format!("a file of {size} MB"));
    for row in rows {
        let name = row.name();
        measured.figure(&name, "ms", Better::Lower, row.milliseconds());
        if let Some(yardstick) = rows.iter().find(|other| other.is_yardstick_of(row)) {
            let ratio = median(&row.milliseconds()) / median(&yardstick.milliseconds());
            measured.set_ratio(&name, &yardstick.name(), ratio);
        }
        let gigabytes = (size * MB) as f64 / 1e9;
        let cpu = row.took.iter().map(|took| took.cpu.as_secs_f64() / gigabytes).collect();
        measured.figure(&format!("{name}: cpu per GB"), "s", Better::Lower, cpu);
    }
    measured
}
