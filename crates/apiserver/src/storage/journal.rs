//! The file that objects survive in: one JSON line per write, in order.
//!
//! A line is written with one `write(2)` before the write is acknowledged, so
//! that it survives the death of the process (the page cache is the kernel's);
//! it is not synced, since a lab does not survive its machine. When most of the
//! file is history it is rewritten beside itself and renamed over.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// Below this size in bytes the file is never rewritten.
const COMPACT_FROM: u64 = 4 << 20;
/// Rewritten when it is this many times larger than the live objects.
const COMPACT_RATIO: u64 = 4;

/// Why a journal cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot open the journal {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the journal {path} is in use by another process")]
    InUse { path: PathBuf },
    #[error(
        "line {line} of the journal {path} is damaged: {source}; move the file away to start empty"
    )]
    Damaged {
        path: PathBuf,
        line: usize,
        source: serde_json::Error,
    },
}

/// One line.
#[derive(Debug, Deserialize)]
pub(super) struct Record {
    pub(crate) rv: u64,
    /// `pods`, `deployments.apps`; empty in the line that only says the revision.
    #[serde(default)]
    pub(crate) resource: String,
    #[serde(default)]
    pub(crate) object: Option<Value>,
    /// `[namespace, name]` of an object that was removed.
    #[serde(default)]
    pub(crate) removed: Option<(String, String)>,
}

/// What a write did, for the file.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    /// Nothing but the revision.
    Revision,
    /// The object as JSON.
    Put(&'a str, &'a [u8]),
    Removed(&'a str, &'a str, &'a str),
}

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    /// Bytes in the file.
    length: u64,
}

impl Journal {
    /// Opens or creates the file and hands each record to `replay`. A last line
    /// that was cut short (the process was killed while writing it) is dropped:
    /// its write was never acknowledged.
    pub(super) fn open(path: &Path, mut replay: impl FnMut(Record)) -> Result<Self, OpenError> {
        let io = |source| OpenError::Io {
            path: path.to_owned(),
            source,
        };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(io)?;
        lock(&file, path)?;
        let mut length = 0;
        let mut reader = BufReader::new(&mut file);
        let mut line = Vec::new();
        for number in 1.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line).map_err(io)?;
            if read == 0 || line.last() != Some(&b'\n') {
                break;
            }
            let record = serde_json::from_slice(&line).map_err(|source| OpenError::Damaged {
                path: path.to_owned(),
                line: number,
                source,
            })?;
            replay(record);
            length += u64::try_from(read).unwrap_or(u64::MAX);
        }
        file.set_len(length).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
        })
    }

    /// Appends one line. After an error the file is as it was before.
    pub(super) fn append(&mut self, revision: u64, entry: Entry<'_>) -> io::Result<()> {
        let mut line = Vec::with_capacity(256);
        encode(&mut line, revision, entry)?;
        if let Err(error) = self.file.write_all(&line) {
            self.file.set_len(self.length)?;
            self.file.seek(SeekFrom::End(0))?;
            return Err(error);
        }
        self.length += line.len() as u64;
        Ok(())
    }

    /// Whether rewriting is worth it; `live` is the size of all objects in bytes.
    pub(super) fn wants_compaction(&self, live: u64) -> bool {
        self.length > COMPACT_FROM && self.length > COMPACT_RATIO * live
    }

    /// Replaces the file by one that has only `entries`.
    pub(super) fn compact<'a>(
        &mut self,
        revision: u64,
        entries: impl Iterator<Item = (u64, Entry<'a>)>,
    ) -> io::Result<()> {
        let mut content = Vec::new();
        encode(&mut content, revision, Entry::Revision)?;
        for (at, entry) in entries {
            encode(&mut content, at, entry)?;
        }
        let beside = self.path.with_extension("journal.new");
        let mut file = File::create(&beside)?;
        file.try_lock()?;
        file.write_all(&content)?;
        std::fs::rename(&beside, &self.path)?;
        self.file = file;
        self.length = content.len() as u64;
        Ok(())
    }
}

fn lock(file: &File, path: &Path) -> Result<(), OpenError> {
    use std::fs::TryLockError;
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(OpenError::Io {
            path: path.to_owned(),
            source,
        }),
    }
}

fn encode(line: &mut Vec<u8>, revision: u64, entry: Entry<'_>) -> io::Result<()> {
    write!(line, "{{\"rv\":{revision}")?;
    match entry {
        Entry::Revision => {}
        Entry::Put(resource, json) => {
            write!(line, ",\"resource\":\"{resource}\",\"object\":")?;
            line.extend_from_slice(json);
        }
        Entry::Removed(resource, namespace, name) => {
            write!(line, ",\"resource\":\"{resource}\",\"removed\":")?;
            serde_json::to_writer(&mut *line, &(namespace, name))?;
        }
    }
    line.extend_from_slice(b"}\n");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Seen = (u64, Option<Value>, Option<(String, String)>);

    fn records(path: &Path) -> Vec<Seen> {
        let mut seen = Vec::new();
        Journal::open(path, |record| {
            seen.push((record.rv, record.object, record.removed))
        })
        .unwrap();
        seen
    }

    #[test]
    fn replays_what_was_written_and_drops_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, |_| {}).unwrap();
        journal.append(1, Entry::Put("pods", b"{\"a\":1}")).unwrap();
        journal
            .append(2, Entry::Removed("pods", "ns", "n"))
            .unwrap();
        assert!(matches!(
            Journal::open(&path, |_| {}),
            Err(OpenError::InUse { .. })
        ));
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"rv\":3,\"resource\":\"po").unwrap();
        drop(file);
        let expected = vec![
            (1, Some(serde_json::json!({"a": 1})), None),
            (2, None, Some(("ns".to_owned(), "n".to_owned()))),
        ];
        assert_eq!(records(&path), expected);
        // The torn line is gone from the file too, so that the next one is whole.
        let mut journal = Journal::open(&path, |_| {}).unwrap();
        journal.append(3, Entry::Put("pods", b"{}")).unwrap();
        drop(journal);
        assert_eq!(records(&path).len(), 3);
    }

    #[test]
    fn damage_in_the_middle_is_an_error_that_names_the_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        std::fs::write(&path, "{\"rv\":1}\nnonsense\n{\"rv\":2}\n").unwrap();
        let error = Journal::open(&path, |_| {}).unwrap_err();
        assert!(
            error.to_string().contains("line 2 of the journal"),
            "{error}"
        );
    }

    #[test]
    fn compaction_keeps_only_what_it_is_given() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, |_| {}).unwrap();
        for revision in 1..100 {
            journal.append(revision, Entry::Put("pods", b"{}")).unwrap();
        }
        let entries = [(99, Entry::Put("pods", b"{}".as_slice()))];
        journal.compact(99, entries.into_iter()).unwrap();
        journal.append(100, Entry::Put("pods", b"{}")).unwrap();
        drop(journal);
        let seen: Vec<_> = records(&path)
            .into_iter()
            .map(|(revision, ..)| revision)
            .collect();
        assert_eq!(seen, [99, 99, 100]);
    }
}
