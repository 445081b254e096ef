//! Bars of what a server holds, and of how it starts.

use super::{Bar, Bench, ratio};
use crate::case::{partitions, recovery};
use crate::error::{Doing, Result};
use crate::server::process::Server;
use crate::server::rig::Rig;
use std::fs;
use std::slice::from_ref;
use std::time::{Duration, Instant};

/// Partitions of the idle topic.
const IDLE_PARTITIONS: u32 = 10_000;
const SPREAD_PARTITIONS: u32 = 1024;
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) fn many_partitions(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let seconds = bench.or_quick(10.0, 3.0);
    let dir = bench.args.dir.clone();
    let args = partitions::PartitionsArgs { dir, record_bytes: 512, most: SPREAD_PARTITIONS, seconds };
    let results = partitions::points(&args)?;
    let last = results.last().map_or(&[][..], from_ref);
    let ratio = ratio(last, &format!("{} p50", partitions::COMMIT), partitions::OF_ONE);
    let what = "a commit of 512 B in each of 1,024 partitions at the engine: p50 to that of one";
    Ok(vec![Bar::at_most(what, ratio, 2.5, &results)])
}

pub(super) fn idle(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let mut rig = Rig::start(&bench.place)?;
    let (memory, files) = (rig.server_bytes()?, open_files(&rig)?);
    let topic = rig.topic(IDLE_PARTITIONS, &[])?;
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / f64::from(IDLE_PARTITIONS);
    let (memory, files) = (each(memory, rig.server_bytes()?), each(files, open_files(&rig)?));
    let mut server = rig.take_server()?;
    server.terminate(PATIENCE)?;
    let began = Instant::now();
    let restarted = Server::start(server.options().clone(), PATIENCE)?;
    let restart = began.elapsed().as_secs_f64();
    rig.adopt(restarted);
    drop(topic);
    Ok(vec![
        Bar::at_most("10,000 idle partitions: bytes of memory of each", memory, 16384.0, &[]),
        Bar::at_most("10,000 idle partitions: open files of each", files, 2.0, &[]),
        Bar::at_most("10,000 idle partitions: restart, s", restart, 2.0, &[]),
    ])
}

fn open_files(rig: &Rig) -> Result<u64> {
    let Some(pid) = rig.pid() else { return Ok(0) };
    let files = fs::read_dir(format!("/proc/{pid}/fd")).doing("counting the server's files")?;
    Ok(files.count() as u64)
}

pub(super) fn recovery_time(bench: &Bench<'_>) -> Result<Vec<Bar>> {
    let (place, gigabytes) = (bench.place.clone(), bench.or_quick(10.0, 1.0));
    let measured = recovery::measure(&recovery::RecoveryArgs { place, gigabytes, partitions: 8, repeats: 3 })?;
    let what = "recovery after kill -9 to the first acknowledgement, ms, median of three";
    Ok(vec![Bar::at_most(what, measured.value(recovery::FIRST_ACK), 1000.0, &[measured])])
}
