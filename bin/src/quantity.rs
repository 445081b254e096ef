//! Numbers, sizes and durations as people type them.

use std::ops::RangeBounds;
use std::str::FromStr;
use std::time::Duration;

/// A reader of whole numbers within `allowed`; `what` says which those are.
pub(crate) fn number<T: FromStr + PartialOrd>(
    allowed: impl RangeBounds<T> + Clone,
    what: &'static str,
) -> impl Fn(&str) -> Result<T, String> + Clone {
    move |text| text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| format!("it must be {what}"))
}

/// Reads the number of a partition.
pub(crate) fn partition(text: &str) -> Result<u32, String> {
    number(0.., "the number of a partition, from 0")(text)
}

/// Reads a size in bytes: `65536`, `64KiB`, `64K`, `1MiB`, `1G`. Every unit is a power of 1024.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let shift = match unit {
        "" | "B" => 0,
        "K" | "KiB" => 10,
        "M" | "MiB" => 20,
        "G" | "GiB" => 30,
        "T" | "TiB" => 40,
        _ => return Err(not_a_size(text)),
    };
    let number: u64 = number.parse().map_err(|_| not_a_size(text))?;
    number.checked_mul(1 << shift).ok_or_else(|| not_a_size(text))
}

/// Reads a duration: `0`, `250us`, `5ms`, `2s`, `10m`, `1h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration; write it like 5ms, 2s, 10m, 1h or 7d");
    let (number, unit) = split(text);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let (seconds, micros) = match unit {
        "us" => (0, 1),
        "ms" => (0, 1_000),
        "s" => (1, 0),
        "m" => (60, 0),
        "h" => (3_600, 0),
        "d" => (86_400, 0),
        "" if number == 0 => (0, 0),
        _ => return Err(wrong()),
    };
    match micros {
        0 => number.checked_mul(seconds).map(Duration::from_secs),
        micros => number.checked_mul(micros).map(Duration::from_micros),
    }
    .ok_or_else(wrong)
}

fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn not_a_size(text: &str) -> String {
    format!("`{text}` is not a size; write it like 65536, 64KiB, 1MiB or 1G")
}

/// A size as [`size`] reads it, in the largest unit that divides it.
pub(crate) fn exact_size(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let fits = units.into_iter().find(|(shift, _)| bytes > 0 && bytes.is_multiple_of(1 << shift));
    fits.map_or_else(|| bytes.to_string(), |(shift, unit)| format!("{}{unit}", bytes >> shift))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let read = ["0", "65536", "64KiB", "64K", "3MiB", "1G", "2T"].map(|text| size(text).unwrap());
        assert_eq!(read, [0, 65536, 65536, 65536, 3 << 20, 1 << 30, 2 << 40]);
        for text in ["", "K", "1.5G", "-1", "1 K", "1KB", "99999999999T", "18446744073709551616"] {
            assert_eq!(size(text), Err(not_a_size(text)));
        }
    }

    #[test]
    fn sizes_are_shown_so_that_they_can_be_read_again() {
        for bytes in [0, 1, 1000, 1024, 65536, 3 << 20, 1 << 30, (1 << 30) + 1024, 5 << 40] {
            assert_eq!(size(&exact_size(bytes)), Ok(bytes));
        }
        assert_eq!(exact_size(1 << 30), "1GiB");
    }

    #[test]
    fn numbers() {
        let read = number(1..=1024_u16, "a number from 1 to 1024");
        assert_eq!(["1", "1024"].map(|text| read(text).unwrap()), [1, 1024]);
        for text in ["0", "1025", "70000", "-1", "x", ""] {
            assert_eq!(read(text).unwrap_err(), "it must be a number from 1 to 1024");
        }
        assert_eq!(partition("0"), Ok(0));
    }

    #[test]
    fn durations() {
        let read = ["0", "250us", "5ms", "2s", "10m", "1h", "7d"].map(|text| duration(text).unwrap().as_micros());
        assert_eq!(read, [0, 250, 5_000, 2_000_000, 600_000_000, 3_600_000_000, 604_800_000_000]);
        for text in ["", "5", "ms", "1.5s", "-1s", "5 ms", "5MS", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(text).unwrap_err().contains("write it like 5ms"), "{text}");
        }
    }
}
