//! One direction of one policy, ready to be put together with others.

use std::collections::BTreeSet;
use std::sync::Arc;

use ripstop_model::{
    Action, ClusterNetworkPolicy, NetworkPolicy, ObjectKey, PortMatch, PortSet, Rule, Tier,
};

use super::attribution::{Attribution, Direction};
use super::id::{AttributionId, PeersId, PolicyId};
use super::peers::Peers;

/// Where a policy stands among those of a pod: Admin by priority and name, then
/// NetworkPolicies by name, then Baseline.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Rank {
    Admin(u16, String),
    Network(ObjectKey),
    Baseline(u16, String),
}

/// What one policy says about one direction.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) rank: Arc<Rank>,
    /// Of everything in here.
    pub(super) hash: u64,
    pub(super) rules: Vec<PartRule>,
    /// What the rules' ids stand for.
    pub(super) peers: Vec<(PeersId, Arc<Peers>)>,
    pub(super) attributions: Vec<Named>,
    /// Port names that the rules use.
    pub(super) names: BTreeSet<String>,
}

/// An attribution with its id, which takes a while to make.
pub(super) type Named = (AttributionId, Arc<Attribution>);

/// A rule with its peers and its origin as ids.
#[derive(Clone, Debug, Hash)]
pub(super) struct PartRule {
    pub(super) action: Action,
    /// `None`: everybody.
    pub(super) peers: Option<PeersId>,
    pub(super) ports: Option<Vec<PortMatch>>,
    pub(super) by: AttributionId,
}

/// The parts of one policy object.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    pub(super) ingress: Option<Arc<Part>>,
    pub(super) egress: Option<Arc<Part>>,
}

impl Parts {
    pub(super) fn of(&self, direction: Direction) -> Option<&Arc<Part>> {
        match direction {
            Direction::Ingress => self.ingress.as_ref(),
            Direction::Egress => self.egress.as_ref(),
        }
    }

    pub(super) fn network(policy: &NetworkPolicy) -> Self {
        let part = |direction, rules: &Option<Vec<Rule>>| {
            let rules = rules.as_ref()?;
            let mut part = Builder::new(Some(&policy.key.namespace));
            for (index, rule) in rules.iter().enumerate() {
                let by = Attribution::NetworkPolicy {
                    key: policy.key.clone(),
                    direction,
                    rule: index,
                };
                part.add(Action::Accept, rule, by);
            }
            Some(part.finish(Rank::Network(policy.key.clone())))
        };
        Self {
            ingress: part(Direction::Ingress, &policy.ingress),
            egress: part(Direction::Egress, &policy.egress),
        }
    }

    pub(super) fn cluster(policy: &ClusterNetworkPolicy) -> Self {
        let rank = |name: &str| match policy.tier {
            Tier::Admin => Rank::Admin(policy.priority, name.to_owned()),
            Tier::Baseline => Rank::Baseline(policy.priority, name.to_owned()),
        };
        let part = |direction, rules: &[ripstop_model::ClusterRule]| {
            // Without rules it is not about this direction.
            if rules.is_empty() {
                return None;
            }
            let mut part = Builder::new(None);
            for (index, rule) in rules.iter().enumerate() {
                let by = Attribution::ClusterNetworkPolicy {
                    name: policy.name.clone(),
                    tier: policy.tier,
                    direction,
                    rule: index,
                    rule_name: rule.name.clone(),
                };
                part.add(rule.action, &rule.rule, by);
            }
            Some(part.finish(rank(&policy.name)))
        };
        Self {
            ingress: part(Direction::Ingress, &policy.ingress),
            egress: part(Direction::Egress, &policy.egress),
        }
    }
}

struct Builder<'a> {
    namespace: Option<&'a str>,
    rules: Vec<PartRule>,
    peers: Vec<(PeersId, Arc<Peers>)>,
    attributions: Vec<Named>,
    names: BTreeSet<String>,
}

impl<'a> Builder<'a> {
    fn new(namespace: Option<&'a str>) -> Self {
        Self {
            namespace,
            rules: Vec::new(),
            peers: Vec::new(),
            attributions: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    fn add(&mut self, action: Action, rule: &Rule, by: Attribution) {
        let peers = rule.peers.as_ref().map(|peers| {
            let peers = Peers::new(peers, self.namespace);
            let id = peers.id();
            if self.peers.iter().all(|(known, _)| *known != id) {
                self.peers.push((id, Arc::new(peers)));
            }
            id
        });
        for port in rule.ports.iter().flatten() {
            if let PortSet::Named(name) = &port.ports {
                self.names.insert(name.clone());
            }
        }
        self.rules.push(PartRule {
            action,
            peers,
            ports: rule.ports.clone(),
            by: by.id(),
        });
        self.attributions.push((by.id(), Arc::new(by)));
    }

    fn finish(self, rank: Rank) -> Arc<Part> {
        Arc::new(Part {
            hash: PolicyId::of(&(&rank, &self.rules)).number(),
            rank: Arc::new(rank),
            rules: self.rules,
            peers: self.peers,
            attributions: self.attributions,
            names: self.names,
        })
    }
}
