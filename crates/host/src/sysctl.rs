//! Settings of the kernel's network stack.

use std::io;
use std::path::PathBuf;

use crate::netns::Netns;

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("sysctl {name}: {source}")]
pub struct Error {
    pub name: String,
    pub source: io::Error,
}

/// Sets `name` (with slashes, as under `/proc/sys`: interface names contain
/// dots) in the calling thread's network namespace. A setting that has the
/// value already is not written, so that a read-only `/proc/sys` does no harm.
///
/// # Errors
/// If there is no such setting, or it has another value and cannot be written.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    let failed = |source| Error {
        name: name.to_owned(),
        source,
    };
    // `net` is the namespace of the thread that opens the file.
    let path = PathBuf::from("/proc/sys").join(name);
    if std::fs::read_to_string(&path).map_err(failed)?.trim_end() == value {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(failed)
}

/// As [`set`], for several settings in `netns`.
///
/// # Errors
/// The first setting that fails; the later ones are not tried.
pub fn set_in(netns: &Netns, settings: &[(&str, &str)]) -> Result<(), Error> {
    netns
        .run(|| {
            settings
                .iter()
                .try_for_each(|(name, value)| set(name, value))
        })
        .map_err(|source| Error {
            name: "(entering the namespace)".to_owned(),
            source,
        })?
}
