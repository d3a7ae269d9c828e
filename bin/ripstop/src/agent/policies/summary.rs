//! How much there is of policies on this node.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use ripstop_plan::policy::PolicyId;
use serde::{Deserialize, Serialize};

use super::{drops, name_of};
use crate::agent::effects::{Effects, lock};
use crate::agent::feed::Feed;

/// Policies of the cluster, and what they mean for this node.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PoliciesView {
    pub(crate) network_policies: usize,
    pub(crate) cluster_network_policies: usize,
    /// Addresses of this node's pods, and those among them that policies select.
    pub(crate) addresses: usize,
    pub(crate) restricted: usize,
    pub(crate) classes: usize,
    pub(crate) rules: usize,
    /// Domain names in policies that are known, and their addresses.
    #[serde(default)]
    pub(crate) names: usize,
    #[serde(default)]
    pub(crate) name_addresses: usize,
    /// Packets that were stopped.
    pub(crate) denied: Vec<DeniedView>,
    /// Stopped as well, when there was no room to say whose they were.
    pub(crate) denied_others: u64,
}

/// Packets that one policy stopped for one pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeniedView {
    pub(crate) pod: String,
    pub(crate) direction: String,
    pub(crate) by: String,
    pub(crate) packets: u64,
}

pub(super) fn summary(feed: &Feed, effects: &Effects) -> Result<PoliciesView> {
    let planner = feed.policies();
    let denials = lock(&effects.datapath)
        .denials()
        .context("reading what the kernel stopped")?;
    let mut counts: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for denial in &denials.rows {
        let pod = name_of(planner, denial.pod).unwrap_or_else(|| denial.pod.to_string());
        let key = (pod, denial.direction.to_string(), drops::by(feed, denial));
        *counts.entry(key).or_default() += denial.packets;
    }
    let denied = counts
        .into_iter()
        .map(|((pod, direction, by), packets)| DeniedView {
            pod,
            direction,
            by,
            packets,
        });
    let tables = &feed.tables().policy;
    let is_restricted = |row: &&ripstop_plan::policy::PodPolicies| {
        row.ingress != PolicyId::NONE || row.egress != PolicyId::NONE
    };
    let (network_policies, cluster_network_policies) = planner.policies();
    let (names, name_addresses) = feed.learnt.sizes();
    Ok(PoliciesView {
        names,
        name_addresses,
        network_policies,
        cluster_network_policies,
        addresses: tables.pods.len(),
        restricted: tables.pods.values().filter(is_restricted).count(),
        classes: tables.classes.len(),
        rules: tables.rules.len(),
        denied: denied.collect(),
        denied_others: denials.lost,
    })
}
