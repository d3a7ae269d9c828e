//! What this node is: its Node object, remembered over restarts.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ipnet::IpNet;
use ripstop_host::uplink::{self, Uplink};
use ripstop_model::Node;
use ripstop_netlink::Netlink;
use tracing::{info, warn};

use super::Args;
use super::feed::Feed;

/// Addresses and pod ranges of this node. They are in a file of the run
/// directory, so that an agent that starts while the API is away knows them.
pub(crate) struct Facts {
    path: PathBuf,
    pub(crate) node: Node,
}

impl Facts {
    /// Reads the file, or waits until the Node object has what is needed.
    pub(crate) fn find(args: &Args, feed: &mut Feed) -> Result<Self> {
        let path = args.run_dir.join("node.json");
        if let Some(node) = read(&path).filter(|node| node.name == args.node_name) {
            return Ok(Self { path, node });
        }
        let mut said = "";
        let node = loop {
            let missing = match feed.node(&args.node_name) {
                Some(node) => match missing(node) {
                    None => break node.clone(),
                    Some(what) => what,
                },
                None if feed.is_synced() => "a Node object of this name",
                None => "",
            };
            if missing != said {
                info!(node = args.node_name, "waiting for {missing}");
                said = missing;
            }
            feed.wait(Duration::from_secs(1))?;
        };
        check_ranges(&node.pod_cidrs, &args.cluster_cidr)?;
        let facts = Self { path, node };
        facts.write();
        Ok(facts)
    }

    /// Refuses to go on when the Node object has changed: pods have addresses of
    /// the old ranges, tunnels end at the old addresses. The next start begins
    /// with the new ones.
    pub(crate) fn check(&mut self, feed: &Feed) -> Result<()> {
        let Some(now) = feed.node(&self.node.name) else {
            return Ok(());
        };
        let same = now.addresses == self.node.addresses && now.pod_cidrs == self.node.pod_cidrs;
        // Not yet, or not for the moment.
        if same || missing(now).is_some() {
            return Ok(());
        }
        let before = std::mem::replace(&mut self.node, now.clone());
        self.write();
        anyhow::bail!(
            "node {} had addresses {:?} and pod ranges {:?}, now {:?} and {:?}: starting again",
            before.name,
            before.addresses,
            before.pod_cidrs,
            now.addresses,
            now.pod_cidrs
        )
    }

    /// Refuses to go on when this node reaches others by other interfaces than at
    /// the start: ways, tunnels and the addresses with which packets leave are
    /// those of the old ones. The next start begins with the new ones, and pods
    /// notice nothing. For the moment there may be none.
    pub(crate) fn check_uplinks(&self, before: &[Uplink]) -> Result<()> {
        let now = Netlink::new().and_then(|mut n| uplink::find(&mut n, &self.node.addresses));
        let now = now.context("uplinks")?;
        let show = |uplinks: &[Uplink]| {
            let shown = uplinks
                .iter()
                .map(|one| format!("{} (mtu {})", one.name, one.mtu));
            shown.collect::<Vec<_>>().join(", ")
        };
        ensure!(
            now.is_empty() || are_same(before, &now),
            "this node reached others by {}, now by {}: starting again",
            show(before),
            show(&now)
        );
        Ok(())
    }

    /// Without the file the next start has to wait for the API, that is all.
    fn write(&self) {
        let new = self.path.with_extension("json.new");
        let written = serde_json::to_vec(&self.node)
            .map_err(std::io::Error::other)
            .and_then(|bytes| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &self.path));
        if let Err(error) = written {
            warn!(path = %self.path.display(), %error, "this node is not remembered");
        }
    }
}

/// Interfaces and what fits through them; their addresses are looked at elsewhere.
fn are_same(before: &[Uplink], now: &[Uplink]) -> bool {
    let facts = |uplinks: &[Uplink]| -> BTreeSet<(u32, u32)> {
        let facts = uplinks.iter().map(|uplink| (uplink.index, uplink.mtu));
        facts.collect()
    };
    facts(before) == facts(now)
}

fn read(path: &Path) -> Option<Node> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn missing(node: &Node) -> Option<&'static str> {
    if node.addresses.is_empty() {
        Some("status.addresses of the Node object to have an InternalIP")
    } else if node.pod_cidrs.is_empty() {
        Some("spec.podCIDRs of the Node object")
    } else {
        None
    }
}

/// A range outside the cluster's is somebody else's: routing it here would take
/// their packets.
fn check_ranges(pods: &[IpNet], cluster: &[IpNet]) -> Result<()> {
    for range in pods {
        let inside = cluster.iter().any(|cluster| cluster.contains(range));
        ensure!(
            inside,
            "pod range {range} of this node is outside of --cluster-cidr"
        );
    }
    Ok(())
}

/// Makes the run directory; only root has business there.
pub(crate) fn make_run_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("run directory {}", path.display()))
}
