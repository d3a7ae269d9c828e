//! Threads that the agent cannot do without, and its end.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::exit;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};
use tracing::{error, info};

/// Starts a thread that works for ever. If it ends after all, so does the agent:
/// better started again than half alive.
///
/// # Errors
/// If the kernel gives no thread.
pub(crate) fn start(name: &'static str, work: impl FnOnce() + Send + 'static) -> Result<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            // A panic has told its reason already.
            let _ = catch_unwind(AssertUnwindSafe(work));
            error!("thread {name} has ended, and the agent with it");
            exit(1);
        })
        .map(drop)
        .with_context(|| format!("thread {name}"))
}

type Ending = Box<dyn Fn() + Send + Sync>;

static ENDING: OnceLock<Ending> = OnceLock::new();

/// What is to be done before the process ends when it is told to; the first
/// caller is heard.
pub(crate) fn at_end(work: impl Fn() + Send + Sync + 'static) {
    let _ = ENDING.set(Box::new(work));
}

/// Signals that end the agent.
fn endings() -> SigSet {
    [Signal::SIGTERM, Signal::SIGINT].into_iter().collect()
}

/// The calling thread, and those that it starts, leave the signals that end the
/// agent to others. Until [`end_when_told`] they just do.
///
/// # Errors
/// If the kernel refuses.
pub(crate) fn leave_signals() -> Result<()> {
    endings().thread_block().context("signals")
}

/// Ends the process when it is told to. Without this, SIGTERM would mean nothing
/// to an agent that is the first process of its container. To be called before
/// other threads are started: they are not to get these signals (or have left
/// them, [`leave_signals`]).
///
/// # Errors
/// If the kernel gives no thread.
pub(crate) fn end_when_told() -> Result<()> {
    leave_signals()?;
    let signals = endings();
    start("signals", move || {
        if let Ok(signal) = signals.wait() {
            info!("{signal}: the agent ends, what it made in the kernel stays");
            if let Some(work) = ENDING.get() {
                work();
            }
            exit(0);
        }
    })
}
