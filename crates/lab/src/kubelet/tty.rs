//! Commands on a terminal.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::pin::Pin;
use std::process::Stdio;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::pty::{OpenptyResult, Winsize, openpty};
use ripstop_apiserver::pods::{ExecRequest, ExecSession};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::process::Command;
use tokio::sync::mpsc;

use super::access::exit;

/// Sizes that wait to be applied; only the last one matters.
const RESIZES: usize = 8;

/// Starts the command with a terminal for all its streams.
///
/// # Errors
/// If there is no terminal to be had, or the command cannot be started.
pub(super) fn start(mut command: Command, request: &ExecRequest) -> io::Result<ExecSession> {
    let OpenptyResult { master, slave } = openpty(None::<&Winsize>, None)?;
    command
        .stdin(Stdio::from(slave.try_clone()?))
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    let child = command.spawn()?;
    // It holds the other end: as long as it lives, reading would not end.
    drop(command);
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    // SAFETY: an OwnedFd is the same open descriptor for as long as it lives.
    let master = unsafe { AsyncFd::register(master) }?;
    let terminal = Terminal(Arc::new(master));
    let (sender, mut sizes) = mpsc::channel::<(u16, u16)>(RESIZES);
    let resized = terminal.clone();
    tokio::spawn(async move {
        while let Some((columns, rows)) = sizes.recv().await {
            if let Err(error) = resized.resize(columns, rows) {
                tracing::debug!(%error, columns, rows, "cannot resize");
            }
        }
    });
    Ok(ExecSession {
        stdin: request
            .stdin
            .then(|| Box::pin(terminal.clone()) as Pin<Box<_>>),
        stdout: request.stdout.then(|| Box::pin(terminal) as Pin<Box<_>>),
        stderr: None,
        resize: Some(sender),
        exit: exit(child),
    })
}

/// Our end of a terminal.
#[derive(Clone, Debug)]
struct Terminal(Arc<AsyncFd<OwnedFd>>);

impl Terminal {
    fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = libc::winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // SAFETY: the descriptor is open as long as `self`, and TIOCSWINSZ reads
        // one `winsize` behind the pointer.
        match unsafe { libc::ioctl(self.0.get_ref().as_raw_fd(), libc::TIOCSWINSZ, &size) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.0.poll_read_ready(cx))?;
            let read =
                guard.try_io(|fd| Ok(nix::unistd::read(fd.as_fd(), buf.initialize_unfilled())?));
            match read {
                Ok(Ok(length)) => {
                    buf.advance(length);
                    return Poll::Ready(Ok(()));
                }
                // How a terminal says that nobody has its other end open.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => {
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.0.poll_write_ready(cx))?;
            match guard.try_io(|fd| Ok(nix::unistd::write(fd.as_fd(), bytes)?)) {
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
