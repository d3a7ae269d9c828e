//! Rows of policies, made by hand.

use std::sync::Arc;

use ipnet::IpNet;
use ripstop_model::Protocol;
use ripstop_plan::Change;
use ripstop_plan::policy::{
    AttributionId, Cell, ClassId, Outcome, PodPolicies, PolicyId, PolicyTables, PortTable, PortsId,
    RuleRow,
};

use crate::common::Pod;

pub(crate) const NOBODY: PolicyId = PolicyId::NONE;
pub(crate) const INGRESS: PolicyId = PolicyId::from_number(0x1234_5678_9abc_def0);
pub(crate) const EGRESS: PolicyId = PolicyId::from_number(0xf000_0000_0000_0001);
pub(crate) const CLASS: ClassId = ClassId::from_number(0x8765_4321_0fed_cba9);
pub(crate) const OPEN: ClassId = ClassId::from_number(0x20);

fn outcome(allowed: bool) -> Outcome {
    Outcome {
        allowed,
        by: AttributionId::from_number(if allowed { 0x21 } else { 0x22 }),
    }
}

/// What a rule allows.
pub(crate) type Allowed = (RuleRow, Option<(PortsId, PortTable)>);

fn all(allowed: bool) -> RuleRow {
    let [tcp, udp, sctp] = [Cell::All(outcome(allowed)); 3];
    RuleRow {
        tcp,
        udp,
        sctp,
        other: outcome(allowed),
    }
}

pub(crate) fn any() -> Allowed {
    (all(true), None)
}

/// These ports of a protocol.
pub(crate) fn port(protocol: Protocol, first: u16, last: u16) -> Allowed {
    let mut row = all(false);
    let cell = match protocol {
        Protocol::Tcp => &mut row.tcp,
        Protocol::Udp => &mut row.udp,
        Protocol::Sctp => &mut row.sctp,
    };
    if (first, last) == (0, u16::MAX) {
        *cell = Cell::All(outcome(true));
        return (row, None);
    }
    let mut table = Vec::new();
    if first > 0 {
        table.push((0, outcome(false)));
    }
    table.push((first, outcome(true)));
    if let Some(after) = last.checked_add(1) {
        table.push((after, outcome(false)));
    }
    let table = PortTable(table);
    *cell = Cell::ByPort(table.id());
    (row, Some((table.id(), table)))
}

/// All rows of a test. Sides deny what no rule allows.
#[derive(Clone, Default)]
pub(crate) struct Rows(PolicyTables);

impl Rows {
    /// Ingress and egress.
    pub(crate) fn pod(&mut self, pod: &Pod, [ingress, egress]: [PolicyId; 2]) -> &mut Self {
        let policies = PodPolicies { ingress, egress };
        for address in pod.addresses {
            self.0.pods.insert(address, policies);
        }
        for side in [ingress, egress] {
            for base in [ClassId::V4, ClassId::V6] {
                if side != NOBODY {
                    self.0.rules.insert((side, base), Arc::new(all(false)));
                }
            }
        }
        self
    }

    pub(crate) fn class(
        &mut self,
        nets: impl IntoIterator<Item = IpNet>,
        class: ClassId,
    ) -> &mut Self {
        let rows = nets.into_iter().map(|net| (net, class));
        self.0.classes.extend(rows);
        self
    }

    pub(crate) fn rule(
        &mut self,
        side: PolicyId,
        class: ClassId,
        (row, ports): Allowed,
    ) -> &mut Self {
        self.0.rules.insert((side, class), Arc::new(row));
        if let Some((id, table)) = ports {
            self.0.ports.insert(id, Arc::new(table));
        }
        self
    }

    /// Puts all of them in place.
    pub(crate) fn change(&self) -> Change {
        let mut change = Change::default();
        let policy = &mut change.policy;
        policy.pods = self.0.pods.iter().map(|(k, v)| (*k, Some(*v))).collect();
        policy.classes = self.0.classes.iter().map(|(k, v)| (*k, Some(*v))).collect();
        let rules = self.0.rules.iter();
        policy.rules = rules.map(|(k, v)| (*k, Some(v.clone()))).collect();
        let ports = self.0.ports.iter();
        policy.ports = ports.map(|(k, v)| (*k, Some(v.clone()))).collect();
        change
    }

    /// The pair is as everybody.
    pub(crate) fn remove_rule(&self, side: PolicyId, class: ClassId) -> Change {
        let mut change = Change::default();
        change.policy.rules.insert((side, class), None);
        change
    }

    /// Removes all of them; the pods are open.
    pub(crate) fn remove(&self) -> Change {
        let mut change = self.change();
        let policy = &mut change.policy;
        policy.classes.values_mut().for_each(|row| *row = None);
        policy.rules.values_mut().for_each(|row| *row = None);
        policy.ports.values_mut().for_each(|row| *row = None);
        for row in policy.pods.values_mut() {
            *row = Some(PodPolicies {
                ingress: NOBODY,
                egress: NOBODY,
            });
        }
        change
    }
}
