//! Standard error put away: what servers say of each of a million misfortunes would fill a disk.

use std::fs::File;

/// From now on nothing that this process writes to standard error is seen.
///
/// # Errors
/// When the system refuses.
pub(crate) fn hush() -> Result<(), String> {
    let nothing = File::options().write(true).open("/dev/null").map_err(|error| error.to_string())?;
    nix::unistd::dup2_stderr(&nothing).map_err(|error| error.to_string())
}
