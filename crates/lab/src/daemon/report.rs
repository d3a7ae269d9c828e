//! What the daemon tells the `up` that started it, on a pipe.

use std::io::{self, BufRead, Write};
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

/// One line of JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Report {
    /// The API answers at this URL; agents are starting.
    Serving(String),
    /// It could not begin, and ends.
    Failed(String),
}

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Reporter(std::fs::File);

impl Reporter {
    /// Takes standard output, and puts `/dev/null` in its place.
    pub(super) fn from_stdout() -> io::Result<Self> {
        let copy: OwnedFd = nix::unistd::dup(io::stdout())?;
        super::close_on_exec(&copy)?;
        nix::unistd::dup2_stdout(std::fs::File::options().write(true).open("/dev/null")?)?;
        Ok(Self(copy.into()))
    }

    /// An `up` that was interrupted does not read any more: the lab goes on.
    pub(super) fn send(&mut self, report: &Report) {
        let mut line = serde_json::to_vec(report).unwrap_or_default();
        line.push(b'\n');
        let _ = self.0.write_all(&line);
    }
}

/// The next report from `pipe`; `None` when it ended, or what came is none.
pub fn read(pipe: &mut impl BufRead) -> Option<Report> {
    let mut line = String::new();
    pipe.read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_lines() {
        let sent = [
            Report::Serving("https://127.0.0.1:1".into()),
            Report::Failed("no".into()),
        ];
        let text: String = sent
            .iter()
            .map(|report| serde_json::to_string(report).unwrap() + "\n")
            .collect();
        let mut pipe = text.as_bytes();
        assert_eq!(read(&mut pipe).as_ref(), Some(&sent[0]));
        assert_eq!(read(&mut pipe).as_ref(), Some(&sent[1]));
        assert_eq!(read(&mut pipe), None);
        assert_eq!(read(&mut &b"{\"serving\": \"cut"[..]), None);
    }
}
