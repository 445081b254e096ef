//! The batches of a load, built before it begins: making records must not be what is measured.

use super::{Workload, counted};
use crate::error::{BenchError, Result};
use corelog_batch::{BatchBuilder, Codec};

/// Different batches of a load; they are sent in turn.
const VARIETY: usize = 64;
/// Bytes of all of them together, so that they stay in a core's cache with what else the driver touches.
const VARIETY_BYTES: usize = 1 << 20;
/// When the records say they were made: any fixed moment, for the same bytes in every run.
const TIMESTAMP_MS: i64 = 1_700_000_000_000;

/// Batches to be sent in turn.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    pub(crate) bodies: Vec<Vec<u8>>,
    /// Bytes of keys and values in a request, on average.
    pub(crate) payload_bytes: f64,
}

impl Bodies {
    /// Batches as the workload has them.
    pub(crate) fn of(workload: &Workload) -> Result<Bodies> {
        let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
        let (mut bodies, mut bytes, mut payload) = (Vec::new(), 0, 0);
        let is_one_enough = workload.record_bytes.is_fixed() && workload.keys == 0;
        while bodies.is_empty() || !is_one_enough && bodies.len() < VARIETY && bytes < VARIETY_BYTES {
            let (body, carried) = build(workload, &mut noise)?;
            bytes += body.len();
            payload += carried;
            bodies.push(body);
        }
        let payload_bytes = payload as f64 / bodies.len() as f64;
        Ok(Bodies { bodies, payload_bytes })
    }

    /// The length of the largest.
    pub(crate) fn longest(&self) -> usize {
        self.bodies.iter().map(Vec::len).max().unwrap_or(0)
    }
}

fn build(workload: &Workload, noise: &mut Noise) -> Result<(Vec<u8>, usize)> {
    let Workload { batch_records, compression, .. } = workload;
    let refused = |why: String| {
        let records = counted(*batch_records, "record");
        BenchError::Usage(format!("{records} of {} bytes make no batch: {why}", workload.record_bytes))
    };
    let mut builder = BatchBuilder::new(usize::MAX, compression.codec());
    let mut payload = 0;
    for _ in 0..*batch_records {
        let key = (workload.keys > 0).then(|| format!("key-{:010}", noise.next() % workload.keys));
        let mut value = vec![0; workload.record_bytes.draw(noise.next())];
        noise.fill(&mut value, compression.codec() != Codec::None);
        payload += value.len() + key.as_ref().map_or(0, String::len);
        let key = key.as_deref().map(str::as_bytes);
        builder.append(key, Some(&value), &[], TIMESTAMP_MS).map_err(|why| refused(why.to_string()))?;
    }
    Ok((builder.build().map_err(|why| refused(why.to_string()))?, payload))
}

/// Marsaglia's xorshift: the same bytes in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Bytes that no disk can compress, or such that a codec makes about half of them.
    fn fill(&mut self, bytes: &mut [u8], is_packable: bool) {
        for piece in bytes.chunks_mut(8) {
            let mut random = self.next();
            if is_packable {
                // One of 256 words, as text has words.
                random = (random & 0xff).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            }
            piece.copy_from_slice(&random.to_le_bytes()[..piece.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Compression;

    fn bodies(change: impl FnOnce(&mut Workload)) -> Bodies {
        let mut workload = Workload::default();
        change(&mut workload);
        Bodies::of(&workload).expect("batches")
    }

    #[test]
    fn one_batch_is_enough_where_all_are_alike() {
        let alike = bodies(|workload| workload.batch_records = 3);
        assert_eq!((alike.bodies.len(), alike.payload_bytes), (1, 3.0 * 1024.0));
        assert!((3 * 1024..3 * 1024 + 100).contains(&alike.longest()));
    }

    #[test]
    fn sizes_and_keys_make_different_batches() {
        let mixed = bodies(|workload| {
            workload.record_bytes = "10..500".parse().expect("sizes");
            workload.keys = 1000;
        });
        assert_eq!(mixed.bodies.len(), VARIETY);
        assert!(mixed.bodies.iter().all(|body| body.windows(4).any(|window| window == b"key-")));
        assert!(mixed.payload_bytes > 100.0 && mixed.payload_bytes < 500.0, "{}", mixed.payload_bytes);
    }

    #[test]
    fn compressed_batches_are_about_half() {
        let packed = bodies(|workload| {
            (workload.compression, workload.batch_records) = (Compression::Lz4, 64);
        });
        let plain = bodies(|workload| workload.batch_records = 64);
        let part = packed.longest() as f64 / plain.longest() as f64;
        assert!((0.3..0.9).contains(&part), "{part}");
        assert!(Bodies::of(&Workload { batch_records: 0, ..Workload::default() }).is_err());
    }
}
