//! NetworkPolicy v1.

use super::Rule;
use crate::{LabelSelector, ObjectKey};

/// A NetworkPolicy (networking.k8s.io/v1), `policyTypes` defaulted.
/// <https://kubernetes.io/docs/concepts/services-networking/network-policies/>
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPolicy {
    pub key: ObjectKey,
    pub pod_selector: LabelSelector,
    /// What may come in, if the policy is about that: then the pods that it
    /// selects are isolated, and no rule means that nothing may.
    pub ingress: Option<Vec<Rule>>,
    /// What may go out; as `ingress`.
    pub egress: Option<Vec<Rule>>,
    /// It is only to be said what it would deny.
    pub dry_run: bool,
}
