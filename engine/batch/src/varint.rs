//! Zigzag varints: seven bits a byte, least significant first, at most 5 bytes for 32 bits and 10 for 64.

/// Takes one 64-bit number off the front of `bytes`. None where they end too soon or more than 64 bits are there.
pub(crate) fn take_i64(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        let bits = u64::from(byte & 0x7f);
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= bits << shift;
        if byte < 0x80 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Takes one 32-bit number off the front of `bytes`. None where they end too soon or more than 32 bits are there.
pub(crate) fn take_i32(bytes: &mut &[u8]) -> Option<i32> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        *bytes = rest;
        return Some(i32::from(first >> 1) ^ -i32::from(first & 1));
    }
    let before = bytes.len();
    let value = take_i64(bytes)?;
    if before - bytes.len() > 5 {
        return None;
    }
    i32::try_from(value).ok()
}

pub(crate) fn put(out: &mut Vec<u8>, value: i64) {
    let mut bits = zigzag(value);
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

/// Bytes that [`put`] would write.
pub(crate) fn length(value: i64) -> usize {
    let significant = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    significant.div_ceil(7)
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn published_examples() {
        // Protocol buffers' encoding guide, which the format refers to for its varints.
        let table: [(i64, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-2, &[3]),
            (150, &[0xac, 0x02]),
            (0x7fff_ffff, &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (-0x8000_0000, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ];
        for (value, bytes) in table {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
            assert_eq!(take_i32(&mut &*out), Some(value as i32));
        }
    }

    #[test]
    fn too_long_or_too_short_is_none() {
        assert_eq!(take_i32(&mut [0x80; 4].as_slice()), None);
        assert_eq!(take_i32(&mut [0xff, 0xff, 0xff, 0xff, 0x1f].as_slice()), None);
        assert_eq!(take_i32(&mut [0x80, 0x80, 0x80, 0x80, 0x80, 0x00].as_slice()), None);
        assert_eq!(take_i64(&mut [0xff; 10].as_slice()), None);
        assert_eq!(take_i64(&mut [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02].as_slice()), None);
    }

    proptest! {
        #[test]
        fn round_trip(value: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), length(value));
            let mut rest = out.as_slice();
            prop_assert_eq!(take_i64(&mut rest), Some(value));
            prop_assert!(rest.is_empty());
        }
    }
}
