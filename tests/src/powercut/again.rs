//! Power cuts in the start after a power cut: what the first cut left becomes a logged disk, a server recovers on it and
//! serves a little, and that is cut.

use super::book::{Book, Existence, Expected, Mark, What};
use super::check::Loss;
use super::jobs::{self, Found, Job};
use super::met::Met;
use super::recording::Recording;
use super::teller::{Stream, Teller};
use super::workload::{producer, send};
use super::{PATIENCE, Subject, said, server_options};
use crate::chance::Chance;
use crate::disk::cut::Cut;
use crate::disk::image;
use crate::disk::{Disk, Result};
use corelog_bench::Server;
use corelog_client::ConnectOptions;
use corelog_client::blocking::Admin;
use std::collections::BTreeSet;
use std::fs;
use std::sync::Arc;

/// Bytes of the records that each partition gets after the recovery: the last ones may go to its segment directly.
const BYTES: [u64; 6] = [500, 500, 500, 100_000, 100_000, 100_000];

/// Recovers what a cut of `first` left, cuts that, and checks.
pub(super) fn found(first: &Recording, job: &Job) -> Result<Option<Found>> {
    let base = job.directory.join(Recording::BASE);
    fs::rename(job.image(), &base)?;
    let image = job.directory.join("disk.img");
    image::copy(&base, &image)?;
    let disk = Disk::start(&job.directory, &image, first.fs)?;
    let teller = Arc::new(Teller::new(disk.marks()?));
    let recovered = recover(&disk, &teller, &job.book);
    drop(teller);
    let log = disk.finish()?;
    if let Err(error) = recovered {
        // What is kept is the first cut: its own start went wrong.
        fs::rename(&base, job.image())?;
        let kept = jobs::keep(Subject::Promise).map(|keep| jobs::kept(first, job, &keep)).transpose()?;
        let loss = Loss::Broken(error.to_string());
        return Ok(Some(Found { cut: job.cut, survivors: job.survivors, loss, kept }));
    }
    fs::remove_file(&image)?;
    let recording = Recording { fs: first.fs, base, log, met: Met::default(), is_again: true };
    let mut chance = Chance(job.cut.seed).part(2);
    let begun = jobs::begun(&recording)?;
    let point = begun + 1 + chance.below((recording.log.entries().len() - begun) as u64) as usize;
    jobs::repeat(&recording, &job.directory, Subject::Promise, Cut { point, seed: chance.draw() })
}

/// Writes down what was known, starts a server, and makes what it serves now known as well.
fn recover(disk: &Disk, teller: &Arc<Teller>, book: &Book) -> Result<()> {
    book.marks().iter().for_each(|mark| teller.write(mark));
    teller.write(&Mark::new(What::Begun, 0, "", 0, 0));
    let options = server_options(disk.root(), &[])?;
    let server = Server::start(options.clone(), PATIENCE)?;
    let served = show(&options.listen.to_string(), teller, book);
    served.map_err(|error| format!("{error}\n{}", said(&server)))?;
    teller.check()
    // The server is killed here.
}

fn show(bootstrap: &str, teller: &Arc<Teller>, book: &Book) -> Result<()> {
    let mut admin = Admin::connect(bootstrap, ConnectOptions::default())?;
    let there: BTreeSet<String> = admin.topics()?.into_iter().map(|topic| topic.name).collect();
    for (name, expected) in &book.topics {
        let stream = stream(name, expected);
        if !there.contains(name) {
            if expected.existence == Existence::Certain {
                return Err(format!("topic {name} is not there").into());
            }
            teller.tell(What::Deleted, &stream, 0, 0);
            continue;
        }
        teller.tell(What::Created, &stream, 0, 0);
        for partition in admin.describe_topic(name)?.partitions {
            if partition.fenced.is_some() || partition.trouble.is_some() {
                return Err(format!("{name}: {partition:?}").into());
            }
            teller.tell(What::Told, &stream, partition.partition, partition.high_watermark);
        }
        produce(bootstrap, teller, &stream)?;
    }
    Ok(())
}

fn produce(bootstrap: &str, teller: &Arc<Teller>, stream: &Stream) -> Result<()> {
    let starts: Vec<i64> = (0..stream.partitions).map(|partition| teller.told(stream, partition)).collect();
    let producer = producer(bootstrap, teller, stream)?;
    for (number, bytes) in (0..).zip(BYTES) {
        for (partition, start) in (0..).zip(&starts) {
            send(&producer, stream, partition, start + number, bytes)?;
        }
    }
    Ok(producer.close()?)
}

fn stream(topic: &str, expected: &Expected) -> Stream {
    Stream {
        number: expected.stream,
        topic: topic.to_owned(),
        partitions: expected.partitions.len() as u32,
        bytes: (0, 0),
        settings: Vec::new(),
    }
}
