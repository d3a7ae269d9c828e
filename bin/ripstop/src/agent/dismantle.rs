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
    vec![
        // Without an engine: this kernel may not take this version's programs, but
        // those of another.
        ebpf::remove(bpffs).context("ebpf"),
        dismantle_nftables(&opener).context("nftables"),
    ]
}

fn dismantle_nftables(opener: &Opener) -> Result<(), Error> {
    match opener.open_kind(Kind::Nftables) {
        Ok(engine) => Box::new(engine).dismantle(),
        // What the kernel does not take cannot be in it.
        Err(Error::Unsupported { .. }) => Ok(()),
        Err(error) => Err(error),
    }
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
