//! What is in force on a pod of this node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, bail, ensure};
use ripstop_datapath::policy_difference;
use ripstop_model::DomainSet;
use ripstop_plan::policy::{Direction, PolicyTables};
use serde::{Deserialize, Serialize};

use super::rows::{self, RowView};
use super::{End, attribution};
use crate::agent::effects::{Effects, lock};
use crate::agent::feed::Feed;
use crate::policy::view::SideView;

/// A pod with its policies.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodView {
    pub(crate) pod: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// False while the pod's object or its namespace has not come: it is closed.
    pub(crate) known: bool,
    pub(crate) ingress: SideView,
    pub(crate) egress: SideView,
    /// What the domain names among the peers stand for.
    #[serde(default)]
    pub(crate) names: Vec<NameView>,
    /// What of it is not in the kernel as planned.
    pub(crate) drift: Vec<String>,
    /// As the kernel has them.
    pub(crate) rows: Vec<RowView>,
}

/// A name that a rule means, as this node's DNS server answered it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameView {
    pub(crate) name: String,
    pub(crate) addresses: Vec<NameAddressView>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NameAddressView {
    pub(crate) address: IpAddr,
    /// For how long it holds if nobody asks again and no connection uses it.
    pub(crate) seconds: u64,
}

pub(super) fn show(feed: &Feed, effects: &Effects, name: &str) -> Result<PodView> {
    let planner = feed.policies();
    let End::Pod(pod) = End::parse(planner, name)? else {
        bail!("{name} is no address of a pod");
    };
    let addresses = planner.local_addresses(&pod.key).to_vec();
    ensure!(
        !pod.host_network,
        "pod {} is on the network of its node: no policy selects it",
        pod.key
    );
    ensure!(
        !addresses.is_empty(),
        "pod {} is not on this node, but on {}",
        pod.key,
        pod.node.as_deref().unwrap_or("none yet")
    );
    let found = lock(&effects.datapath)
        .policies()
        .context("reading the kernel's policies")?;
    let side = |direction| {
        let in_force = planner.in_force(&pod.key, direction);
        let in_force = in_force.with_context(|| format!("pod {} went", pod.key))?;
        anyhow::Ok(SideView::new(&in_force))
    };
    let egress = planner.in_force(&pod.key, Direction::Egress);
    let rules = egress.iter().flat_map(|egress| &egress.rules);
    let domains = rules.flat_map(|rule| &rule.domains).collect();
    let by = |outcome: ripstop_plan::policy::Outcome| attribution(feed, outcome.by);
    let mut all = Vec::new();
    for address in &addresses {
        for direction in [Direction::Ingress, Direction::Egress] {
            all.extend(rows::rows(&found, *address, direction, &by));
        }
    }
    let planned = of_pod(&feed.tables().policy, &addresses);
    Ok(PodView {
        pod: pod.key.to_string(),
        known: planner.is_known(&pod.key),
        ingress: side(Direction::Ingress)?,
        egress: side(Direction::Egress)?,
        names: names(feed, &domains),
        drift: policy_difference(&planned, &of_pod(&found, &addresses)),
        rows: all,
        addresses,
    })
}

fn names(feed: &Feed, domains: &DomainSet) -> Vec<NameView> {
    let known = feed.learnt.names(domains).into_iter();
    let view = |(name, addresses): (String, BTreeMap<IpAddr, u64>)| NameView {
        name,
        addresses: addresses
            .into_iter()
            .map(|(address, seconds)| NameAddressView { address, seconds })
            .collect(),
    };
    known.map(view).collect()
}

/// The part of the tables that is about some pods alone.
fn of_pod(tables: &PolicyTables, addresses: &[IpAddr]) -> PolicyTables {
    let pods = addresses
        .iter()
        .filter_map(|address| Some((*address, *tables.pods.get(address)?)));
    let pods: BTreeMap<_, _> = pods.collect();
    let sides = pods.values().flat_map(|one| [one.ingress, one.egress]);
    let sides: std::collections::BTreeSet<_> = sides.collect();
    let rules = tables
        .rules
        .iter()
        .filter(|((side, _), _)| sides.contains(side));
    PolicyTables {
        rules: rules.map(|(key, row)| (*key, row.clone())).collect(),
        ports: tables.ports.clone(),
        pods,
        ..PolicyTables::default()
    }
}
