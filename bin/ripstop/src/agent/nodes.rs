//! The other nodes, and whether they answer.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use ripstop_host::ping;
use ripstop_plan::Tables;
use serde::{Deserialize, Serialize};
use tracing::warn;

/// A node that is not there delays a status by so much; all are asked at once.
const PATIENCE: Duration = Duration::from_millis(500);

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeView {
    pub(crate) name: String,
    /// Where packets for its pods are sent.
    pub(crate) address: IpAddr,
    /// Its pod ranges.
    pub(crate) ranges: Vec<String>,
    /// How long its echo took; absent if there was none.
    pub(crate) answered_us: Option<u32>,
}

/// Those that there are routes to, not asked yet. A node of two families is there
/// once for each.
pub(crate) fn planned(tables: &Tables) -> Vec<NodeView> {
    let mut nodes: BTreeMap<(String, IpAddr), Vec<String>> = BTreeMap::new();
    for (prefix, route) in &tables.routes {
        let ranges = nodes.entry((route.node.clone(), route.via)).or_default();
        ranges.push(prefix.to_string());
    }
    let view = |((name, address), ranges)| NodeView {
        name,
        address,
        ranges,
        answered_us: None,
    };
    nodes.into_iter().map(view).collect()
}

/// Asks them all.
pub(crate) fn with_answers(mut nodes: Vec<NodeView>) -> Vec<NodeView> {
    let addresses: Vec<IpAddr> = nodes.iter().map(|node| node.address).collect();
    match ping::ping(&addresses, PATIENCE) {
        Ok(answers) => {
            for node in &mut nodes {
                let took = answers.get(&node.address);
                let us = took.and_then(|took| u32::try_from(took.as_micros()).ok());
                node.answered_us = us;
            }
        }
        Err(error) => warn!(%error, "the other nodes cannot be asked whether they are there"),
    }
    nodes
}
