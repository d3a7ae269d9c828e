//! ClusterNetworkPolicy v1alpha2.

use std::fmt;

use super::Rule;
use crate::LabelSelector;

/// A ClusterNetworkPolicy (policy.networking.k8s.io/v1alpha2).
/// <https://network-policy-api.sigs.k8s.io/api-overview/>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterNetworkPolicy {
    pub name: String,
    pub tier: Tier,
    /// 0 to 1000, the lower ones first; among equal ones the names decide.
    pub priority: u16,
    pub subject: ClusterSubject,
    /// The first that matches counts.
    pub ingress: Vec<ClusterRule>,
    pub egress: Vec<ClusterRule>,
    /// It is only to be said what it would deny.
    pub dry_run: bool,
}

/// Before or after NetworkPolicies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    Admin,
    Baseline,
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Admin => "Admin",
            Self::Baseline => "Baseline",
        })
    }
}

/// Pods that a policy applies to; `pods` is empty for all of the namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterSubject {
    pub namespaces: LabelSelector,
    pub pods: LabelSelector,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterRule {
    pub name: Option<String>,
    pub action: Action,
    pub rule: Rule,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    Accept,
    Deny,
    /// On to the next tier.
    Pass,
}
