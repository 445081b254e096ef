//! Which partition a record goes to: as Apache Kafka's default, so that both dialects send a key to the same place.

/// Murmur2 with the seed and the little-endian reading of Kafka's `Utils.murmur2`, as the signed number of Java.
pub fn murmur2(data: &[u8]) -> i32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let (words, tail) = data.as_chunks::<4>();
    // The length is cast as Java's int is; keys are far shorter.
    let mut hash = SEED ^ data.len() as u32;
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k = (k ^ (k >> 24)).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    if !tail.is_empty() {
        let tail = tail.iter().rev().fold(0, |tail, &byte| tail << 8 | u32::from(byte));
        hash = (hash ^ tail).wrapping_mul(M);
    }
    hash = (hash ^ (hash >> 13)).wrapping_mul(M);
    (hash ^ (hash >> 15)) as i32
}

/// The partition of `key` among `partitions`, of which there is at least one.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & i32::MAX) as u32 % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `UtilsTest.testMurmur2` of Apache Kafka.
    #[test]
    fn published_hashes() {
        let table: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in table {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_negative_hash_loses_its_sign_only() {
        assert_eq!(partition_of(b"foobar", 1000), ((-790_332_482_i32 & i32::MAX) % 1000) as u32);
        assert_eq!(partition_of(b"abc", 8), 479_470_107 % 8);
        assert!((0..5000_u32).all(|key| partition_of(&key.to_be_bytes(), 7) < 7));
    }
}
