//! `bench reactors`: what a runtime takes. The same mini broker on the engine's reactor and on glommio, beside the bare
//! loop, which has no runtime, and all of corelog: `docs/decisions/001` quotes it.

use super::produce::{self, BARE};
use crate::error::{BenchError, Doing, Result};
use crate::load::Pace;
use crate::machine::limits::{self, Meter};
use crate::report::live::Runs;
use crate::report::{Measured, Report};
use crate::server::rig::{Place, Rig, load_bare, load_glommio, load_mini};
use crate::workload::batches::Bodies;
use crate::workload::{Workload, WorkloadArgs};
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Duration;

const CASE: &str = "reactors";
const OWN: &str = "mini broker on corelog's reactor";
const GLOMMIO: &str = "mini broker on glommio";

/// Arguments of `bench reactors`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "glommio is not built with this program: `bash bench/reactors` builds both, then does this.

Examples:
  bash bench/reactors                                    64 producers, one durable 1 KiB record each in flight
  corelog bench reactors --producers 1 --seconds 2 --repeats 9")]
pub struct ReactorsArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) workload: WorkloadArgs,
    /// The program of the broker on glommio.
    #[arg(long, value_name = "PROGRAM", default_value = "bench/glommio/target/release/corelog-glommio")]
    pub glommio: PathBuf,
}

/// Runs `bench reactors`.
pub(crate) fn run(args: &ReactorsArgs) -> Result<Report> {
    let workload = args.workload.resolve(&Workload::default())?;
    let program = args.glommio.display();
    args.glommio.metadata().doing(&format!("looking for {program}, which `bash bench/reactors` builds"))?;
    let bodies = Bodies::of(&workload)?;
    if bodies.bodies.len() > 1 || !matches!(workload.pace, Pace::Closed { .. }) {
        return Err(BenchError::Usage("yardsticks take one size of records, in a closed loop".into()));
    }
    let rig = Rig::start(&args.place)?;
    let mut meter = Meter::new(rig.directory.path(), rig.cores)?;
    let mut report = Report::new(produce::machine(&args.place, &rig));
    report.results = measure(&workload, &bodies, &rig, &mut meter, &args.glommio)?;
    report.limits = meter.figures();
    report.notes.push(limits::WARMED.into());
    Ok(report)
}

/// All of them in turn, again and again; each is set against the bare loop, and glommio against the engine's reactor.
fn measure(
    workload: &Workload,
    bodies: &Bodies,
    rig: &Rig,
    meter: &mut Meter,
    program: &Path,
) -> Result<Vec<Measured>> {
    let topic = rig.topic(workload.partitions, &[("durability", workload.durability.name())])?;
    let (mut bare, mut own, mut glommio, mut corelog) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for run in 0..workload.repeats {
        meter.slice(Duration::from_secs_f64(workload.seconds / 3.0))?;
        bare.push(load_bare(rig, bodies, workload)?);
        own.push(load_mini(rig, bodies, workload)?);
        glommio.push(load_glommio(rig, bodies, workload, program)?);
        let live = Runs::new(CASE, workload.repeats, workload.seconds, f64::from(workload.batch_records));
        corelog.push(rig.load(&topic, bodies, workload, false, Some((live, run)))?);
    }
    let yardstick = |subject, runs: &[_]| produce::yardstick(CASE, subject, workload, bodies, runs);
    let (bare, mut own, mut glommio) = (yardstick(BARE, &bare), yardstick(OWN, &own), yardstick(GLOMMIO, &glommio));
    let mut corelog = produce::corelog(CASE, workload, bodies, &corelog);
    [&mut own, &mut glommio, &mut corelog].into_iter().for_each(|ours| produce::set_against(ours, &bare));
    produce::set_against(&mut glommio, &own);
    Ok(vec![corelog, bare, own, glommio])
}
