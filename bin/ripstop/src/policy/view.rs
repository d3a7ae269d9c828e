//! What is in force on a pod, for people and for other programs.

use std::fmt::Write;

use ripstop_model::{Action, Tier};
use ripstop_plan::policy::{Attribution, Direction, InForce};
use serde::{Deserialize, Serialize};

/// One direction of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct SideView {
    /// In the order in which they are asked.
    pub(crate) rules: Vec<RuleView>,
    /// NetworkPolicies that isolate it.
    pub(crate) isolated_by: Vec<String>,
    /// Some rule accepts everything: nothing is left to deny.
    pub(crate) open: bool,
    /// What becomes of everything else, and why.
    pub(crate) otherwise: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RuleView {
    pub(crate) action: String,
    pub(crate) peers: String,
    pub(crate) ports: String,
    pub(crate) by: String,
    /// False for a Baseline rule of a pod that NetworkPolicies isolate.
    pub(crate) asked: bool,
}

impl SideView {
    pub(crate) fn new(in_force: &InForce) -> Self {
        let isolated = !in_force.isolated_by.is_empty();
        let rules = in_force.rules.iter().map(|rule| RuleView {
            action: word(rule.action).to_owned(),
            peers: rule.peers.clone(),
            ports: rule.ports.clone(),
            by: rule.by.to_string(),
            asked: !(isolated && is_baseline(&rule.by)),
        });
        let otherwise = match isolated {
            true => Attribution::Isolated {
                by: in_force.isolated_by.clone(),
            },
            false => Attribution::Default,
        };
        Self {
            rules: rules.collect(),
            isolated_by: in_force
                .isolated_by
                .iter()
                .map(ToString::to_string)
                .collect(),
            open: in_force.is_open,
            otherwise: otherwise.to_string(),
        }
    }

    pub(crate) fn text(&self, direction: Direction) -> String {
        let mut text = format!("{direction}\n");
        for rule in &self.rules {
            let RuleView {
                action,
                peers,
                ports,
                by,
                asked,
            } = rule;
            let skipped = match asked {
                true => "",
                false => " (not asked: NetworkPolicies select the pod)",
            };
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {action:<6} {peers}, {ports}: {by}{skipped}");
        }
        if !self.open {
            let verdict = match self.isolated_by.is_empty() {
                true => "accept",
                false => "deny",
            };
            let _ = writeln!(text, "  {verdict:<6} everything else: {}", self.otherwise);
        }
        text
    }
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}

fn is_baseline(by: &Attribution) -> bool {
    let tier = match by {
        Attribution::ClusterNetworkPolicy { tier, .. } => Some(*tier),
        _ => None,
    };
    tier == Some(Tier::Baseline)
}
