//! What is in force on one side of a pod: all of its policies, in order.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ripstop_model::{Action, ContainerPort, ObjectKey, Pod, PortMatch, Protocol};

use super::attribution::{Attribution, Direction};
use super::id::{AttributionId, PeersId, PolicyId};
use super::part::{Named, Part, Rank};
use super::peers::Peers;

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// Rules of one direction, the ones that are asked first in front.
#[derive(Clone, Debug)]
pub(super) struct Side {
    pub(super) rules: Vec<SideRule>,
    /// Rules by the peers that they need.
    pub(super) rules_of: HashMap<PeersId, Vec<u32>>,
    /// Rules for everybody.
    pub(super) everybody: Vec<u32>,
    /// NetworkPolicies are among them: then what none of them allows is denied.
    pub(super) isolated: Option<AttributionId>,
    /// Ports of the other end that rules name.
    pub(super) names: BTreeSet<String>,
    /// Names that are resolved here, as the pod is the destination.
    pub(super) ports: Vec<ContainerPort>,
    pub(super) peers: Vec<(PeersId, Arc<Peers>)>,
    pub(super) attributions: Vec<Named>,
    /// Local pods that have it.
    pub(super) users: usize,
}

#[derive(Clone, Debug)]
pub(super) struct SideRule {
    pub(super) stage: Stage,
    pub(super) action: Action,
    pub(super) ports: Option<Vec<PortMatch>>,
    pub(super) by: AttributionId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Admin,
    Network,
    Baseline,
}

/// What a side is made of.
#[derive(Clone, Debug)]
pub(super) struct SideKey<'a> {
    pub(super) direction: Direction,
    /// By rank.
    pub(super) parts: &'a [Arc<Part>],
    ports: Vec<ContainerPort>,
}

impl<'a> SideKey<'a> {
    pub(super) fn new(direction: Direction, parts: &'a [Arc<Part>], pod: &Pod) -> Self {
        let mut ports = Vec::new();
        // What comes in comes to the pod's own ports.
        if direction == Direction::Ingress {
            for name in parts.iter().flat_map(|part| &part.names) {
                for protocol in PROTOCOLS {
                    ports.extend(pod.port(name, protocol).map(|port| ContainerPort {
                        name: name.as_str().into(),
                        protocol,
                        port,
                    }));
                }
            }
            ports.sort_unstable();
            ports.dedup();
        }
        Self {
            direction,
            parts,
            ports,
        }
    }

    pub(super) fn id(&self) -> PolicyId {
        if self.parts.is_empty() {
            return PolicyId::NONE;
        }
        let parts: Vec<_> = self.parts.iter().map(|part| part.hash).collect();
        PolicyId::of(&(self.direction, parts, &self.ports))
    }

    pub(super) fn build(self) -> Side {
        let mut side = Side::empty();
        let mut isolating = Vec::new();
        for part in self.parts {
            let stage = match &*part.rank {
                Rank::Admin(..) => Stage::Admin,
                Rank::Network(key) => {
                    isolating.push(key.clone());
                    Stage::Network
                }
                Rank::Baseline(..) => Stage::Baseline,
            };
            for rule in &part.rules {
                let index = u32::try_from(side.rules.len()).unwrap_or(u32::MAX);
                match rule.peers {
                    Some(peers) => side.rules_of.entry(peers).or_default().push(index),
                    None => side.everybody.push(index),
                }
                side.rules.push(SideRule {
                    stage,
                    action: rule.action,
                    ports: rule.ports.clone(),
                    by: rule.by,
                });
            }
            side.peers.extend(part.peers.iter().cloned());
            side.attributions.extend(part.attributions.iter().cloned());
            if self.direction == Direction::Egress {
                side.names.extend(part.names.iter().cloned());
            }
        }
        side.ports = self.ports;
        side.peers.sort_unstable_by_key(|(id, _)| *id);
        side.peers.dedup_by_key(|(id, _)| *id);
        if !isolating.is_empty() {
            side.isolate(Attribution::Isolated { by: isolating });
        }
        side
    }
}

fn named(attribution: Attribution) -> Named {
    (attribution.id(), Arc::new(attribution))
}

impl Side {
    fn empty() -> Self {
        Self {
            rules: Vec::new(),
            rules_of: HashMap::new(),
            everybody: Vec::new(),
            isolated: None,
            names: BTreeSet::new(),
            ports: Vec::new(),
            peers: Vec::new(),
            attributions: vec![named(Attribution::Default)],
            users: 0,
        }
    }

    /// For a pod of which nobody knows what is in force: nothing passes.
    pub(super) fn unknown(pod: ObjectKey) -> (PolicyId, Self) {
        let mut side = Self::empty();
        let by = Attribution::UnknownPod { pod };
        let id = PolicyId::of(&by);
        side.isolate(by);
        (id, side)
    }

    fn isolate(&mut self, by: Attribution) {
        self.isolated = Some(by.id());
        self.attributions.push(named(by));
        self.attributions.push(named(Attribution::OwnNode));
    }

    /// Peers whose presence in a class makes a difference.
    pub(super) fn interests(&self) -> impl Iterator<Item = PeersId> {
        let own_node = self.isolated.map(|_| PeersId::OWN_NODE);
        self.rules_of.keys().copied().chain(own_node)
    }
}
