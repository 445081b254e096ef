//! Which bytes of the files mean something, as `dump-log` shows them: damage there must be noticed. The others are:
//!
//! - segments behind their last batch, and checkpoint files behind their last group: space reserved ahead;
//! - the journal before the entry from which on the checkpoint needs it, and behind its last entry;
//! - what of a segment an entry of the journal carries too: a start writes it again;
//! - the lock file: it has none.

use corelog_engine::log::dump::{Line, Options, Value, dump};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// By file, below the data directory.
#[derive(Debug, Default)]
pub(super) struct Meaning {
    ranges: BTreeMap<PathBuf, Vec<Range<usize>>>,
    /// What the journal carries of segments.
    carried: BTreeMap<PathBuf, Vec<Range<usize>>>,
}

impl Meaning {
    /// Of the whole files below `root`.
    pub(super) fn of(root: &Path) -> Meaning {
        let (mut meaning, mut path) = (Meaning::default(), PathBuf::new());
        let shown = dump(root, Options::default(), &mut |line| {
            if let Some(Value::Text(text)) = field(&line, "path") {
                path = Path::new(text).strip_prefix(root).expect("a file below the root").to_owned();
            }
            meaning.take(&path, &line);
            Ok(())
        });
        shown.expect("whole files can be shown");
        meaning.add("node".into(), 0..usize::MAX);
        meaning
    }

    fn take(&mut self, path: &Path, line: &Line) {
        let range = |from: &str| number(line, from)..number(line, from) + number(line, "bytes");
        match line.what {
            "index" => self.add(path.to_owned(), 0..number(line, "bytes")),
            "header" if is_checkpoint(path) => self.add(path.to_owned(), 0..super::BLOCK),
            "group" | "entry" => self.add(path.to_owned(), range("at")),
            "batch" => self.add(path.to_owned(), range("position")),
            "append" => self.carry(line),
            _ => {}
        }
    }

    fn add(&mut self, path: PathBuf, range: Range<usize>) {
        self.ranges.entry(path).or_default().push(range);
    }

    fn carry(&mut self, line: &Line) {
        let Some(Value::Text(partition)) = field(line, "partition") else { return };
        let path = Path::new("topics").join(partition).join(format!("{:020}.log", number(line, "segment")));
        let carried = self.carried.entry(path).or_default();
        carried.push(number(line, "inline-from")..number(line, "direct-from"));
        // The last block is written whole.
        carried.push(number(line, "direct-to")..number(line, "end").next_multiple_of(super::BLOCK));
    }

    /// Whether a byte means something.
    pub(super) fn has(&self, path: &Path, position: usize) -> bool {
        let within = |ranges: &BTreeMap<PathBuf, Vec<Range<usize>>>| {
            ranges.get(path).is_some_and(|ranges| ranges.iter().any(|range| range.contains(&position)))
        };
        within(&self.ranges) && !within(&self.carried)
    }
}

fn is_checkpoint(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("checkpoint-"))
}

fn field<'a>(line: &'a Line, name: &str) -> Option<&'a Value> {
    line.fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value)
}

fn number(line: &Line, name: &str) -> usize {
    match field(line, name) {
        Some(Value::Number(number)) => usize::try_from(*number).expect("a position in a file"),
        other => panic!("{line} has {other:?} for {name}"),
    }
}
