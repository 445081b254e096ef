//! Where values come from: a flag, an environment variable, the settings file, the default, in this order. The file is TOML with the
//! same names as the flags, and nothing in it is ignored: a name that is none of ours is refused with the nearest one that is.

use super::table::{AUTO, Kind, OWN, Setting, all, nearest, setting_of_topics};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use toml::de::{DeTable, DeValue};

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    Flag(&'static str),
    Environment(String),
    /// The file as it was named, and the line, from 1.
    File(String, usize),
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Flag(name) if OWN.iter().any(|setting| setting.name == *name) => write!(f, "--{name}"),
            Source::Flag(_) => f.write_str("--set"),
            Source::Environment(name) => f.write_str(name),
            Source::File(file, line) => write!(f, "{file} line {line}"),
            Source::Default => f.write_str("default"),
        }
    }
}

/// What is wrong with the settings. The operator must change what the text names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingsError {
    #[error("cannot read the settings file {file}: {error}")]
    Unreadable { file: String, error: String },
    #[error("{file} line {line} is not TOML: {error}")]
    NotToml { file: String, line: usize, error: String },
    #[error("{file} line {line}: there is no setting `{name}`; did you mean `{nearest}`?")]
    Unknown { file: String, line: usize, name: String, nearest: &'static str },
    #[error("there is no setting `{name}` (--set); did you mean `{nearest}`?")]
    UnknownFlag { name: String, nearest: &'static str },
    #[error("--set {given}: it is NAME=VALUE, like num.partitions=3")]
    NoValue { given: String },
    #[error(
        "{name} ({source_of}) is not a setting of the server here: set `{of_topic}` of the topics that are to have it"
    )]
    OfTopics { name: String, source_of: Source, of_topic: &'static str },
    #[error("{name} = `{value}` ({source_of}) is not allowed: it must be {allowed}")]
    Value { name: &'static str, value: String, source_of: Source, allowed: String },
    #[error(
        "{name} = `{value}` ({source_of}) can be reached from other machines, and there is no authentication yet: listen on 127.0.0.1, or say --insecure"
    )]
    Reachable { name: &'static str, value: String, source_of: Source },
}

/// Every setting as text, with its source, before it is understood.
#[derive(Debug)]
pub(crate) struct Given(BTreeMap<&'static str, (String, Source)>);

impl Given {
    /// Gathers the settings. `flag` and `environment` answer for a name.
    pub(crate) fn gather(
        flag: impl Fn(&str) -> Option<String>,
        environment: impl Fn(&str) -> Option<String>,
        file: Option<(&str, &str)>,
    ) -> Result<Given, SettingsError> {
        let mut from_file = file.map_or_else(|| Ok(BTreeMap::new()), |(name, text)| parse(name, text))?;
        let choose = |setting: &Setting| {
            let name = setting.name;
            let variable = variable(name);
            let by_flag = flag(name).map(|value| (value, Source::Flag(name)));
            let by_file = from_file.remove(name);
            let chosen = by_flag
                .or_else(|| Some((environment(&variable).filter(|v| !v.is_empty())?, Source::Environment(variable))))
                .or(by_file)
                .unwrap_or_else(|| (setting.default.to_owned(), Source::Default));
            (name, chosen)
        };
        Ok(Given(all().map(choose).collect()))
    }

    /// The value of a setting, and whether nobody gave it.
    pub(super) fn value(&self, name: &str) -> Option<(String, bool)> {
        self.0.get(name).map(|(value, source)| (value.clone(), *source == Source::Default))
    }

    /// Says that an address is one that others can connect to.
    pub(super) fn reachable(&self, name: &'static str) -> SettingsError {
        let (value, source_of) = self.0[name].clone();
        SettingsError::Reachable { name, value, source_of }
    }

    pub(super) fn read<T>(
        &self,
        name: &'static str,
        allowed: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, SettingsError> {
        let (value, source_of) = &self.0[name];
        read(value).ok_or_else(|| SettingsError::Value {
            name,
            value: value.clone(),
            source_of: source_of.clone(),
            allowed: allowed.to_owned(),
        })
    }

    /// The settings in force as a settings file, with a remark where each came from. `chosen` gives the values that
    /// stand behind `auto`.
    pub(crate) fn print(&self, chosen: &[(&str, String)]) -> String {
        let assignments: Vec<(String, String)> = all().map(|setting| self.line(setting, chosen)).collect();
        let width = assignments.iter().map(|(assignment, _)| assignment.chars().count()).max().unwrap_or(0);
        assignments.iter().map(|(assignment, remark)| format!("{assignment:<width$}  # {remark}\n")).collect()
    }

    fn line(&self, setting: &Setting, chosen: &[(&str, String)]) -> (String, String) {
        let (given, source) = &self.0[setting.name];
        let choice = chosen.iter().find(|(name, _)| *name == setting.name && given == AUTO);
        let remark = if choice.is_some() { format!("{source}: {AUTO}") } else { source.to_string() };
        let value = choice.map_or(given, |(_, value)| value);
        let literal = match setting.kind {
            Kind::Number | Kind::Switch if value != AUTO => value.clone(),
            _ => toml::Value::from(value.as_str()).to_string(),
        };
        (format!("{} = {literal}", setting.name), remark)
    }
}

/// The values that `--set NAME=VALUE` gives, by name. The last one of a name wins.
pub(crate) fn parse_set(given: &[String]) -> Result<BTreeMap<&'static str, String>, SettingsError> {
    let one = |given: &String| {
        let (name, value) = given.split_once('=').ok_or_else(|| SettingsError::NoValue { given: given.clone() })?;
        let setting = find(name.trim(), &Source::Flag("set"))?;
        Ok((setting.name, value.trim().to_owned()))
    };
    given.iter().map(one).collect()
}

/// The setting of a name that is given there.
fn find(name: &str, source: &Source) -> Result<&'static Setting, SettingsError> {
    if let Some(of_topic) = setting_of_topics(name) {
        return Err(SettingsError::OfTopics { name: name.to_owned(), source_of: source.clone(), of_topic });
    }
    let (name, nearest) = (name.to_owned(), nearest(name));
    match (all().find(|setting| setting.name == name), source) {
        (Some(setting), _) => Ok(setting),
        (None, Source::File(file, line)) => {
            Err(SettingsError::Unknown { file: file.clone(), line: *line, name, nearest })
        }
        (None, _) => Err(SettingsError::UnknownFlag { name, nearest }),
    }
}

type FromFile = BTreeMap<&'static str, (String, Source)>;

fn parse(file: &str, text: &str) -> Result<FromFile, SettingsError> {
    let table = DeTable::parse(text).map_err(|error| SettingsError::NotToml {
        file: file.to_owned(),
        line: line_of(text, error.span().map_or(0, |span| span.start)),
        error: error.message().to_owned(),
    })?;
    let mut leaves = Vec::new();
    flatten("", table.get_ref(), &mut leaves);
    let entry = |(name, at, value): &Leaf| {
        // What is no table is one value, as it stands there.
        let value = text[value.clone()].parse().unwrap_or_else(|_| toml::Value::from(&text[value.clone()]));
        entry(file, line_of(text, *at), name, &value)
    };
    leaves.iter().map(entry).collect()
}

/// A setting's name, where it stands, and where its value does.
type Leaf = (String, usize, Range<usize>);

/// Dots in a name are tables in TOML.
fn flatten(prefix: &str, table: &DeTable<'_>, leaves: &mut Vec<Leaf>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(&format!("{name}."), inner, leaves),
            _ => leaves.push((name, key.span().start, value.span())),
        }
    }
}

fn line_of(text: &str, position: usize) -> usize {
    1 + text.as_bytes().iter().take(position).filter(|byte| **byte == b'\n').count()
}

fn entry(
    file: &str,
    line: usize,
    name: &str,
    value: &toml::Value,
) -> Result<(&'static str, (String, Source)), SettingsError> {
    let source = Source::File(file.to_owned(), line);
    let setting = find(name, &source)?;
    let text = match (setting.kind, value) {
        (Kind::Text | Kind::Number | Kind::Size, toml::Value::String(text)) => text.clone(),
        (Kind::Number | Kind::Size, toml::Value::Integer(number)) => number.to_string(),
        (Kind::Switch, toml::Value::Boolean(on)) => on.to_string(),
        (kind, value) => {
            let allowed = match kind {
                Kind::Text => "text in quotes",
                Kind::Number => "a number",
                Kind::Size => "a number of bytes, or a size in quotes",
                Kind::Switch => "true or false, without quotes",
            };
            let (value, allowed) = (value.to_string(), allowed.to_owned());
            return Err(SettingsError::Value { name: setting.name, value, source_of: source, allowed });
        }
    };
    Ok((setting.name, (text, source)))
}

/// What other commands, the proofs, or this one beside its settings, take from the environment.
const OTHER_VARIABLES: [&str; 4] = ["CORELOG_BIN", "CORELOG_BOOTSTRAP", "CORELOG_CONFIG", "CORELOG_KAFKA_BOOTSTRAP"];
/// Letters by which a slip may differ from what was meant. More is likelier to be a variable of somebody else's.
const SLIPS_MAX: usize = 2;

/// `data-dir` is CORELOG_DATA_DIR in the environment, and `num.partitions` is CORELOG_NUM_PARTITIONS.
fn variable(name: &str) -> String {
    format!("CORELOG_{}", name.to_uppercase().replace(['-', '.'], "_"))
}

/// A sentence for each variable of the environment that is none of ours and looks like a slip of one.
pub(crate) fn remarks_on_variables(variables: impl Iterator<Item = String>) -> Vec<String> {
    let known: Vec<String> =
        all().map(|setting| variable(setting.name)).chain(OTHER_VARIABLES.map(String::from)).collect();
    let remark = |given: String| {
        let slips = |known: &&String| strsim::damerau_levenshtein(known, &given);
        let nearest = known.iter().min_by_key(slips).filter(|known| (1..=SLIPS_MAX).contains(&slips(known)))?;
        Some(format!("{given} in the environment is no setting and has no effect; did you mean {nearest}?"))
    };
    variables.filter(|given| given.starts_with("CORELOG_")).filter_map(remark).collect()
}
