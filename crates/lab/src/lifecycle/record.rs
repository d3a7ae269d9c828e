//! What a lab writes down about itself, and the lock that says that it runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::paths::LabPaths;
use crate::plan::LabOptions;

/// Contents of `lab.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub options: LabOptions,
    /// Of the daemon.
    pub pid: u32,
    /// Of the API, for clients on this machine.
    pub url: String,
    /// RFC 3339.
    pub started: String,
}

#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{path} is not what a lab writes: {source}")]
    Content {
        path: PathBuf,
        source: serde_json::Error,
    },
}

impl Record {
    /// # Errors
    /// If the file is not there or not a record.
    pub fn read(paths: &LabPaths) -> Result<Self, RecordError> {
        let path = paths.lab_file();
        let bytes = fs::read(&path).map_err(|source| RecordError::Io {
            path: path.clone(),
            source,
        })?;
        serde_json::from_slice(&bytes).map_err(|source| RecordError::Content { path, source })
    }

    /// Replaces the file at once: readers see the old one or the new one.
    ///
    /// # Errors
    /// What the file system said.
    pub fn write(&self, paths: &LabPaths) -> Result<(), RecordError> {
        let path = paths.lab_file();
        let temporary = path.with_extension("json.new");
        // Strings and numbers under string keys: cannot fail.
        let bytes = serde_json::to_vec_pretty(self).unwrap_or_default();
        fs::write(&temporary, bytes)
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|source| RecordError::Io { path, source })
    }
}

/// Held from the start of `up` until the daemon ends, however it ends.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes the lock of the lab at `paths`, whose directory is made if it is
    /// not there. `None` if someone holds it.
    ///
    /// # Errors
    /// If the directory or file cannot be made.
    pub fn take(paths: &LabPaths) -> io::Result<Option<Self>> {
        let path = paths.lock();
        loop {
            fs::create_dir_all(paths.root())?;
            let file = match open(&path, true) {
                Ok(file) => file,
                // `down` removed the directory in between.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let Some(lock) = lock(file)? else {
                return Ok(None);
            };
            // A lock on a file that `down` has removed protects nothing.
            let held = lock.metadata()?;
            if fs::metadata(&path)
                .is_ok_and(|now| now.ino() == held.ino() && now.dev() == held.dev())
            {
                return Ok(Some(Self(lock)));
            }
        }
    }

    /// The open file, for the daemon: the lock lasts until the last copy closes.
    ///
    /// # Errors
    /// If file descriptors are used up.
    pub fn share(&self) -> io::Result<OwnedFd> {
        Ok(self.0.try_clone()?.into())
    }
}

/// How a lab of some name stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing is known of it.
    Absent,
    /// Its processes ended, its objects are there.
    Dead,
    /// Its daemon lives, or `up` is under way.
    Running,
}

/// # Errors
/// If the lock cannot be tried.
pub fn state(paths: &LabPaths) -> io::Result<State> {
    if !paths.root().exists() {
        return Ok(State::Absent);
    }
    match open(&paths.lock(), false) {
        Ok(file) => Ok(if lock(file)?.is_some() {
            State::Dead
        } else {
            State::Running
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(State::Dead),
        Err(error) => Err(error),
    }
}

/// Names of the labs that have a directory, sorted.
pub fn labs() -> Vec<String> {
    let entries = fs::read_dir(LabPaths::base())
        .into_iter()
        .flatten()
        .flatten();
    let mut names: Vec<_> = entries
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    File::options()
        .read(true)
        .write(true)
        .create(create)
        .truncate(false)
        .open(path)
}

/// The lock is the open file's (flock(2)): it lasts until the last copy of the
/// descriptor closes, in whichever process.
fn lock(file: File) -> io::Result<Option<File>> {
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}
