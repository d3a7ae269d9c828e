//! What the API's documentation says, read aloud: slow, obvious, and without a
//! line of the planner's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ripstop_model::{
    Action, ClusterNetworkPolicy, ClusterRule, Labels, Namespace, NamespaceScope, NetworkPolicy,
    NodeIdentity, ObjectKey, Peer, Pod, PortMatch, PortSet, PortsOf, Protocol, Rule, Tier,
};
use ripstop_plan::policy::{Attribution, Direction};

/// A cluster, as its objects are, and the node from which it is looked at.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) own_node: String,
    pub(crate) namespaces: BTreeMap<String, Namespace>,
    pub(crate) pods: BTreeMap<ObjectKey, Pod>,
    pub(crate) nodes: BTreeMap<String, NodeIdentity>,
    pub(crate) policies: BTreeMap<ObjectKey, NetworkPolicy>,
    pub(crate) cluster: BTreeMap<String, ClusterNetworkPolicy>,
    pub(crate) names: BTreeMap<String, Vec<IpAddr>>,
}

/// A packet that opens a connection, as one of its ends sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Packet<'a> {
    pub(crate) pod: &'a Pod,
    pub(crate) address: IpAddr,
    pub(crate) direction: Direction,
    pub(crate) other: IpAddr,
    /// `None`: ICMP and other protocols without ports.
    pub(crate) protocol: Option<Protocol>,
    pub(crate) port: u16,
}

type Verdict = (bool, Attribution);

impl World {
    pub(crate) fn judge(&self, packet: Packet<'_>) -> Verdict {
        if !self.namespaces.contains_key(&packet.pod.key.namespace) {
            return self.unknown(packet);
        }
        // "A pod cannot block access to itself"; a pod connecting to its own
        // address is not subject to ClusterNetworkPolicy.
        if packet.address == packet.other
            && (!self.network_policies(packet).is_empty() || !self.cluster_rules(packet).is_empty())
        {
            return (true, Attribution::Itself);
        }
        if let Some(verdict) = self.tier(Tier::Admin, packet) {
            return verdict;
        }
        if let Some(verdict) = self.network_tier(packet) {
            return verdict;
        }
        if let Some(verdict) = self.tier(Tier::Baseline, packet) {
            return verdict;
        }
        // "All pods can communicate with each other."
        (true, Attribution::Default)
    }

    /// Nobody can say yet which policies select the pod: nothing but what is
    /// always allowed.
    fn unknown(&self, packet: Packet<'_>) -> Verdict {
        if packet.address == packet.other {
            return (true, Attribution::Itself);
        }
        if self.is_own_node(packet.other) {
            return (true, Attribution::OwnNode);
        }
        let pod = packet.pod.key.clone();
        (false, Attribution::UnknownPod { pod })
    }

    fn is_own_node(&self, address: IpAddr) -> bool {
        let own = self.nodes.get(&self.own_node);
        own.is_some_and(|node| node.addresses.contains(&address))
    }

    /// Rules of all ClusterNetworkPolicies that select the pod, of both tiers.
    fn cluster_rules<'a>(
        &'a self,
        packet: Packet<'_>,
    ) -> Vec<(&'a ClusterNetworkPolicy, usize, &'a ClusterRule)> {
        // "Host-networked pods are not included in subject selection."
        if packet.pod.host_network {
            return Vec::new();
        }
        let mut policies: Vec<_> = self.cluster.values().collect();
        policies.sort_by_key(|policy| (policy.tier, policy.priority, &policy.name));
        let mut rules = Vec::new();
        for policy in policies {
            let namespace = self.labels_of(&packet.pod.key.namespace);
            if policy.subject.namespaces.matches(&namespace)
                && policy.subject.pods.matches(&packet.pod.labels)
            {
                let of = match packet.direction {
                    Direction::Ingress => &policy.ingress,
                    Direction::Egress => &policy.egress,
                };
                rules.extend(of.iter().enumerate().map(|(i, rule)| (policy, i, rule)));
            }
        }
        rules
    }

    /// "The first rule that matches" of a tier; Pass goes to the next one.
    fn tier(&self, tier: Tier, packet: Packet<'_>) -> Option<Verdict> {
        for (policy, index, rule) in self.cluster_rules(packet) {
            if policy.tier == tier && self.rule_matches(&rule.rule, None, packet) {
                let by = Attribution::ClusterNetworkPolicy {
                    name: policy.name.clone(),
                    tier,
                    direction: packet.direction,
                    rule: index,
                    rule_name: rule.name.clone(),
                };
                return match rule.action {
                    Action::Accept => Some((true, by)),
                    Action::Deny => Some((false, by)),
                    Action::Pass => None,
                };
            }
        }
        None
    }

    /// NetworkPolicies that select the pod and are about the direction, with
    /// their rules.
    fn network_policies<'a>(
        &'a self,
        packet: Packet<'_>,
    ) -> Vec<(&'a NetworkPolicy, &'a Vec<Rule>)> {
        let pod = packet.pod;
        if pod.host_network {
            return Vec::new();
        }
        let selecting = self.policies.values().filter(|policy| {
            policy.key.namespace == pod.key.namespace && policy.pod_selector.matches(&pod.labels)
        });
        let about = selecting.filter_map(|policy| {
            let rules = match packet.direction {
                Direction::Ingress => policy.ingress.as_ref()?,
                Direction::Egress => policy.egress.as_ref()?,
            };
            Some((policy, rules))
        });
        about.collect()
    }

    /// "Once isolated, only connections that some rule of some policy allows";
    /// "traffic to and from the node where a Pod is running is always allowed".
    fn network_tier(&self, packet: Packet<'_>) -> Option<Verdict> {
        let policies = self.network_policies(packet);
        if policies.is_empty() {
            return None;
        }
        for (policy, rules) in &policies {
            for (index, rule) in rules.iter().enumerate() {
                if self.rule_matches(rule, Some(&policy.key.namespace), packet) {
                    let by = Attribution::NetworkPolicy {
                        key: policy.key.clone(),
                        direction: packet.direction,
                        rule: index,
                    };
                    return Some((true, by));
                }
            }
        }
        if self.is_own_node(packet.other) {
            return Some((true, Attribution::OwnNode));
        }
        let by = policies
            .iter()
            .map(|(policy, _)| policy.key.clone())
            .collect();
        Some((false, Attribution::Isolated { by }))
    }

    fn rule_matches(&self, rule: &Rule, namespace: Option<&str>, packet: Packet<'_>) -> bool {
        let peers = match &rule.peers {
            None => true,
            Some(peers) => peers
                .iter()
                .any(|peer| self.is_peer(peer, namespace, packet.other)),
        };
        let ports = match &rule.ports {
            None => true,
            Some(ports) => ports.iter().any(|port| self.is_port(port, packet)),
        };
        peers && ports
    }

    fn is_peer(&self, peer: &Peer, own: Option<&str>, other: IpAddr) -> bool {
        match peer {
            Peer::Pods { namespaces, pods } => self.pod_at(other).is_some_and(|pod| {
                let namespace = match namespaces {
                    NamespaceScope::Own => Some(pod.key.namespace.as_str()) == own,
                    NamespaceScope::Selected(selector) => {
                        selector.matches(&self.labels_of(&pod.key.namespace))
                    }
                };
                namespace && pods.matches(&pod.labels)
            }),
            Peer::Block { cidr, except } => {
                cidr.contains(&other) && !except.iter().any(|one| one.contains(&other))
            }
            Peer::Nodes(selector) => self
                .nodes
                .values()
                .any(|node| selector.matches(&node.labels) && node.addresses.contains(&other)),
            Peer::Domain(pattern) => self
                .names
                .iter()
                .any(|(name, addresses)| pattern.matches(name) && addresses.contains(&other)),
        }
    }

    fn is_port(&self, port: &PortMatch, packet: Packet<'_>) -> bool {
        let Some(protocol) = packet.protocol else {
            return false;
        };
        let right_protocol = match port.protocol {
            PortsOf::Protocol(one) => one == protocol,
            PortsOf::Any => true,
        };
        let right_number = match &port.ports {
            PortSet::Range(range) => range.contains(&packet.port),
            PortSet::Named(name) => {
                let destination = match packet.direction {
                    Direction::Ingress => Some(packet.pod),
                    Direction::Egress => self.pod_at(packet.other),
                };
                let first = destination.and_then(|pod| {
                    let mut ports = pod.ports.iter();
                    ports.find(|one| *one.name == **name && one.protocol == protocol)
                });
                first.is_some_and(|one| one.port == packet.port)
            }
        };
        right_protocol && right_number
    }

    /// Pods on the host's network are their node to everybody else, and pods
    /// that have ended have no address.
    fn pod_at(&self, address: IpAddr) -> Option<&Pod> {
        self.pods
            .values()
            .find(|pod| !pod.host_network && !pod.ended && pod.addresses.contains(&address))
    }

    fn labels_of(&self, namespace: &str) -> Labels {
        let known = self.namespaces.get(namespace);
        known
            .map(|namespace| namespace.labels.clone())
            .unwrap_or_default()
    }
}
