//! What is in force on one side of a pod, for people.

use std::sync::Arc;

use ripstop_model::{Action, DomainPattern, ObjectKey};

use super::attribution::Attribution;
use super::part::{Part, Rank};

/// Rules of one direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InForce {
    /// The first that matches counts; Pass goes to the next tier.
    pub rules: Vec<RuleInForce>,
    /// NetworkPolicies that isolate the pod: what none of them allows is denied,
    /// and no Baseline rule is asked. Empty: nothing is denied but by a rule.
    pub isolated_by: Vec<ObjectKey>,
    /// Some rule of a NetworkPolicy accepts everything: nothing is left to deny.
    pub is_open: bool,
}

/// One rule, said in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleInForce {
    pub action: Action,
    /// Who is at the other end.
    pub peers: String,
    /// Domain names among them.
    pub domains: Vec<DomainPattern>,
    pub ports: String,
    pub by: Attribution,
}

impl InForce {
    pub(super) fn new(parts: &[Arc<Part>]) -> Self {
        let mut rules = Vec::new();
        let mut isolated_by = Vec::new();
        let mut is_open = false;
        for part in parts {
            if let Rank::Network(key) = &*part.rank {
                isolated_by.push(key.clone());
            }
            is_open |= matches!(*part.rank, Rank::Network(_))
                && part
                    .rules
                    .iter()
                    .any(|rule| rule.peers.is_none() && rule.ports.is_none());
            for (rule, (_, by)) in part.rules.iter().zip(&part.attributions) {
                let peers = rule.peers.and_then(|id| {
                    let mut peers = part.peers.iter();
                    peers.find(|(known, _)| *known == id)
                });
                let peers = peers.map(|(_, peers)| peers);
                let domains = peers.map(|peers| peers.domains.iter().cloned().collect());
                let ports = rule.ports.as_ref().map(|ports| {
                    let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
                    match ports.is_empty() {
                        true => "no port".to_owned(),
                        false => ports.join(", "),
                    }
                });
                rules.push(RuleInForce {
                    action: rule.action,
                    peers: peers.map_or_else(|| "everybody".to_owned(), ToString::to_string),
                    domains: domains.unwrap_or_default(),
                    ports: ports.unwrap_or_else(|| "every port".to_owned()),
                    by: Attribution::clone(by),
                });
            }
        }
        Self {
            rules,
            isolated_by,
            is_open,
        }
    }
}
