//! What the agent may do: what it needs, and no more once it has begun.

use anyhow::{Context, Result};
use ripstop_host::privileges::{self, Capability};
use tracing::warn;

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
/// before there are threads.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn drop() -> Result<()> {
    privileges::keep_only(&KEPT).context("giving up privileges")
}

/// Does work that nobody has to trust, in a thread of its own: it reads what
/// anybody may send. What it is not allowed then it is not by a mistake either;
/// the memory is the agent's all the same.
pub(super) fn without(work: impl FnOnce()) {
    if let Err(error) = privileges::drop_in_thread() {
        warn!(%error, "a thread keeps the agent's privileges");
    }
    work();
}

/// All of them as manifests list them, those of the first steps last.
pub(crate) fn capabilities() -> String {
    let all = KEPT.iter().chain(&FIRST);
    let names: Vec<_> = all.map(|capability| capability.name()).collect();
    names.join(", ")
}
