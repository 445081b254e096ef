//! What must hold after a kill: everything acknowledged is there, in order, once; nothing else; and it goes on.

use super::Address;
use super::story::{Partition, Told};
use crate::records;
use corelog_bench::{BenchError, Connection};
use corelog_engine::log::dump::{Finding, verify};
use corelog_wire::{Batches, Fetch, Opened, Operation, Produced};
use std::path::Path;

/// Bytes of a fetch.
const FETCH_BYTES: u32 = 1 << 20;

/// Looks at a server that was killed and has come back, and writes to it.
///
/// # Errors
/// What is not as it was acknowledged.
pub(super) fn check(server: Address, told: &mut Told) -> Result<(), String> {
    let mut connection = Connection::open(server).map_err(|error| error.to_string())?;
    let topics: Vec<_> = told.topics.iter().map(|(name, topic)| (*name, topic.clone())).collect();
    for (name, topic) in topics {
        for (index, partition) in (0..).zip(&topic.partitions) {
            let here = format!("{name}/{index}");
            match (connection.open_partition(name, index), topic.is_there) {
                (Ok(_), Some(false)) => return Err(format!("{here} was deleted, and is there")),
                (Ok((handle, opened)), _) => {
                    check_partition(&mut connection, handle, &opened, partition)
                        .map_err(|why| format!("{here}: {why}"))?;
                    go_on(&mut connection, told, name, index, handle).map_err(|why| format!("{here}: {why}"))?;
                }
                (Err(BenchError::Refused { .. }), None | Some(false)) => {}
                (Err(error), _) => return Err(format!("{here}: {error}")),
            }
        }
    }
    Ok(())
}

fn check_partition(
    connection: &mut Connection,
    handle: u32,
    opened: &Opened,
    partition: &Partition,
) -> Result<(), String> {
    let told = partition.appends.iter().filter(|append| append.told).count() as i64;
    let sent = partition.appends.len() as i64;
    if !(told..=sent).contains(&opened.next) {
        return Err(format!("it ends at offset {}, {told} of {sent} records were acknowledged", opened.next));
    }
    if !partition.first.contains(&opened.first) {
        return Err(format!("it begins at offset {}, not at one of {:?}", opened.first, partition.first));
    }
    let mut at = opened.first;
    while at < opened.next {
        at = read_on(connection, handle, at, opened.first, partition)?;
    }
    Ok(())
}

/// Reads once; where to read on.
fn read_on(
    connection: &mut Connection,
    handle: u32,
    from: i64,
    first: i64,
    partition: &Partition,
) -> Result<i64, String> {
    let fetch = Fetch { offset: from, bytes_max: FETCH_BYTES, bytes_min: 0, wait_ms: 0 };
    connection.call(Operation::Fetch, handle, &fetch, &[]).map_err(|error| error.to_string())?;
    let fetched = Batches::decode(connection.body()).map_err(|error| error.to_string())?;
    let mut next = from;
    for (offset, id) in records::read(fetched.bytes)?.into_iter().flat_map(|batch| batch.records) {
        let sent = partition.appends.get(offset as usize).map(|append| append.id);
        if offset != next || sent != Some(id) {
            return Err(format!("at offset {next} of {first} on: record {id:?} at {offset}, {sent:?} was sent there"));
        }
        next = offset + 1;
    }
    if next == from { Err(format!("nothing can be read at offset {from}")) } else { Ok(next) }
}

/// Writes a record behind those that are there.
fn go_on(
    connection: &mut Connection,
    told: &mut Told,
    name: &'static str,
    index: u32,
    handle: u32,
) -> Result<(), String> {
    let failed = |error: BenchError| error.to_string();
    let batch = told.new_batch(name, index, 100);
    connection.call(Operation::Produce, handle, &(), &batch).map_err(failed)?;
    let produced: Produced = connection.decode(Operation::Produce).map_err(failed)?;
    let fetch = Fetch { offset: produced.base, bytes_max: FETCH_BYTES, bytes_min: 0, wait_ms: 0 };
    connection.call(Operation::Fetch, handle, &fetch, &[]).map_err(failed)?;
    let fetched = Batches::decode(connection.body()).map_err(|error| error.to_string())?;
    let read: Vec<_> = records::read(fetched.bytes)?.into_iter().flat_map(|batch| batch.records).collect();
    let wrote = told.last_sent();
    if read == [(produced.base, wrote)] { Ok(()) } else { Err(format!("{wrote:?} was written, {read:?} is read")) }
}

/// Verifies the files of a server that does not run. A directory that was not completed has none to verify.
///
/// # Errors
/// What `corelog dump-log --verify` would exit with 3 for.
pub(super) fn verify_files(data: &Path) -> Result<(), String> {
    if !data.join("node").exists() {
        return Ok(());
    }
    let mut found = Vec::new();
    let summary = verify(data, &mut |finding: Finding| {
        found.push(finding.to_string());
        Ok(())
    });
    let summary = summary.map_err(|error| format!("cannot be verified: {error}"))?;
    if summary.is_sound() { Ok(()) } else { Err(format!("{summary}\n{}", found.join("\n"))) }
}
