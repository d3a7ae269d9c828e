//! Work of the engine's own that comes again and again, in a thread, so that no
//! change of a table waits for it. It ends with its owner.

use std::io;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

#[derive(Debug)]
pub(crate) struct Regular {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Regular {
    /// Does the work after `pause`, and again after the time that it says.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(
        name: &str,
        mut pause: Duration,
        mut work: impl FnMut() -> Duration + Send + 'static,
    ) -> io::Result<Self> {
        let (stop, stopped) = channel();
        let run = move || {
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                pause = work();
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned());
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread.spawn(run)?),
        })
    }
}

impl Drop for Regular {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::warn!("a thread of the engine had panicked");
        }
    }
}
