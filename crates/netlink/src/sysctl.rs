//! Settings of the kernel's network stack.
//!
//! A container that is not privileged cannot write its own `/proc/sys`; the
//! manifests mount the node's `/proc/sys/net` at `/host/proc/sys/net`, and where
//! that is, it is what is meant. Whose settings these are is said by the thread,
//! not by the mount.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use crate::netns::Netns;

static ROOT: LazyLock<&Path> = LazyLock::new(|| {
    let host = Path::new("/host/proc/sys");
    match host.join("net").is_dir() {
        true => host,
        false => Path::new("/proc/sys"),
    }
});

/// A setting could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("sysctl {name}: {source}")]
pub struct Error {
    pub name: String,
    pub source: io::Error,
}

/// Reads `name` (with slashes, as under `/proc/sys`: interface names contain
/// dots) in the calling thread's network namespace.
///
/// # Errors
/// If there is no such setting.
pub fn get(name: &str) -> Result<String, Error> {
    let value = std::fs::read_to_string(path(name)).map_err(failed(name))?;
    Ok(value.trim_end().to_owned())
}

/// Sets `name` in the calling thread's network namespace. A setting that has
/// the value already is not written, so that a read-only `/proc/sys` does no harm.
///
/// # Errors
/// If there is no such setting, or it has another value and cannot be written.
pub fn set(name: &str, value: &str) -> Result<(), Error> {
    if get(name)? == value {
        return Ok(());
    }
    std::fs::write(path(name), value).map_err(failed(name))
}

/// `net` in it is the namespace of the thread that opens the file.
fn path(name: &str) -> PathBuf {
    ROOT.join(name)
}

fn failed(name: &str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error {
        name: name.to_owned(),
        source,
    }
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
