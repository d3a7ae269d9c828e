//! A side's rules against one class: the row.

use std::sync::Arc;

use ripstop_model::{Action, ContainerPort, PortMatch, PortSet, PortsOf, Protocol};

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
    pub(super) row: RuleRow,
    pub(super) tables: Vec<(PortsId, Arc<PortTable>)>,
}

/// What `rules` (from [`matching`]) say of the class.
pub(super) fn compile(side: &Side, class: &ClassContent, rules: &[u32]) -> Compiled {
    let mut columns = Columns::default();
    let of_stage = |stage| {
        let rules = rules.iter().map(|index| &side.rules[*index as usize]);
        rules.filter(move |rule| rule.stage == stage)
    };
    let named = if side.names.is_empty() {
        &side.ports
    } else {
        &class.ports
    };
    for stage in [Stage::Admin, Stage::Network, Stage::Baseline] {
        for rule in of_stage(stage) {
            let becomes = match rule.action {
                Action::Accept => State::Done(Outcome {
                    allowed: true,
                    by: rule.by,
                }),
                Action::Deny => State::Done(Outcome {
                    allowed: false,
                    by: rule.by,
                }),
                Action::Pass => State::Passed,
            };
            columns.fill(rule.ports.as_deref(), named, becomes);
        }
        if stage == Stage::Network
            && let Some(by) = side.isolated
        {
            let rest = match class.has(PeersId::OWN_NODE) {
                true => Outcome {
                    allowed: true,
                    by: Attribution::OwnNode.id(),
                },
                false => Outcome { allowed: false, by },
            };
            columns.fill(None, &[], State::Done(rest));
        }
        columns.next_tier();
    }
    let rest = Outcome {
        allowed: true,
        by: Attribution::Default.id(),
    };
    columns.fill(None, &[], State::Done(rest));
    columns.finish(rest)
}

/// What is known of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Open, but not for the rest of this tier.
    Passed,
    Done(Outcome),
}

/// The four columns of a row while rules fill them.
#[derive(Debug)]
struct Columns {
    /// TCP, UDP, SCTP.
    ports: [Column; 3],
    other: State,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            ports: [Column::default(), Column::default(), Column::default()],
            other: State::Open,
        }
    }
}

impl Columns {
    fn fill(&mut self, ports: Option<&[PortMatch]>, named: &[ContainerPort], state: State) {
        let Some(ports) = ports else {
            for column in &mut self.ports {
                column.fill(0, u16::MAX, state);
            }
            if self.other == State::Open {
                self.other = state;
            }
            return;
        };
        for PortMatch { protocol, ports } in ports {
            match ports {
                PortSet::Range(range) => {
                    for column in self.of(*protocol) {
                        column.fill(*range.start(), *range.end(), state);
                    }
                }
                PortSet::Named(name) => {
                    for port in named.iter().filter(|port| *port.name == **name) {
                        if protocol.includes(port.protocol) {
                            self.column(port.protocol).fill(port.port, port.port, state);
                        }
                    }
                }
            }
        }
    }

    fn column(&mut self, protocol: Protocol) -> &mut Column {
        let [tcp, udp, sctp] = &mut self.ports;
        match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Sctp => sctp,
        }
    }

    fn of(&mut self, protocols: PortsOf) -> impl Iterator<Item = &mut Column> {
        let all = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
        let pairs = self.ports.iter_mut().zip(all);
        pairs.filter_map(move |(column, p)| protocols.includes(p).then_some(column))
    }

    fn next_tier(&mut self) {
        for column in &mut self.ports {
            column.next_tier();
        }
        if self.other == State::Passed {
            self.other = State::Open;
        }
    }

    /// `rest` is what stays open, which is nothing any more.
    fn finish(self, rest: Outcome) -> Compiled {
        let mut tables = Vec::new();
        let [tcp, udp, sctp] = self.ports.map(|column| {
            let table = column.outcomes(rest);
            if let [(_, one)] = table.0.as_slice() {
                return Cell::All(*one);
            }
            let id = PortsId::of(&table);
            tables.push((id, Arc::new(table)));
            Cell::ByPort(id)
        });
        let other = outcome(self.other, rest);
        Compiled {
            row: RuleRow {
                tcp,
                udp,
                sctp,
                other,
            },
            tables,
        }
    }
}

fn outcome(state: State, rest: Outcome) -> Outcome {
    match state {
        State::Done(outcome) => outcome,
        State::Open | State::Passed => rest,
    }
}

/// The ports of one protocol: each state from its first port up to the next's.
#[derive(Debug)]
struct Column(Vec<(u16, State)>);

impl Default for Column {
    fn default() -> Self {
        Self(vec![(0, State::Open)])
    }
}

impl Column {
    /// Gives what is open of `first..=last` a state.
    fn fill(&mut self, first: u16, last: u16, state: State) {
        if first > last || self.0.iter().all(|(_, state)| *state != State::Open) {
            return;
        }
        let from = self.split(first);
        let to = match last.checked_add(1) {
            Some(after) => self.split(after),
            None => self.0.len(),
        };
        for (_, at) in &mut self.0[from..to] {
            if *at == State::Open {
                *at = state;
            }
        }
        self.0.dedup_by_key(|(_, state)| *state);
    }

    /// Index of the interval that begins at `port`.
    fn split(&mut self, port: u16) -> usize {
        let at = self.0.partition_point(|(first, _)| *first < port);
        if self.0.get(at).is_none_or(|(first, _)| *first != port) {
            self.0.insert(at, (port, self.0[at - 1].1));
        }
        at
    }

    fn next_tier(&mut self) {
        for (_, state) in &mut self.0 {
            if *state == State::Passed {
                *state = State::Open;
            }
        }
        self.0.dedup_by_key(|(_, state)| *state);
    }

    fn outcomes(self, rest: Outcome) -> PortTable {
        let rows = self.0.into_iter();
        let mut rows: Vec<_> = rows.map(|(first, s)| (first, outcome(s, rest))).collect();
        rows.dedup_by_key(|(_, outcome)| *outcome);
        PortTable(rows)
    }
}
