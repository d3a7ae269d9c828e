//! What the agent may do: what it needs, and no more once it has begun.

use std::sync::mpsc::{Sender, channel};

use anyhow::{Context, Result, bail};
use ripstop_host::privileges::{self, Capability, Id};

use super::thread;

/// What a running agent needs.
const KEPT: [Capability; 8] = [
    // Links, addresses, routes, tables of netfilter; programs where packets pass.
    Capability::NetAdmin,
    // Whether other nodes answer.
    Capability::NetRaw,
    // Ports that people chose for metrics and health.
    Capability::NetBindService,
    // Programs and tables of the kernel.
    Capability::Bpf,
    Capability::Perfmon,
    // To enter the namespaces of pods, and to find programs by their numbers.
    Capability::SysAdmin,
    // Runtimes that name a pod's namespace by a process in it.
    Capability::SysPtrace,
    // CNI folders that belong to somebody else than root.
    Capability::DacOverride,
];

/// What its first steps need: to take privileges, from itself and from the holder
/// of its sockets.
const FIRST: [Capability; 3] = [Capability::SetPcap, Capability::SetUid, Capability::SetGid];

/// Gives up for ever what is not needed after the first steps. To be called
/// before there are threads, but for [`Powerless`].
///
/// # Errors
/// If the kernel refuses.
pub(super) fn drop() -> Result<()> {
    privileges::keep_only(&KEPT).context("giving up privileges")
}

type Work = Box<dyn FnOnce() + Send>;

/// Whoever starts threads for work that nobody has to trust: it reads what anybody
/// may send. They are another user's and have no capability; what they are not
/// allowed they are not by a mistake either. The memory is the agent's all the
/// same: who can write anything to it is the agent.
#[derive(Clone)]
pub(crate) struct Powerless(Sender<(&'static str, Work, Sender<Result<()>>)>);

impl Powerless {
    /// To be called before [`drop`]: it takes privileges to give up the user's id.
    ///
    /// # Errors
    /// If the kernel gives no thread, or refuses.
    pub(super) fn start() -> Result<Self> {
        let (starter, wanted) = channel::<(&'static str, Work, Sender<Result<()>>)>();
        let (said, outcome) = channel();
        let run = move || {
            let made = thread::leave_signals()
                .and_then(|()| Ok(privileges::become_powerless(Id::Thread)?));
            let failed = made.is_err();
            // Whoever waits for it is there.
            let _ = said.send(made);
            if failed {
                return;
            }
            while let Ok((name, work, said)) = wanted.recv() {
                let _ = said.send(thread::start(name, work));
            }
        };
        let named = std::thread::Builder::new().name("starter".to_owned());
        named.spawn(run).context("thread without privileges")?;
        outcome
            .recv()
            .context("thread without privileges")?
            .context("giving up the privileges of threads")?;
        Ok(Self(starter))
    }

    /// A thread that works for ever, as [`thread::start`] makes them.
    ///
    /// # Errors
    /// If the kernel gives no thread.
    pub(super) fn run(
        &self,
        name: &'static str,
        work: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let (said, outcome) = channel();
        let started = self.0.send((name, Box::new(work), said)).ok();
        let outcome = started.and_then(|()| outcome.recv().ok());
        outcome.unwrap_or_else(|| bail!("thread {name}: nobody starts threads"))
    }
}

/// All of them as manifests list them, those of the first steps last.
pub(crate) fn capabilities() -> String {
    let all = KEPT.iter().chain(&FIRST);
    let names: Vec<_> = all.map(|capability| capability.name()).collect();
    names.join(", ")
}
