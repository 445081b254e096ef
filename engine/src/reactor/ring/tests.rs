//! The suite on the kernel, with all that it has and with what Linux 5.15 has.

use super::{Avoid, Options, run_ring};
use crate::model::ShardId;
use crate::reactor::{mesh, suite};
use std::path::Path;
use std::time::Duration;

fn options(avoid: Avoid) -> Options {
    Options { pool_bytes: suite::POOL, entries: 64, avoid, log: |_| {}, ..Options::default() }
}

/// Under the workspace, so that it is a disk's file system and not the memory that /tmp may be.
fn directory() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn run_suite(options: &Options, base: &Path) {
    for case in suite::CASES {
        eprintln!("{}", case.0);
        let base = base.to_owned();
        run_ring(options.clone(), async move |reactor| suite::run_case(reactor, &base, *case).await).unwrap();
    }
}

fn run_shards(avoid: Avoid, shards: u16) {
    for case in suite::SHARDS_CASES {
        eprintln!("{} on {shards}", case.0);
        let threads: Vec<_> = mesh::build(shards, suite::MESH_CAPACITY)
            .into_iter()
            .enumerate()
            .map(|(shard, mesh)| {
                let options = Options { shard: ShardId(shard as u16), shards, ..options(avoid) };
                std::thread::spawn(move || {
                    let root = async move |reactor| {
                        let mesh = mesh.attach(&reactor);
                        suite::run_shards_case(reactor, mesh, *case).await;
                    };
                    run_ring(options, root).unwrap();
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    }
}

#[test]
fn suite_with_all_features() {
    run_suite(&options(Avoid::default()), directory().path());
}

#[test]
fn suite_with_the_features_of_linux_5_15() {
    run_suite(&options(Avoid::ALL), directory().path());
}

#[test]
fn suite_without_spinning_and_with_few_receive_buffers() {
    for avoid in [Avoid::default(), Avoid::ALL] {
        let few = Options { spin: Duration::ZERO, receive_buffers: 2, entries: 4, ..options(avoid) };
        run_suite(&few, directory().path());
    }
}

#[test]
fn suite_in_memory() {
    if let Ok(base) = tempfile::tempdir_in("/dev/shm") {
        run_suite(&options(Avoid::default()), base.path());
    }
}

#[test]
fn shards_suite() {
    for shards in [1, 2, 3] {
        run_shards(Avoid::default(), shards);
        run_shards(Avoid::ALL, shards);
    }
}
