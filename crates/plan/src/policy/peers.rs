//! The other ends that a rule names, in one form for every kind of policy.

use std::collections::BTreeSet;
use std::fmt;

use ipnet::IpNet;
use ripstop_model::{DomainPattern, LabelSelector, Labels, NamespaceScope, Peer};

use super::id::PeersId;

/// Peers of one rule: an address matches if one of them does. One rule's blocks
/// stay together, so that a hundred thousand of them are one class and not a
/// hundred thousand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Peers {
    pub(super) pods: BTreeSet<PodSelector>,
    pub(super) blocks: BTreeSet<Block>,
    pub(super) nodes: BTreeSet<LabelSelector>,
    pub(super) domains: BTreeSet<DomainPattern>,
}

/// Pods of one namespace or of some.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PodSelector {
    pub(super) namespaces: Namespaces,
    pub(super) pods: LabelSelector,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Namespaces {
    One(String),
    Selected(LabelSelector),
}

/// A range without its exceptions, which are inside of it and apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Block {
    pub(super) cidr: IpNet,
    pub(super) except: Vec<IpNet>,
}

impl Block {
    /// `None` if nothing is left of it.
    fn new(cidr: IpNet, except: &[IpNet]) -> Option<Self> {
        let cidr = cidr.trunc();
        let except: Vec<_> = except.iter().map(IpNet::trunc).collect();
        if except.iter().any(|one| one.contains(&cidr)) {
            return None;
        }
        // What is outside of the block excepts nothing.
        let inside = except.into_iter().filter(|one| cidr.contains(one));
        let except = IpNet::aggregate(&inside.collect());
        // Aggregated exceptions can add up to the whole.
        (except != [cidr]).then_some(Self { cidr, except })
    }
}

impl Peers {
    /// `namespace` is the policy's own, if it has one.
    pub(super) fn new(peers: &[Peer], namespace: Option<&str>) -> Self {
        let mut all = Self::default();
        for peer in peers {
            match peer {
                Peer::Pods { namespaces, pods } => {
                    let namespaces = match (namespaces, namespace) {
                        (NamespaceScope::Own, Some(own)) => Namespaces::One(own.to_owned()),
                        // A policy without a namespace has no pods of its own.
                        (NamespaceScope::Own, None) => continue,
                        (NamespaceScope::Selected(selector), _) => {
                            Namespaces::Selected(selector.clone())
                        }
                    };
                    let pods = pods.clone();
                    all.pods.insert(PodSelector { namespaces, pods });
                }
                Peer::Block { cidr, except } => all.blocks.extend(Block::new(*cidr, except)),
                Peer::Nodes(selector) => drop(all.nodes.insert(selector.clone())),
                Peer::Domain(pattern) => drop(all.domains.insert(pattern.clone())),
            }
        }
        all
    }

    pub(super) fn members(&self) -> usize {
        self.pods.len() + self.blocks.len() + self.nodes.len() + self.domains.len()
    }

    pub(super) fn id(&self) -> PeersId {
        PeersId::of(self)
    }
}

impl fmt::Display for Peers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pods = self.pods.iter().map(ToString::to_string);
        let blocks = self.blocks.iter().map(ToString::to_string);
        let nodes = self.nodes.iter().map(|nodes| format!("nodes {nodes}"));
        let domains = self.domains.iter().map(ToString::to_string);
        let all: Vec<_> = pods.chain(blocks).chain(nodes).chain(domains).collect();
        match all.is_empty() {
            true => f.write_str("nobody"),
            false => f.write_str(&all.join("; ")),
        }
    }
}

impl fmt::Display for PodSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pods.is_empty() {
            true => f.write_str("all pods")?,
            false => write!(f, "pods {}", self.pods)?,
        }
        match &self.namespaces {
            Namespaces::One(name) => write!(f, " of {name}"),
            Namespaces::Selected(by) if by.is_empty() => f.write_str(" of all namespaces"),
            Namespaces::Selected(by) => write!(f, " of namespaces {by}"),
        }
    }
}

impl fmt::Display for Block {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.cidr)?;
        for (index, one) in self.except.iter().enumerate() {
            write!(f, "{}{one}", if index == 0 { " except " } else { ", " })?;
        }
        Ok(())
    }
}

impl PodSelector {
    /// `namespace`: name and labels of the pod's.
    pub(super) fn matches(&self, namespace: (&str, &Labels), pod: &Labels) -> bool {
        self.pods.matches(pod) && self.namespaces.matches(namespace)
    }
}

impl Namespaces {
    pub(super) fn matches(&self, (name, labels): (&str, &Labels)) -> bool {
        match self {
            Self::One(one) => one == name,
            Self::Selected(selector) => selector.matches(labels),
        }
    }
}
