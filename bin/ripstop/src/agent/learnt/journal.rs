//! What was learnt, in a file of the run directory: the next agent goes on with
//! it, so that no connection to a name ends with an agent.
//!
//! A line of JSON for each thing that was learnt, written before it is in force.
//! Now and then the whole is written anew.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tracing::warn;

/// Lines beside twice as many as are needed.
const SPARE: usize = 256;

#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Option<File>,
    lines: usize,
    failed: bool,
}

/// Addresses of a name, with the seconds for which they hold.
pub(super) type Known = BTreeMap<String, BTreeMap<IpAddr, u64>>;

#[derive(Debug, Serialize, Deserialize)]
struct Line {
    name: String,
    addresses: Vec<IpAddr>,
    /// Seconds since 1970.
    until: u64,
}

impl Journal {
    /// Reads what the agent before this one has left. What makes no sense is left
    /// out: it will be learnt again.
    pub(super) fn open(path: &Path) -> (Self, Known) {
        let mut known = Known::new();
        let now = now();
        let mut journal = Self {
            path: path.to_owned(),
            file: None,
            lines: usize::MAX / 2,
            failed: false,
        };
        match File::open(path) {
            Ok(file) => {
                for line in BufReader::new(file).lines().map_while(Result::ok) {
                    // The last line of an agent that was killed may be half of one.
                    let Ok(line) = serde_json::from_str::<Line>(&line) else {
                        continue;
                    };
                    let of_name = known.entry(line.name).or_default();
                    for address in line.addresses {
                        let left = of_name.entry(address).or_default();
                        *left = (*left).max(line.until.saturating_sub(now));
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => warn!(path = %path.display(), %error, "names learnt before"),
        }
        if known.is_empty() {
            journal.lines = 0;
        }
        (journal, known)
    }

    /// Notes what was learnt: `seconds` is how long it holds.
    pub(super) fn add(&mut self, name: &str, addresses: &[IpAddr], seconds: u64) {
        let line = Line {
            name: name.to_owned(),
            addresses: addresses.to_vec(),
            until: now() + seconds,
        };
        let written = self.append(&line);
        self.said(written);
    }

    /// Whether there is so much in the file that is not needed that
    /// [`Journal::rewrite`] is due.
    pub(super) fn is_long(&self, needed: usize) -> bool {
        self.lines > 2 * needed + SPARE
    }

    /// Makes `known` all that there is.
    pub(super) fn rewrite(&mut self, known: &BTreeMap<&str, BTreeMap<IpAddr, u64>>) {
        let written = self.replace(known);
        self.said(written);
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if self.file.is_none() {
            let file = File::options().create(true).append(true).open(&self.path)?;
            self.file = Some(file);
            // After half a line.
            text.insert(0, b'\n');
        }
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        self.lines += 1;
        file.write_all(&text)
    }

    fn replace(&mut self, known: &BTreeMap<&str, BTreeMap<IpAddr, u64>>) -> io::Result<()> {
        let (new, now) = (self.path.with_extension("new"), now());
        let mut file = BufWriter::new(File::create(&new)?);
        let mut lines = 0;
        for (name, addresses) in known {
            let mut by_end: BTreeMap<u64, Vec<IpAddr>> = BTreeMap::new();
            for (address, seconds) in addresses {
                by_end.entry(now + seconds).or_default().push(*address);
            }
            for (until, addresses) in by_end {
                let name = (*name).to_owned();
                serde_json::to_writer(
                    &mut file,
                    &Line {
                        name,
                        addresses,
                        until,
                    },
                )?;
                file.write_all(b"\n")?;
                lines += 1;
            }
        }
        file.flush()?;
        fs::rename(&new, &self.path)?;
        self.file = None;
        self.lines = lines;
        Ok(())
    }

    fn said(&mut self, written: io::Result<()>) {
        let failed = written.is_err();
        if let (Err(error), false) = (written, self.failed) {
            let path = self.path.display();
            warn!(%path, %error, "names of policies will have to be learnt again after a restart");
        }
        self.failed = failed;
    }
}

fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn the_next_agent_knows_what_was_learnt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learnt");
        let (mut journal, known) = Journal::open(&path);
        assert!(known.is_empty());
        journal.add("a.b", &[ip(1), "fd00::1".parse().unwrap()], 100);
        journal.add("a.b", &[ip(1)], 1000);
        journal.add("c.d", &[ip(2)], 50);
        let check = |known: &Known| {
            let left = |name: &str, address: IpAddr| known[name][&address];
            assert!((990..=1000).contains(&left("a.b", ip(1))));
            assert!((90..=100).contains(&left("a.b", "fd00::1".parse().unwrap())));
            assert!((40..=50).contains(&left("c.d", ip(2))));
            assert_eq!((known.len(), known["a.b"].len()), (2, 2));
        };
        let (mut second, known) = Journal::open(&path);
        check(&known);
        let borrowed = known.iter().map(|(name, of)| (name.as_str(), of.clone()));
        second.rewrite(&borrowed.collect());
        let (_, known) = Journal::open(&path);
        check(&known);
        assert!(!second.is_long(3));
    }

    #[test]
    fn half_a_line_takes_no_other_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learnt");
        let (mut journal, _) = Journal::open(&path);
        journal.add("a.b", &[ip(1)], 100);
        drop(journal);
        let mut text = fs::read(&path).unwrap();
        text.extend_from_slice(b"{\"name\": \"half\", \"addr");
        fs::write(&path, &text).unwrap();
        let (mut journal, known) = Journal::open(&path);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a.b"]);
        journal.add("c.d", &[ip(2)], 100);
        let (journal, known) = Journal::open(&path);
        assert_eq!(known.keys().collect::<Vec<_>>(), ["a.b", "c.d"]);
        assert!(journal.is_long(2), "it is written anew at the next chance");
    }
}
