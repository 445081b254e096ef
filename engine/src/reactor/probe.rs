//! What this machine's kernel can do.

/// This machine cannot run a reactor; says in one sentence what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct CannotRun(pub String);

/// What was found usable.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Features {
    /// One line for each feature that is absent and what is done instead.
    pub notes: Vec<String>,
}

/// Tries out what a reactor needs.
///
/// # Errors
/// The machine cannot run one.
pub fn probe() -> Result<Features, CannotRun> {
    Ok(Features::default())
}
