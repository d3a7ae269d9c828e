//! From a container's file to those who read its log.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self as streams, BoxStream};
use k8s_openapi::jiff::Timestamp;
use tokio::sync::watch;

use super::{FULL, file, rotated};

/// What of a log is wanted.
#[derive(Clone, Debug, Default)]
pub(in super::super) struct Filter {
    /// Only the last lines of what there is at the start.
    pub(in super::super) tail: Option<usize>,
    pub(in super::super) since: Option<Timestamp>,
    /// The time in front of each line.
    pub(in super::super) timestamps: bool,
    /// Bytes after which it ends.
    pub(in super::super) limit: Option<u64>,
}

impl Filter {
    /// What is shown of a line of the file.
    fn show(&self, line: &[u8]) -> Option<Vec<u8>> {
        let mut parts = line.splitn(4, |&byte| byte == b' ');
        let (time, _, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        if let Some(since) = self.since {
            let time: Timestamp = std::str::from_utf8(time).ok()?.parse().ok()?;
            if time < since {
                return None;
            }
        }
        let mut shown = Vec::with_capacity(line.len());
        if self.timestamps {
            shown.extend_from_slice(time);
            shown.push(b' ');
        }
        shown.extend_from_slice(text);
        if tag == [FULL] {
            shown.push(b'\n');
        }
        Some(shown)
    }
}

/// The log of a run: what there is, and if `follow` what comes until the run
/// ends.
///
/// # Errors
/// If there is no such log.
pub(in super::super) fn stream(
    dir: &Path,
    run: i32,
    filter: Filter,
    follow: Option<watch::Receiver<u64>>,
) -> io::Result<BoxStream<'static, Bytes>> {
    let path = file(dir, run);
    let mut reader = Reader::open(path)?;
    let mut shown: VecDeque<Vec<u8>> = VecDeque::new();
    for line in [reader.older(), reader.read()?].concat() {
        shown.extend(filter.show(&line));
        if filter.tail.is_some_and(|tail| shown.len() > tail) {
            shown.pop_front();
        }
    }
    let present = Bytes::from(Vec::from(shown).concat());
    let limit = filter.limit;
    let first = streams::iter((!present.is_empty()).then_some(present));
    let later = streams::unfold(
        (reader, follow, filter),
        |(mut reader, follow, filter)| async {
            let mut progress = follow?;
            loop {
                // Before reading, so that nothing is missed in between.
                let ended = progress.has_changed().is_err();
                progress.mark_unchanged();
                let lines = reader.read().ok()?;
                let news: Vec<u8> = lines
                    .iter()
                    .filter_map(|l| filter.show(l))
                    .flatten()
                    .collect();
                if !news.is_empty() {
                    return Some((Bytes::from(news), (reader, Some(progress), filter)));
                }
                if ended {
                    return None;
                }
                // An error is the end, which the next turn sees.
                let _ = progress.changed().await;
            }
        },
    );
    Ok(limited(first.chain(later).boxed(), limit))
}

fn limited(stream: BoxStream<'static, Bytes>, limit: Option<u64>) -> BoxStream<'static, Bytes> {
    let Some(limit) = limit else { return stream };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let cut = |left: &mut usize, mut bytes: Bytes| {
        bytes.truncate(*left);
        *left -= bytes.len();
        futures::future::ready((!bytes.is_empty()).then_some(bytes))
    };
    stream.scan(limit, cut).boxed()
}

/// The last lines of a run's log, at most `bytes`; empty if there is none.
pub(in super::super) fn last_lines(dir: &Path, run: i32, lines: usize, bytes: usize) -> String {
    let Ok(mut reader) = Reader::open(file(dir, run)) else {
        return String::new();
    };
    let filter = Filter::default();
    let all = reader.read().unwrap_or_default();
    let shown: Vec<Vec<u8>> = all.iter().filter_map(|line| filter.show(line)).collect();
    let tail = shown[shown.len().saturating_sub(lines)..].concat();
    let tail = &tail[tail.len().saturating_sub(bytes)..];
    String::from_utf8_lossy(tail).trim_end().to_owned()
}

/// Reads whole lines, also across the file's rotation.
#[derive(Debug)]
struct Reader {
    path: PathBuf,
    file: File,
    /// The start of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Reader {
    fn open(path: PathBuf) -> io::Result<Self> {
        Ok(Self {
            file: File::open(&path)?,
            path,
            rest: Vec::new(),
        })
    }

    /// The lines in the file that was put aside before.
    fn older(&self) -> Vec<Vec<u8>> {
        let bytes = fs::read(rotated(&self.path)).unwrap_or_default();
        bytes
            .split(|&byte| byte == b'\n')
            .filter(|l| !l.is_empty())
            .map(<[u8]>::to_vec)
            .collect()
    }

    /// The lines that came since the last call.
    fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = std::mem::take(&mut self.rest);
        self.file.read_to_end(&mut bytes)?;
        let current = fs::metadata(&self.path).map(|found| found.ino()).ok();
        if current.is_some_and(|ino| self.file.metadata().is_ok_and(|m| m.ino() != ino)) {
            // Put aside meanwhile; what was added until then has to be read first.
            self.file.read_to_end(&mut bytes)?;
            self.file = File::open(&self.path)?;
            self.file.read_to_end(&mut bytes)?;
        }
        let mut lines: Vec<Vec<u8>> = bytes
            .split(|&byte| byte == b'\n')
            .map(<[u8]>::to_vec)
            .collect();
        self.rest = lines.pop().unwrap_or_default();
        Ok(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Log, pump};
    use super::*;

    async fn collect(stream: BoxStream<'static, Bytes>) -> String {
        String::from_utf8(stream.collect::<Vec<_>>().await.concat()).unwrap()
    }

    #[tokio::test]
    async fn filters() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path(), 0).unwrap();
        pump(&b"one\ntwo\nthree\n"[..], "stdout", &log).await;
        let read = |filter: Filter| stream(dir.path(), 0, filter, None).unwrap();
        assert_eq!(collect(read(Filter::default())).await, "one\ntwo\nthree\n");
        let tail = Filter {
            tail: Some(2),
            ..Filter::default()
        };
        assert_eq!(collect(read(tail)).await, "two\nthree\n");
        let limit = Filter {
            limit: Some(5),
            ..Filter::default()
        };
        assert_eq!(collect(read(limit)).await, "one\nt");
        let since = Filter {
            since: Some(crate::clock::now()),
            ..Filter::default()
        };
        assert_eq!(collect(read(since)).await, "");
        let stamped = collect(read(Filter {
            timestamps: true,
            tail: Some(1),
            ..Filter::default()
        }))
        .await;
        let (time, text) = stamped.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok());
        assert_eq!(text, "three\n");
        assert_eq!(last_lines(dir.path(), 0, 1, 100), "three");
        assert_eq!(last_lines(dir.path(), 7, 1, 100), "");
        assert!(stream(dir.path(), 1, Filter::default(), None).is_err());
    }

    #[tokio::test]
    async fn following_sees_everything_until_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path(), 0).unwrap();
        pump(&b"before\n"[..], "stdout", &log).await;
        let follow = Some(log.progress());
        let reader = tokio::spawn(collect(
            stream(dir.path(), 0, Filter::default(), follow).unwrap(),
        ));
        let line = "y".repeat(1000);
        // More than one file's worth, and less than two: a reader that sleeps
        // through two files misses some, as with any rotated log.
        for _ in 0..6_000 {
            pump(format!("{line}\n").as_bytes(), "stderr", &log).await;
        }
        drop(log);
        let text = reader.await.unwrap();
        assert!(text.starts_with("before\n"));
        assert_eq!(text.lines().filter(|found| **found == line).count(), 6_000);
    }
}
