//! How a container's process tells the node loop whether it could start.
//!
//! Its standard input is a socket. Nothing is written if all went well: the
//! socket closes when the program is executed (close-on-exec) or when the
//! stand-in listens. Otherwise one text line comes before the end of the
//! process: why.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
use nix::unistd::dup2_stdin;

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

    /// Says that it did not start, and why. Without a listener the reason goes
    /// to standard error, where whoever asked for the process sees it.
    pub fn failed(self, reason: &dyn std::fmt::Display) {
        match self.0 {
            Some(mut stream) => {
                // If the node loop is gone there is nobody left to tell.
                let _ = writeln!(stream, "{reason}");
            }
            None => eprintln!("{reason}"),
        }
    }
}
