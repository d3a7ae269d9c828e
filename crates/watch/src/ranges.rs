//! Ranges of pod addresses for nodes that have none.

use std::collections::BTreeMap;

use futures::StreamExt;
use ipnet::IpNet;
use k8s_openapi::api::core::v1 as core;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Api, Client};
use serde_json::json;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use crate::convert;

/// Between attempts after the API has refused something.
const RETRY: std::time::Duration = std::time::Duration::from_secs(2);

/// Gives each node without ranges those that `allocate` makes, told which are in
/// use. Ends with an error of the API: what was known then is old.
pub async fn give_ranges(
    client: Client,
    allocate: &mut impl FnMut(&[IpNet]) -> Option<Vec<IpNet>>,
) {
    let nodes: Api<core::Node> = Api::all(client);
    let mut events = watcher::watcher(nodes.clone(), watcher::Config::default()).boxed();
    let mut ranges: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    // Until all nodes have been listed it is not known what is in use.
    let mut listed = false;
    while let Some(event) = events.next().await {
        match event {
            Ok(watcher::Event::Init) => {
                listed = false;
                ranges.clear();
            }
            Ok(watcher::Event::InitDone) => listed = true,
            Ok(watcher::Event::InitApply(node) | watcher::Event::Apply(node)) => {
                note(&mut ranges, &node)
            }
            Ok(watcher::Event::Delete(node)) => {
                ranges.remove(&node.metadata.name.unwrap_or_default());
            }
            Err(error) => {
                debug!(%error, "nodes cannot be followed");
                sleep(RETRY).await;
                return;
            }
        }
        if listed && !give(&nodes, &mut ranges, allocate).await {
            sleep(RETRY).await;
            return;
        }
    }
}

fn note(ranges: &mut BTreeMap<String, Vec<IpNet>>, node: &core::Node) {
    let name = node.metadata.name.clone().unwrap_or_default();
    let model = convert::node(node).model;
    let has = model.map_or_else(Vec::new, |node| node.pod_cidrs);
    ranges.insert(name, has);
}

/// False after a refusal.
async fn give(
    nodes: &Api<core::Node>,
    ranges: &mut BTreeMap<String, Vec<IpNet>>,
    allocate: &mut impl FnMut(&[IpNet]) -> Option<Vec<IpNet>>,
) -> bool {
    let without = ranges.iter().filter(|(_, has)| has.is_empty());
    let without: Vec<String> = without.map(|(name, _)| name.clone()).collect();
    for name in without {
        let used: Vec<IpNet> = ranges.values().flatten().copied().collect();
        let Some(given) = allocate(&used) else {
            warn!(
                node = name,
                "no range is left for it: the cluster's are used up"
            );
            return true;
        };
        let texts: Vec<String> = given.iter().map(ToString::to_string).collect();
        let patch = json!({"spec": {"podCIDR": texts.first(), "podCIDRs": texts}});
        // A node that has got ranges meanwhile refuses others.
        let patch = Patch::Strategic(patch);
        match nodes.patch(&name, &PatchParams::default(), &patch).await {
            Ok(_) => {
                info!(node = name, ranges = texts.join(","), "given");
                ranges.insert(name, given);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => {
                warn!(node = name, %error, "a range was refused");
                return false;
            }
        }
    }
    true
}
