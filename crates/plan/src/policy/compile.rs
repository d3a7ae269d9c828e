//! A side's rules against one class: the row.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use ripstop_model::{Action, ContainerPort, PortMatch, PortSet, Protocol};

use super::attribution::Attribution;
use super::id::{PeersId, PortsId};
use super::rows::{Cell, Outcome, PortTable, RuleRow};
use super::side::{Side, Stage};

/// What all addresses of a class have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct ClassContent {
    /// Sorted.
    pub(super) peers: Vec<PeersId>,
    /// Named ports of the pod there, as far as rules name them. Sorted.
    pub(super) ports: Vec<ContainerPort>,
}

impl ClassContent {
    pub(super) fn has(&self, peers: PeersId) -> bool {
        self.peers.binary_search(&peers).is_ok()
    }
}

/// Indexes of the rules that are about a class, in order.
pub(super) fn matching(side: &Side, class: &ClassContent) -> Vec<u32> {
    let mut rules = side.everybody.clone();
    if side.rules_of.len() < class.peers.len() {
        for (peers, of) in &side.rules_of {
            if class.has(*peers) {
                rules.extend(of);
            }
        }
    } else {
        for peers in &class.peers {
            rules.extend(side.rules_of.get(peers).into_iter().flatten());
        }
    }
    rules.sort_unstable();
    rules
}

/// A compiled row with the tables that it refers to.
#[derive(Clone, Debug)]
pub(super) struct Compiled {
    pub(super) row: Arc<RuleRow>,
    pub(super) tables: Vec<(PortsId, Arc<PortTable>)>,
}

/// What `rules` (from [`matching`]) say of the class.
pub(super) fn compile(side: &Side, class: &ClassContent, rules: &[u32]) -> Compiled {
    let named = match side.names.is_empty() {
        true => &side.ports,
        false => &class.ports,
    };
    let otherwise = Otherwise::new(side, class);
    let mut columns: [Column; 3] = Default::default();
    let mut everywhere = Active::default();
    for &index in rules {
        let Some(ports) = &side.rules[index as usize].ports else {
            everywhere.add(side, index);
            continue;
        };
        for PortMatch { protocol, ports } in ports {
            match ports {
                PortSet::Range(range) => {
                    for (column, of) in columns.iter_mut().zip(PROTOCOLS) {
                        if protocol.includes(of) {
                            column.rule(*range.start(), *range.end(), index);
                        }
                    }
                }
                PortSet::Named(name) => {
                    let ports = named.iter().filter(|port| *port.name == **name);
                    for port in ports.filter(|port| protocol.includes(port.protocol)) {
                        let at = PROTOCOLS.iter().position(|of| *of == port.protocol);
                        if let Some(at) = at {
                            columns[at].rule(port.port, port.port, index);
                        }
                    }
                }
            }
        }
    }
    let mut tables = Vec::new();
    let [tcp, udp, sctp] = columns.map(|column| {
        let table = column.outcomes(side, everywhere.clone(), &otherwise);
        if let [(_, one)] = table.0.as_slice() {
            return Cell::All(*one);
        }
        let id = table.id();
        tables.push((id, Arc::new(table)));
        Cell::ByPort(id)
    });
    Compiled {
        row: Arc::new(RuleRow {
            tcp,
            udp,
            sctp,
            other: everywhere.outcome(side, &otherwise),
        }),
        tables,
    }
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// What is decided where no rule is about it.
#[derive(Debug)]
struct Otherwise {
    /// After the NetworkPolicies, if there are any.
    isolated: Option<Outcome>,
    /// After everything.
    default: Outcome,
}

impl Otherwise {
    fn new(side: &Side, class: &ClassContent) -> Self {
        let own_node = Outcome {
            allowed: true,
            by: Attribution::OwnNode.id(),
        };
        Self {
            isolated: side.isolated.map(|by| match class.has(PeersId::OWN_NODE) {
                true => own_node,
                false => Outcome { allowed: false, by },
            }),
            default: Outcome {
                allowed: true,
                by: Attribution::Default.id(),
            },
        }
    }
}

/// The rules that are about one port, by stage; the least index comes first.
#[derive(Clone, Debug, Default)]
struct Active([BTreeSet<u32>; 3]);

impl Active {
    fn of(&mut self, side: &Side, index: u32) -> &mut BTreeSet<u32> {
        &mut self.0[side.rules[index as usize].stage as usize]
    }

    fn add(&mut self, side: &Side, index: u32) {
        self.of(side, index).insert(index);
    }

    fn remove(&mut self, side: &Side, index: u32) {
        self.of(side, index).remove(&index);
    }

    fn outcome(&self, side: &Side, otherwise: &Otherwise) -> Outcome {
        for (stage, rules) in self.0.iter().enumerate() {
            let first = rules.first().map(|index| &side.rules[*index as usize]);
            let allowed = match first.map(|rule| rule.action) {
                Some(Action::Accept) => Some(true),
                Some(Action::Deny) => Some(false),
                // On to the next tier.
                Some(Action::Pass) | None => None,
            };
            if let (Some(allowed), Some(rule)) = (allowed, first) {
                let by = rule.by;
                return Outcome { allowed, by };
            }
            if stage == Stage::Network as usize
                && let Some(isolated) = otherwise.isolated
            {
                return isolated;
            }
        }
        otherwise.default
    }
}

/// The rules of one protocol's ports: where each begins and where it has ended.
#[derive(Debug, Default)]
struct Column(Vec<(u32, Edge, u32)>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Edge {
    End,
    Begin,
}

impl Column {
    fn rule(&mut self, first: u16, last: u16, index: u32) {
        if first <= last {
            self.0.push((first.into(), Edge::Begin, index));
            self.0.push((u32::from(last) + 1, Edge::End, index));
        }
    }

    /// Goes through the ports from edge to edge. `active`: rules that are about
    /// every port.
    fn outcomes(mut self, side: &Side, mut active: Active, otherwise: &Otherwise) -> PortTable {
        self.0.sort_unstable();
        // A rule can name a port more than once.
        let mut depths: HashMap<u32, u32> = HashMap::new();
        let mut rows = vec![(0, active.outcome(side, otherwise))];
        for edges in self.0.chunk_by(|a, b| a.0 == b.0) {
            for (_, edge, index) in edges {
                let depth = depths.entry(*index).or_default();
                match edge {
                    Edge::Begin => {
                        *depth += 1;
                        active.add(side, *index);
                    }
                    Edge::End => {
                        *depth -= 1;
                        if *depth == 0 {
                            active.remove(side, *index);
                        }
                    }
                }
            }
            // After the last port there is nothing to say.
            let Ok(first) = u16::try_from(edges[0].0) else {
                continue;
            };
            let outcome = active.outcome(side, otherwise);
            match rows.last_mut() {
                Some((at, last)) if *at == first => *last = outcome,
                _ => rows.push((first, outcome)),
            }
        }
        rows.dedup_by_key(|(_, outcome)| *outcome);
        PortTable(rows)
    }
}
