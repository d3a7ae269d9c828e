//! The engines of a node without an agent, taken out of the kernel.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ripstop_datapath::{Datapath, Error, PolicySettings, ebpf};

use super::args::Mode;
use super::engine::{Kind, Opener};

/// Whatever engines have left in the kernel of this node: pinned objects, and
/// programs and rules that they are attached by.
pub(crate) fn dismantle(run_dir: &Path, bpffs: &Path, cgroup_root: &Path) -> Vec<Result<()>> {
    let opener = Opener {
        mode: Mode::Auto,
        run_dir: run_dir.to_owned(),
        bpffs: bpffs.to_owned(),
        cgroup_root: cgroup_root.to_owned(),
        // What is dismantled at once needs no more than to be found.
        node_addresses: Vec::new(),
        uplinks: Vec::new(),
        policy: PolicySettings::default(),
    };
    let pinned = std::fs::read_dir(bpffs).is_ok_and(|mut names| names.next().is_some());
    let ebpf = pinned.then_some(Kind::Ebpf);
    let kinds = ebpf.into_iter().chain([Kind::Nftables]);
    kinds.map(|kind| dismantle_one(&opener, kind)).collect()
}

fn dismantle_one(opener: &Opener, kind: Kind) -> Result<()> {
    let engine = match opener.open_kind(kind) {
        // What the kernel does not take cannot be in it.
        Err(Error::Unsupported { .. }) => return Ok(()),
        other => other.with_context(|| kind.name().to_owned())?,
    };
    let attached = ebpf::attached();
    let dismantled = Box::new(engine).dismantle();
    let unprepared = attached.and_then(|attached| ebpf::unprepare(&attached));
    let done = dismantled.and(unprepared);
    done.with_context(|| kind.name().to_owned())
}

/// Whether pods can be attached: the agent takes the plugin's calls.
///
/// # Errors
/// Why not.
pub(crate) fn is_ready(run_dir: &Path) -> Result<()> {
    let path = socket(run_dir);
    let connected = std::os::unix::net::UnixStream::connect(&path);
    connected
        .map(drop)
        .with_context(|| path.display().to_string())
}

pub(super) fn socket(run_dir: &Path) -> PathBuf {
    run_dir.join("cni.sock")
}
