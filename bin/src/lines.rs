//! Cuts a stream of bytes into lines: any byte but the newline is part of the line and stays as it is.
//!
//! The last line needs no newline, a newline at the end of the stream adds no line, and an empty line is a line.

use memchr::memchr;

/// A splitter that is fed chunks. Holds at most one unfinished line of `line_bytes_max` bytes.
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
    /// Number of the line that is being read, from 1.
    number: u64,
    line_bytes_max: usize,
}

/// A line that cannot be a record: the caller must cut it or raise the limit.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {number} is longer than {line_bytes_max} bytes")]
pub(crate) struct LineTooLong {
    /// Its number, from 1.
    pub(crate) number: u64,
    line_bytes_max: usize,
}

impl Lines {
    pub(crate) fn new(line_bytes_max: usize) -> Lines {
        Lines { partial: Vec::new(), number: 1, line_bytes_max }
    }

    /// Gives every line that `chunk` completes to `each`. A line that lies within one chunk is not copied.
    pub(crate) fn feed<E: From<LineTooLong>>(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        while let Some(length) = memchr(b'\n', chunk) {
            let (line, rest) = (&chunk[..length], &chunk[length + 1..]);
            self.check(line.len())?;
            if self.partial.is_empty() {
                each(line)?;
            } else {
                self.partial.extend_from_slice(line);
                each(&self.partial)?;
                self.partial.clear();
            }
            self.number += 1;
            chunk = rest;
        }
        self.check(chunk.len())?;
        self.partial.extend_from_slice(chunk);
        Ok(())
    }

    /// The stream has ended: what is left is the last line.
    pub(crate) fn finish<E>(self, each: impl FnOnce(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.partial.is_empty() { Ok(()) } else { each(&self.partial) }
    }

    /// Before copying: the memory held is bounded by the limit, not by what is sent.
    fn check(&self, more: usize) -> Result<(), LineTooLong> {
        if self.partial.len() + more > self.line_bytes_max {
            return Err(LineTooLong { number: self.number, line_bytes_max: self.line_bytes_max });
        }
        Ok(())
    }
}

/// Splits a line at the first `separator` into key and value. Without a separator in it the line has no key.
pub(crate) fn key_and_value<'a>(line: &'a [u8], separator: Option<&[u8]>) -> (Option<&'a [u8]>, &'a [u8]) {
    let found = separator.and_then(|separator| Some((memchr::memmem::find(line, separator)?, separator.len())));
    match found {
        Some((at, length)) => (Some(&line[..at]), &line[at + length..]),
        None => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]], line_bytes_max: usize) -> Result<Vec<Vec<u8>>, LineTooLong> {
        let (mut lines, mut found) = (Lines::new(line_bytes_max), Vec::new());
        for chunk in chunks {
            lines.feed(chunk, |line| {
                found.push(line.to_vec());
                Ok::<_, LineTooLong>(())
            })?;
        }
        lines.finish(|line| {
            found.push(line.to_vec());
            Ok::<_, LineTooLong>(())
        })?;
        Ok(found)
    }

    #[test]
    fn ends_and_empty_lines() {
        assert_eq!(split(&[b""], 9).unwrap(), Vec::<Vec<u8>>::new());
        assert_eq!(split(&[b"\n"], 9).unwrap(), [b""]);
        assert_eq!(split(&[b"a\nb"], 9).unwrap(), [b"a", b"b"]);
        assert_eq!(split(&[b"a\nb\n"], 9).unwrap(), [b"a", b"b"]);
        assert_eq!(split(&[b"\n\na\r\n\0\xff\n"], 9).unwrap(), [&b""[..], b"", b"a\r", b"\0\xff"]);
        assert_eq!(split(&[b"a", b"b", b"\n", b"c"], 9).unwrap(), [&b"ab"[..], b"c"]);
    }

    #[test]
    fn a_line_over_the_limit_is_named_and_never_held() {
        assert_eq!(split(&[b"aaaa\nbbbb\n"], 4).unwrap().len(), 2);
        for chunks in [&[&b"aaaa\nbbbbb\n"[..]][..], &[b"aaaa\nbbb", b"bb\n"], &[b"aaaa\nbbbbb"]] {
            assert_eq!(split(chunks, 4).unwrap_err().to_string(), "line 2 is longer than 4 bytes");
        }
    }

    #[test]
    fn keys() {
        assert_eq!(key_and_value(b"k:v:w", Some(b":")), (Some(&b"k"[..]), &b"v:w"[..]));
        assert_eq!(key_and_value(b":v", Some(b":")), (Some(&b""[..]), &b"v"[..]));
        assert_eq!(key_and_value(b"kv", Some(b":")), (None, &b"kv"[..]));
        assert_eq!(key_and_value(b"k:v", None), (None, &b"k:v"[..]));
        assert_eq!(key_and_value(b"k=>v", Some(b"=>")), (Some(&b"k"[..]), &b"v"[..]));
    }

    proptest! {
        /// However the stream is cut into chunks, the lines are those of the whole.
        #[test]
        fn chunks_do_not_matter(
            bytes in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..200),
            cut in 1usize..20,
        ) {
            let chunks: Vec<&[u8]> = bytes.chunks(cut).collect();
            let mut whole: Vec<Vec<u8>> = bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
            if whole.last().is_some_and(Vec::is_empty) {
                whole.pop();
            }
            prop_assert_eq!(split(&chunks, 200).unwrap(), whole);
        }
    }
}
