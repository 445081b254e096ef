//! An access log as servers write them: made from a seed, every line different, a client's address as its key.

use corelog_tests::chance::Chance;
use std::io::{BufWriter, Write};
use std::path::Path;

/// Writes lines until there are at least `bytes`. Answers how many lines.
pub(crate) fn write_access_log(path: &Path, seed: u64, bytes: u64) -> std::io::Result<u64> {
    const METHODS: [&str; 4] = ["GET", "GET", "POST", "HEAD"];
    const STATUSES: [u16; 6] = [200, 200, 200, 304, 404, 500];
    let mut chance = Chance(seed);
    let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(path)?);
    let (mut lines, mut written, mut line) = (0, 0, Vec::new());
    while written < bytes {
        let client = chance.below(20_000);
        let (method, status) = (METHODS[chance.below(4) as usize], STATUSES[chance.below(6) as usize]);
        line.clear();
        writeln!(
            line,
            "10.{}.{}.{} - - [2026-01-{:02}T{:02}:{:02}:{:02}Z] \"{method} /shop/{:x}/item-{} HTTP/1.1\" {status} {} \
             \"Mozilla/5.0 (X11; Linux x86_64) {:016x}\" req={lines}",
            client >> 16,
            (client >> 8) & 255,
            client & 255,
            1 + lines / 86_400 % 28,
            lines / 3600 % 24,
            lines / 60 % 60,
            lines % 60,
            chance.below(1 << 32),
            chance.below(100_000),
            chance.below(1 << 20),
            chance.draw(),
        )?;
        out.write_all(&line)?;
        lines += 1;
        written += line.len() as u64;
    }
    out.into_inner()?.sync_all()?;
    Ok(lines)
}

/// The key of a line: everything up to the first blank.
pub(crate) fn key_of(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b' ').next().unwrap_or_default()
}

/// The number at the end of a line.
pub(crate) fn number_of(line: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(line).ok()?;
    text.rsplit_once("req=")?.1.parse().ok()
}
