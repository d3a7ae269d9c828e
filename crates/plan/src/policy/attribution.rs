//! Which object and rule a verdict comes from.

use std::fmt;

use ripstop_model::{ObjectKey, Tier};

use super::id::AttributionId;

/// Of the pod whose policy is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    Ingress,
    Egress,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        })
    }
}

/// Who said so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribution {
    /// No policy is about it.
    Default,
    /// A pod and the node it is on can always talk, as far as NetworkPolicies
    /// are concerned.
    OwnNode,
    /// A pod reaches itself.
    Itself,
    /// A rule of a NetworkPolicy, by its index.
    NetworkPolicy {
        key: ObjectKey,
        direction: Direction,
        rule: usize,
    },
    /// NetworkPolicies select the pod, and no rule of any allows it. Sorted.
    Isolated { by: Vec<ObjectKey> },
    /// A rule of a ClusterNetworkPolicy, by its index.
    ClusterNetworkPolicy {
        name: String,
        tier: Tier,
        direction: Direction,
        rule: usize,
        /// The rule's own name.
        rule_name: Option<String>,
    },
    /// The pod is here, its object (with its labels) is not yet: nothing passes.
    UnknownPod { pod: ObjectKey },
    /// The packet is in the middle of a TCP connection that is not known, and its
    /// beginning would be denied. An engine's word: no row of the plan has it.
    NoConnection,
}

impl Attribution {
    pub fn id(&self) -> AttributionId {
        match self {
            Self::Default => AttributionId::DEFAULT,
            Self::Itself => AttributionId::ITSELF,
            Self::NoConnection => AttributionId::NO_CONNECTION,
            other => AttributionId::of(other),
        }
    }
}

impl fmt::Display for Attribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("no policy is about it"),
            Self::OwnNode => f.write_str("the node of the pod"),
            Self::Itself => f.write_str("the pod itself"),
            Self::NetworkPolicy {
                key,
                direction,
                rule,
            } => write!(f, "networkpolicy {key} {direction}[{rule}]"),
            Self::Isolated { by } => {
                f.write_str("isolated by ")?;
                match by.as_slice() {
                    [] => f.write_str("nobody")?,
                    [one] => write!(f, "{one}")?,
                    [one, two] => write!(f, "{one} and {two}")?,
                    [one, rest @ ..] => write!(f, "{one} and {} others", rest.len())?,
                }
                f.write_str(", allowed by none")
            }
            Self::ClusterNetworkPolicy {
                name,
                tier,
                direction,
                rule,
                rule_name,
            } => {
                write!(
                    f,
                    "clusternetworkpolicy {name} ({tier}) {direction}[{rule}]"
                )?;
                match rule_name {
                    Some(rule_name) => write!(f, " {rule_name:?}"),
                    None => Ok(()),
                }
            }
            Self::NoConnection => f.write_str("no connection is known that it is of"),
            Self::UnknownPod { pod } => write!(f, "pod {pod} is not known yet"),
        }
    }
}
