//! From a container's streams to its file.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::sync::watch;

use super::{FULL, PARTIAL, file, rotated};

/// A file is put aside at this size; one older file is kept. Logs are in memory
/// (`/run`), so this is less than kubelet's 10 MiB and five files.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Longest piece of a line, as containerd has it.
const MAX_LINE: usize = 16 * 1024;

/// The log of one run of a container.
#[derive(Debug)]
pub(in super::super) struct Log {
    path: PathBuf,
    open: Mutex<Open>,
    /// How much was written so far; ends with the run.
    progress: watch::Sender<u64>,
}

#[derive(Debug)]
struct Open {
    file: File,
    size: u64,
}

impl Log {
    /// Starts the file of a run, and removes those before the previous run.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub(in super::super) fn create(dir: &Path, run: i32) -> io::Result<Self> {
        let path = file(dir, run);
        let open = Open {
            file: File::create(&path)?,
            size: 0,
        };
        if run >= 2 {
            let old = file(dir, run - 2);
            // Both may never have been.
            let _ = std::fs::remove_file(rotated(&old));
            let _ = std::fs::remove_file(old);
        }
        Ok(Self {
            path,
            open: Mutex::new(open),
            progress: watch::Sender::new(0),
        })
    }

    /// For those who follow.
    pub(in super::super) fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    fn write(&self, stream: &str, tag: u8, text: &[u8]) {
        let mut line = format!("{} {stream} ", crate::clock::now()).into_bytes();
        line.extend([tag, b' ']);
        line.extend(text);
        line.push(b'\n');
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk must not stop the container.
        if let Err(error) = self.append(&mut open, &line) {
            tracing::debug!(path = %self.path.display(), %error, "cannot write log");
        }
        drop(open);
        self.progress
            .send_modify(|written| *written += line.len() as u64);
    }

    fn append(&self, open: &mut Open, line: &[u8]) -> io::Result<()> {
        let length = line.len() as u64;
        if open.size + length > MAX_FILE && open.size > 0 {
            std::fs::rename(&self.path, rotated(&self.path))?;
            *open = Open {
                file: File::create(&self.path)?,
                size: 0,
            };
        }
        open.file.write_all(line)?;
        open.size += length;
        Ok(())
    }
}

/// Copies a stream to the log until it ends.
pub(in super::super) async fn pump(from: impl AsyncRead + Unpin, stream: &str, log: &Log) {
    let mut from = BufReader::with_capacity(MAX_LINE, from);
    let mut line = Vec::new();
    loop {
        let available = match from.fill_buf().await {
            Ok(bytes) if !bytes.is_empty() => bytes,
            // The end; an error is one too.
            _ => break,
        };
        let room = MAX_LINE - line.len();
        let (used, complete) = match available.iter().take(room).position(|&byte| byte == b'\n') {
            Some(at) => (at + 1, true),
            None => (available.len().min(room), false),
        };
        line.extend_from_slice(&available[..used]);
        from.consume(used);
        if complete {
            line.pop();
            log.write(stream, FULL, &line);
            line.clear();
        } else if line.len() == MAX_LINE {
            log.write(stream, PARTIAL, &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        log.write(stream, PARTIAL, &line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_and_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path(), 0).unwrap();
        let long = "x".repeat(MAX_LINE + 3);
        let input = format!("one\n\n{long}\nend");
        pump(input.as_bytes(), "stdout", &log).await;
        let text = std::fs::read_to_string(dir.path().join("0.log")).unwrap();
        let found: Vec<(&str, usize)> = text
            .lines()
            .map(|line| {
                let (_, rest) = line.split_once(' ').unwrap();
                let (tag, content) = rest.split_at("stdout F ".len());
                (tag, content.len())
            })
            .collect();
        let (full, partial) = ("stdout F ", "stdout P ");
        assert_eq!(
            found,
            [
                (full, 3),
                (full, 0),
                (partial, MAX_LINE),
                (full, 3),
                (partial, 3)
            ]
        );
    }

    #[tokio::test]
    async fn a_large_log_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let log = Log::create(dir.path(), 3).unwrap();
        let line = vec![b'x'; 1024 * 1024];
        for _ in 0..10 {
            log.write("stdout", FULL, &line);
        }
        let size = |name: &str| std::fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("3.log") <= MAX_FILE && size("3.log.1") <= MAX_FILE);
    }
}
