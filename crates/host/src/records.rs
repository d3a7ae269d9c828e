//! Which attachments this node has, in files that outlive the agent.
//!
//! A record is written before anything of its pod is made and removed after the
//! last of it is gone. Whenever the agent is killed, the next one thus finds
//! every address that may be in use and every link that may be half-made.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use ripstop_model::LocalPod;
use serde::{Deserialize, Serialize};

/// What must be known to check or undo an attachment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// `host_ifindex` is 0 in the file: the link is made after it is written.
    pub pod: LocalPod,
    /// Interface inside the pod.
    pub ifname: String,
    /// Path of the pod's network namespace.
    pub netns: PathBuf,
    /// Of the link, bytes.
    pub mtu: u32,
    /// Name of the CNI network that made it.
    pub network: String,
    /// The pod's search list for names; empty if the runtime did not tell.
    #[serde(default)]
    pub search: Vec<String>,
    /// Name that the node's end had, if another plugin made the link and it was taken
    /// over; `network` is the other one's then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_from: Option<String>,
}

impl Record {
    fn file_name(&self) -> String {
        format!("{}-{}.json", self.pod.container_id, self.ifname)
    }
}

/// The directory of records; one agent at a time has it.
#[derive(Debug)]
pub struct Records {
    directory: PathBuf,
    _lock: File,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("pod records {directory}: another agent uses them")]
    Locked { directory: PathBuf },
    #[error("{operation} {path}: {source}")]
    Io {
        operation: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl Error {
    fn io(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            operation,
            path,
            source,
        }
    }
}

const LOCK: &str = ".lock";
/// Suffix of files that are being written.
const UNFINISHED: &str = ".new";

impl Records {
    /// Takes the directory, which is made if it is not there.
    ///
    /// # Errors
    /// [`Error::Locked`] while another process has it.
    pub fn open(directory: impl Into<PathBuf>) -> Result<Self, Error> {
        let directory = directory.into();
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(Error::io("make directory", &directory))?;
        let path = directory.join(LOCK);
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                directory,
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked { directory }),
            Err(TryLockError::Error(source)) => Err(Error::Io {
                operation: "lock",
                path,
                source,
            }),
        }
    }

    /// All records, the oldest first. One that cannot be read is reported and
    /// removed: its pod cannot be known any more.
    ///
    /// # Errors
    /// If the directory cannot be listed.
    pub fn load(&self) -> Result<Vec<Record>, Error> {
        let failed = |source| Error::io("list", &self.directory)(source);
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let path = entry.path();
            if entry.file_name() == LOCK {
                continue;
            }
            match read(&path) {
                Ok(record) => {
                    let written = entry.metadata().and_then(|data| data.modified()).ok();
                    found.push((written, record));
                }
                Err(reason) => {
                    tracing::warn!(path = %path.display(), reason, "removing pod record");
                    remove(&path)?;
                }
            }
        }
        found.sort_by_key(|(written, _)| *written);
        Ok(found.into_iter().map(|(_, record)| record).collect())
    }

    /// Writes a record whole or not at all. Not synced to the disk: after a
    /// loss of power there is no pod either.
    ///
    /// # Errors
    /// If the file system is full or read-only.
    pub fn write(&self, record: &Record) -> Result<(), Error> {
        let path = self.directory.join(record.file_name());
        let unfinished = path.with_extension("json.new");
        debug_assert!(unfinished.to_string_lossy().ends_with(UNFINISHED));
        let bytes = serde_json::to_vec(record)
            .map_err(|error| Error::io("encode", &path)(io::Error::other(error)))?;
        fs::write(&unfinished, bytes).map_err(Error::io("write", &unfinished))?;
        fs::rename(&unfinished, &path).map_err(Error::io("rename to", &path))
    }

    /// Forgets an attachment; one that is forgotten already is no error.
    ///
    /// # Errors
    /// If the file system is read-only.
    pub fn remove(&self, record: &Record) -> Result<(), Error> {
        remove(&self.directory.join(record.file_name()))
    }
}

fn read(path: &Path) -> Result<Record, String> {
    if path.to_string_lossy().ends_with(UNFINISHED) {
        // Nothing of its pod was made yet.
        return Err("its writing was cut short".to_owned());
    }
    let bytes = fs::read(path).map_err(|error| error.to_string())?;
    serde_json::from_slice(&bytes).map_err(|error| error.to_string())
}

fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ripstop_model::{Mac, ObjectKey};

    use super::*;

    fn record(container_id: &str) -> Record {
        Record {
            pod: LocalPod {
                pod: ObjectKey {
                    namespace: "shop".to_owned(),
                    name: "cart".to_owned(),
                },
                uid: None,
                container_id: container_id.to_owned(),
                addresses: vec!["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
                host_ifindex: 0,
                host_ifname: "rs0".to_owned(),
                mac: Mac([2, 0, 0, 0, 0, 1]),
                host_ports: Vec::new(),
            },
            ifname: "eth0".to_owned(),
            netns: "/run/netns/x".into(),
            mtu: 1500,
            network: "ripstop".to_owned(),
            search: Vec::new(),
            taken_from: None,
        }
    }

    #[test]
    fn records_come_back_and_damaged_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path().join("pods")).unwrap();
        let (a, b) = (record("a"), record("b"));
        for record in [&a, &b, &a] {
            records.write(record).unwrap();
        }
        let pods = directory.path().join("pods");
        fs::write(pods.join("c-eth0.json"), b"{\"pod\":").unwrap();
        fs::write(
            pods.join("d-eth0.json.new"),
            serde_json::to_vec(&a).unwrap(),
        )
        .unwrap();
        assert!(matches!(Records::open(&pods), Err(Error::Locked { .. })));
        drop(records);

        let records = Records::open(&pods).unwrap();
        let mut found = records.load().unwrap();
        found.sort_by(|a, b| a.pod.container_id.cmp(&b.pod.container_id));
        assert_eq!(found, [a.clone(), b.clone()]);
        records.remove(&a).unwrap();
        records.remove(&a).unwrap();
        assert_eq!(records.load().unwrap(), [b]);
        assert_eq!(
            fs::read_dir(&pods).unwrap().count(),
            2,
            "one record and the lock"
        );
    }
}
