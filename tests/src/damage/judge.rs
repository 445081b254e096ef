//! What became of damage: harmless, mended, or told. Everything else is a failure: a panic, a wrong record, silence, or a
//! partition that suffers for another one's file.

use super::node::{Node, Seen, Shards};
use super::site::{Expected, Site};
use corelog_engine::log::dump::{Finding, Remedy, Severity};
use corelog_engine::log::paths;
use corelog_engine::model::PartitionId;
use corelog_engine::shard::Command;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How damage ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// All is served, and the verification says nothing: the bytes mean nothing.
    Harmless,
    /// All is served, and the verification names the file: the server helps itself.
    Mended,
    /// A partition is fenced, or the start refused, with a sentence that names the file, and so does the verification.
    Told,
    /// What nothing says was acknowledged is cut off as torn; start and verification name the file and say so.
    CutOff,
}

/// What a start on damaged files showed.
#[derive(Debug)]
pub(super) struct Look {
    /// Why the node did not start.
    refused: Option<String>,
    /// By topic and partition; nothing where there is none.
    partitions: BTreeMap<(&'static str, u32), Option<Seen>>,
    /// Why topics cannot be made.
    metadata: Option<String>,
    deleted_is_back: bool,
    /// The files that are there then.
    files: BTreeSet<PathBuf>,
}

/// Starts the node on the damaged files, looks at everything, kills it, and does so again: what was told once must stay so.
///
/// # Errors
/// What must never be: a panic, garbage, a read without end.
pub(super) fn look_twice(site: &Site, node: &Node) -> Result<[Look; 2], String> {
    let looked = catch_unwind(AssertUnwindSafe(|| {
        let first = look(site, node)?;
        node.kill();
        let second = look(site, node)?;
        node.kill();
        Ok([first, second])
    }));
    looked.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}

fn look(site: &Site, node: &Node) -> Result<Look, String> {
    let shards = match node.start() {
        Ok(shards) => shards,
        Err(why) => {
            let (partitions, metadata, files) = (BTreeMap::new(), None, node.paths());
            return Ok(Look { refused: Some(why), partitions, metadata, deleted_is_back: false, files });
        }
    };
    let mut partitions = BTreeMap::new();
    for (name, index) in site.expected.keys() {
        let seen = node.look(&shards, name, *index).transpose();
        partitions.insert((*name, *index), seen.map_err(|why| format!("{name}/{index}: {why}"))?);
    }
    let deleted_is_back = shards.open(site.deleted, 0).is_some();
    let metadata = make_topic(node, &shards)?;
    Ok(Look { refused: None, partitions, metadata, deleted_is_back, files: node.paths() })
}

/// Makes a topic that was not there, and takes it away again.
fn make_topic(node: &Node, shards: &Shards) -> Result<Option<String>, String> {
    let name = || "probe".to_owned();
    for command in [
        Command::CreateTopic { name: name(), partitions: 1, settings: Vec::new() },
        Command::DeleteTopic { name: name() },
    ] {
        let wish = shards.first().clone();
        match node.finish(shards.first(), async move { wish.command(command).await }) {
            Some(Ok(())) => {}
            Some(Err(why)) => return Ok(Some(why.to_string())),
            None => return Err("a topic is never made".into()),
        }
    }
    Ok(None)
}

/// What starts on damaged files, and the verification of them, come to.
pub(super) struct Judgement<'a> {
    pub(super) site: &'a Site,
    /// The damaged file, below the data directory.
    pub(super) path: &'a Path,
    /// What the verification says of it, and not of the whole files; or why it does not look.
    pub(super) findings: Result<Vec<Finding>, String>,
    /// Where it looked.
    pub(super) root: &'a Path,
}

/// How one start fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fared {
    Whole,
    Told,
    Silent,
}

impl Judgement<'_> {
    pub(super) fn judge(&self, looks: &[Look; 2]) -> Result<Verdict, String> {
        let first = self.start(&looks[0], true).map_err(|why| format!("at the first start: {why}"))?;
        let second = self.start(&looks[1], false).map_err(|why| format!("at the second start: {why}"))?;
        if first == Fared::Told && second == Fared::Silent {
            return Err("what was told at the first start is not told at the second".into());
        }
        if first == Fared::Whole && second != Fared::Whole {
            return Err(format!("all was served at the first start, and at the second not: {:?}", looks[1]));
        }
        let findings = match &self.findings {
            Ok(findings) => findings,
            Err(why) => return Err(format!("the verification does not look: {why}")),
        };
        let names =
            |finding: &&Finding| finding.path.starts_with(self.root.join(self.path)) || self.is_above(&finding.path);
        let named: Vec<&Finding> = findings.iter().filter(names).collect();
        let worst = named.iter().map(|finding| finding.severity).max();
        let is_quiet = findings.iter().all(|finding| finding.severity == Severity::Note);
        match (first, worst) {
            // A checkpoint that is gone as if it had not been taken: the journal has it all still.
            (Fared::Whole, None) if is_quiet => Ok(Verdict::Harmless),
            (Fared::Whole, Some(Severity::Note | Severity::Warning)) => Ok(Verdict::Mended),
            (Fared::Whole, _) => Err(format!("all is served, and the verification says {}", self.said())),
            (Fared::Told, Some(Severity::Error)) => Ok(Verdict::Told),
            (Fared::Told, _) => Err(format!("it is told ({looks:?}), and the verification says {}", self.said())),
            (Fared::Silent, _) if named.iter().any(|finding| finding.remedy == Remedy::CutOff) => Ok(Verdict::CutOff),
            (Fared::Silent, _) => Err(format!("silence: {:?}; the verification says {}", looks[0], self.said())),
        }
    }

    fn is_above(&self, path: &Path) -> bool {
        path.is_dir() && path != self.root && self.root.join(self.path).starts_with(path)
    }

    fn said(&self) -> String {
        let said: Vec<String> = self.findings.iter().flatten().map(Finding::to_string).collect();
        if said.is_empty() { "nothing".into() } else { said.join("; ") }
    }

    /// `names_file`: the sentences must name it. Of a loss found earlier the offset is told.
    fn start(&self, look: &Look, names_file: bool) -> Result<Fared, String> {
        self.keeps_all(look)?;
        if let Some(why) = &look.refused {
            return self.names(why, names_file).map(|()| Fared::Told);
        }
        let mut fared = match &look.metadata {
            Some(why) => self.names(why, names_file).map(|()| Fared::Told)?,
            None => Fared::Whole,
        };
        if look.deleted_is_back && fared == Fared::Whole {
            fared = Fared::Silent;
        }
        for (key, expected) in &self.site.expected {
            let partition = match look.partitions.get(key).and_then(Option::as_ref) {
                Some(seen) => {
                    self.partition(*key, expected, seen, names_file).map_err(|why| format!("{key:?}: {why}"))?
                }
                // Topics are known as far as the metadata log can be read; where it is fenced, that is told.
                None if look.metadata.is_some() => Fared::Told,
                None => Fared::Silent,
            };
            fared = fared.max(partition);
        }
        Ok(fared)
    }

    /// No segment goes but the damaged one: what is in it was acknowledged, whether or not the server knows that still.
    fn keeps_all(&self, look: &Look) -> Result<(), String> {
        let is_segment =
            |path: &&PathBuf| path.starts_with(paths::TOPICS) && path.extension().is_some_and(|it| it == "log");
        let mut segments = self.site.files.keys().filter(is_segment);
        match segments.find(|path| *path != self.path && !look.files.contains(*path)) {
            Some(path) => Err(format!("{} is gone", path.display())),
            None => Ok(()),
        }
    }

    fn partition(
        &self,
        key: (&'static str, u32),
        expected: &Expected,
        seen: &Seen,
        names_file: bool,
    ) -> Result<Fared, String> {
        for ((offset, id), next) in seen.records.iter().zip(seen.first..) {
            if *offset != next || expected.records.get(*offset as usize) != Some(id) {
                return Err(format!("a wrong record: {id:?} at offset {offset}, where {next} is next"));
            }
        }
        let end = seen.first + seen.records.len() as i64;
        let is_whole = seen.first == expected.first && end == expected.records.len() as i64;
        match seen.fenced.as_ref().or(seen.stopped.as_ref()) {
            Some(why) => {
                if let Some(owner) = self.owner().filter(|owner| *owner != key) {
                    return Err(format!("it is fenced for a file of {owner:?}: {why}"));
                }
                self.names(why, names_file).map(|()| Fared::Told)
            }
            None => Ok(if is_whole { Fared::Whole } else { Fared::Silent }),
        }
    }

    /// The partition whose own file is damaged.
    fn owner(&self) -> Option<(&'static str, u32)> {
        let mut parts = self.path.iter().map(|part| part.to_string_lossy());
        if parts.next()? != "topics" {
            return None;
        }
        let (topic, index) = (paths::parse_topic_name(&parts.next()?)?, paths::parse_partition_name(&parts.next()?)?);
        self.site.ids.get(&PartitionId { topic, index }).copied()
    }

    fn names(&self, why: &str, must: bool) -> Result<(), String> {
        let path: PathBuf = Path::new(super::node::DATA).join(self.path);
        let directory = path.parent().unwrap_or(&path);
        let names = why.contains(&*path.to_string_lossy()) || why.contains(&*directory.to_string_lossy());
        if names || !must { Ok(()) } else { Err(format!("what is told does not name the file: {why}")) }
    }
}
