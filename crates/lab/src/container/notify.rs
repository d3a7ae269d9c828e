//! How a container's process tells the node loop whether it could start.
//!
//! Its standard input is a socket. First comes a line with the number of the
//! container's process ([`Report`]). Nothing more is written if all goes well:
//! the socket closes when the program is executed (close-on-exec) or when the
//! stand-in listens. Otherwise another line says why not.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::dup2_stdin;

const PID: &str = "pid ";

/// All that was said, for the one who listens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The container's process, as the machine numbers it.
    pub pid: Option<u32>,
    /// Why it could not start.
    pub problem: Option<String>,
}

impl Report {
    pub fn parse(text: &str) -> Self {
        let mut report = Self::default();
        let mut problem = Vec::new();
        for line in text.lines() {
            match line.strip_prefix(PID).and_then(|pid| pid.parse().ok()) {
                Some(pid) => report.pid = Some(pid),
                None => problem.push(line),
            }
        }
        report.problem = (!problem.is_empty()).then(|| problem.join("\n"));
        report
    }
}

/// The child's end; dropping it says "started".
#[derive(Debug)]
pub struct Notifier(Option<UnixStream>);

impl Notifier {
    /// For processes that nobody waits for in this way.
    pub fn none() -> Self {
        Self(None)
    }

    /// Takes standard input, and puts `/dev/null` in its place.
    ///
    /// # Errors
    /// If the machine has no `/dev/null` or file descriptors are used up.
    pub fn from_stdin() -> io::Result<Self> {
        let copy = nix::unistd::dup(io::stdin())?;
        fcntl(&copy, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
        // The other end is a socket of an asynchronous program: that mode is
        // of this end's own, but do not depend on it.
        fcntl(&copy, FcntlArg::F_SETFL(OFlag::empty()))?;
        dup2_stdin(File::open("/dev/null")?)?;
        Ok(Self(Some(UnixStream::from(copy))))
    }

    /// Says which process is the container's.
    pub(super) fn pid(&mut self, pid: i32) {
        if let Some(stream) = &mut self.0 {
            // If the node loop is gone there is nobody left to tell.
            let _ = writeln!(stream, "{PID}{pid}");
        }
    }

    /// Says that it did not start, and why. Without a listener the reason goes
    /// to standard error, where whoever asked for the process sees it.
    pub fn failed(self, reason: &dyn std::fmt::Display) {
        match self.0 {
            Some(mut stream) => {
                let _ = writeln!(stream, "{reason}");
            }
            None => eprintln!("{reason}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports() {
        let problem = |text: &str| Some(text.to_owned());
        for (text, pid, expected) in [
            ("", None, None),
            ("pid 7\n", Some(7), None),
            (
                "pid 7\nno such\nprogram\n",
                Some(7),
                problem("no such\nprogram"),
            ),
            ("no process\n", None, problem("no process")),
        ] {
            assert_eq!(
                Report::parse(text),
                Report {
                    pid,
                    problem: expected
                },
                "{text:?}"
            );
        }
    }
}
