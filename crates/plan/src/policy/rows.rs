//! The rows of policies, as engines get them.
//!
//! A decision takes: the row of the local pod (its two [`PolicyId`]s), the class
//! of the other address (one longest-prefix lookup, [`ClassId::base`] if there is
//! none), and the rule of the pair. Rules that are the same as the policy's rule
//! for the base class of the family are left out, so a pair without a row is
//! decided by (policy, base). A rule gives the verdict by protocol, at once or by
//! port.
//!
//! eBPF: two hash tables and an LPM trie; verdicts by port become nodes of eight
//! sorted ports in an array (`ripstop_abi::policy`), which the programs read
//! without a helper call, so that any number of ranges costs one rule lookup. An
//! LPM trie over (policy, class, protocol, port) would do with one table, but
//! walks a node of memory for each bit in which neighbours differ.
//! nftables: an interval map from address to class and a verdict map over
//! class . protocol . port interval for each policy.
//!
//! Who keeps both families in one trie adds ::ffff:0:0/96 -> [`ClassId::V4`]:
//! short IPv6 prefixes cover the mapped addresses.
//!
//! Order for an engine without transactions: new rules and ports; classes that
//! are set, the longest prefixes first, and then those that go, the shortest
//! first; pods; then the rules and ports that go. A reader takes the pod's row
//! before the class. Then each packet gets the verdict from before or the one
//! from after (a test puts changes in place row by row).
//!
//! Each address of a local pod has a row in `pods`, also where no policy is about
//! the pod: then its two ids are [`PolicyId::NONE`], and nothing else is looked
//! up. An address that an engine has taken in as a pod's and that has no row has
//! not been planned: nothing passes but to and from its own node. So a pod is
//! closed from the moment at which the engine knows it until its row comes, and
//! an engine that loses a row closes a pod and never opens one.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use ripstop_model::Protocol;

use super::attribution::{Attribution, Direction};
use super::id::{AttributionId, ClassId, PolicyId, PortsId};

const TCP: u8 = Protocol::Tcp as u8;
const UDP: u8 = Protocol::Udp as u8;
const SCTP: u8 = Protocol::Sctp as u8;

/// What is in force on a pod of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PodPolicies {
    pub ingress: PolicyId,
    pub egress: PolicyId,
}

impl PodPolicies {
    pub(super) fn both(&self) -> [PolicyId; 2] {
        [self.ingress, self.egress]
    }

    pub fn side(&self, direction: Direction) -> PolicyId {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// Yes or no, and who said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Outcome {
    pub allowed: bool,
    pub by: AttributionId,
}

/// The verdict for one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cell {
    All(Outcome),
    ByPort(PortsId),
}

/// What a policy says of a class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleRow {
    pub tcp: Cell,
    pub udp: Cell,
    pub sctp: Cell,
    /// ICMP and everything else that has no ports.
    pub other: Outcome,
}

/// Outcomes by destination port: each from its first port up to the next one's.
/// Sorted, the first begins at 0, neighbours differ, at least two.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PortTable(pub Vec<(u16, Outcome)>);

impl PortTable {
    pub fn id(&self) -> PortsId {
        PortsId::of(self)
    }

    pub fn at(&self, port: u16) -> Outcome {
        let after = self.0.partition_point(|(first, _)| *first <= port);
        self.0[after - 1].1
    }
}

/// All rows of policies on this node. Without a policy in force there are only
/// pods, with [`PolicyId::NONE`] on both sides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyTables {
    /// By address of a local pod; one without a row is closed.
    pub pods: BTreeMap<IpAddr, PodPolicies>,
    pub classes: BTreeMap<IpNet, ClassId>,
    /// Rows of many pairs say the same, and are one.
    pub rules: BTreeMap<(PolicyId, ClassId), Arc<RuleRow>>,
    pub ports: BTreeMap<PortsId, Arc<PortTable>>,
    /// Names of what [`Outcome::by`] says.
    pub attributions: BTreeMap<AttributionId, Arc<Attribution>>,
}

/// The rows that one update changed; `None` removes the row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyChange {
    pub pods: BTreeMap<IpAddr, Option<PodPolicies>>,
    pub classes: BTreeMap<IpNet, Option<ClassId>>,
    pub rules: BTreeMap<(PolicyId, ClassId), Option<Arc<RuleRow>>>,
    pub ports: BTreeMap<PortsId, Option<Arc<PortTable>>>,
    pub attributions: BTreeMap<AttributionId, Option<Arc<Attribution>>>,
}

impl PolicyChange {
    pub fn is_empty(&self) -> bool {
        self.pods.is_empty()
            && self.classes.is_empty()
            && self.rules.is_empty()
            && self.ports.is_empty()
            && self.attributions.is_empty()
    }

    /// Adds a later change; where both have a row, the later one counts.
    pub fn merge(&mut self, later: Self) {
        self.pods.extend(later.pods);
        self.classes.extend(later.classes);
        self.rules.extend(later.rules);
        self.ports.extend(later.ports);
        self.attributions.extend(later.attributions);
    }
}

impl PolicyTables {
    /// What the rows say to a packet between a local pod and another address;
    /// `port` is the destination's. `None` if `pod` has no row: if it is a pod of
    /// this node, nothing passes.
    pub fn judge(
        &self,
        pod: IpAddr,
        direction: Direction,
        other: IpAddr,
        protocol: u8,
        port: u16,
    ) -> Option<Outcome> {
        let row = self.row(pod, direction, other)?;
        let cell = match protocol {
            TCP => row.tcp,
            UDP => row.udp,
            SCTP => row.sctp,
            _ => Cell::All(row.other),
        };
        match cell {
            Cell::All(outcome) => Some(outcome),
            Cell::ByPort(id) => Some(self.ports.get(&id)?.at(port)),
        }
    }

    /// As [`Self::judge`], for all ports of a protocol.
    pub fn judge_ports(
        &self,
        pod: IpAddr,
        direction: Direction,
        other: IpAddr,
        protocol: Protocol,
    ) -> Option<PortTable> {
        let row = self.row(pod, direction, other)?;
        let cell = match protocol {
            Protocol::Tcp => row.tcp,
            Protocol::Udp => row.udp,
            Protocol::Sctp => row.sctp,
        };
        match cell {
            Cell::All(outcome) => Some(PortTable(vec![(0, outcome)])),
            Cell::ByPort(id) => self.ports.get(&id).map(|table| PortTable::clone(table)),
        }
    }

    fn row(&self, pod: IpAddr, direction: Direction, other: IpAddr) -> Option<RuleRow> {
        let policy = self.pods.get(&pod)?.side(direction);
        let everything = |by: Attribution| {
            let outcome = Outcome {
                allowed: true,
                by: by.id(),
            };
            let [tcp, udp, sctp] = [Cell::All(outcome); 3];
            Some(RuleRow {
                tcp,
                udp,
                sctp,
                other: outcome,
            })
        };
        if policy == PolicyId::NONE {
            return everything(Attribution::Default);
        }
        if pod == other {
            return everything(Attribution::Itself);
        }
        let row = |class| {
            self.rules
                .get(&(policy, class))
                .map(|row| RuleRow::clone(row))
        };
        row(self.class(other)).or_else(|| row(ClassId::base(other.is_ipv4())))
    }

    /// The class of an address: of the longest prefix around it.
    pub fn class(&self, address: IpAddr) -> ClassId {
        let whole = IpNet::from(address);
        (0..=whole.prefix_len())
            .rev()
            .filter_map(|len| IpNet::new(address, len).ok())
            .find_map(|net| self.classes.get(&net.trunc()).copied())
            .unwrap_or(ClassId::base(address.is_ipv4()))
    }

    /// Who an outcome comes from.
    pub fn attribution(&self, outcome: Outcome) -> Attribution {
        if outcome.by == Attribution::Itself.id() {
            return Attribution::Itself;
        }
        let known = self.attributions.get(&outcome.by);
        known.map_or(Attribution::Default, |known| Attribution::clone(known))
    }

    pub fn apply(&mut self, change: &PolicyChange) {
        apply(&mut self.pods, &change.pods);
        apply(&mut self.classes, &change.classes);
        apply(&mut self.rules, &change.rules);
        apply(&mut self.ports, &change.ports);
        apply(&mut self.attributions, &change.attributions);
    }
}

fn apply<K: Ord + Clone, V: Clone>(table: &mut BTreeMap<K, V>, change: &BTreeMap<K, Option<V>>) {
    for (key, row) in change {
        match row {
            Some(row) => drop(table.insert(key.clone(), row.clone())),
            None => drop(table.remove(key)),
        }
    }
}
