//! Names for kernel objects that outlive the process.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::statfs::{FsType, statfs};

use super::sys;
use crate::Error;

const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// A directory on a BPF file system.
#[derive(Debug)]
pub(crate) struct Pins {
    directory: PathBuf,
}

impl Pins {
    /// # Errors
    /// [`Error::Unsupported`] if the directory is not on a BPF file system.
    pub(crate) fn open(directory: &Path) -> Result<Self, Error> {
        let show = directory.display();
        let hint = "mount one there: `mount -t bpf bpf DIR`";
        let kind = std::fs::create_dir_all(directory)
            .and_then(|()| Ok(statfs(directory)?.filesystem_type()))
            .map_err(|error| Error::Unsupported {
                reason: format!("{show}: {error}; {hint}"),
            })?;
        if kind != FsType(BPF_FS_MAGIC) {
            let reason = format!("{show} is not on a BPF file system; {hint}");
            return Err(Error::Unsupported { reason });
        }
        Ok(Self {
            directory: directory.to_owned(),
        })
    }

    /// The object of that name.
    pub(crate) fn get(&self, name: &str) -> Result<Option<OwnedFd>, Error> {
        sys::pinned(&self.path(name)).map_err(|e| self.failed("open", name, e))
    }

    /// Gives the object that name, in the place of any other.
    pub(crate) fn put(&self, name: &str, object: impl AsFd) -> Result<(), Error> {
        let new = self.path(&format!("new_{name}"));
        self.unlink(&new)
            .and_then(|()| sys::pin(object.as_fd(), &new))
            .and_then(|()| std::fs::rename(&new, self.path(name)))
            .map_err(|e| self.failed("pin", name, e))
    }

    /// Takes the name away; without other references the object ends.
    pub(crate) fn remove(&self, name: &str) -> Result<(), Error> {
        self.unlink(&self.path(name))
            .map_err(|e| self.failed("unpin", name, e))
    }

    /// Takes all names away that begin with `prefix`. Goes on after an error and
    /// gives the first.
    pub(crate) fn remove_all(&self, prefix: &str) -> Result<(), Error> {
        let names = self.with_prefix(prefix)?;
        let mut result = Ok(());
        for name in names {
            result = result.and(self.remove(&format!("{prefix}{name}")));
        }
        result
    }

    /// Names that begin with `prefix`, without it.
    pub(crate) fn with_prefix(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let names = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in std::fs::read_dir(&self.directory)? {
                let name = entry?.file_name();
                names.extend(
                    name.to_str()
                        .and_then(|n| n.strip_prefix(prefix))
                        .map(str::to_owned),
                );
            }
            Ok(names)
        };
        names().map_err(|e| self.failed("list", prefix, e))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn failed(&self, what: &str, name: &str, source: io::Error) -> Error {
        Error::Kernel {
            operation: format!("{what} {}", self.path(name).display()),
            source,
        }
    }
}
