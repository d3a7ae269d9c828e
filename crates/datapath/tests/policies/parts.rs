//! Audits in parts, of so many blocks that they go in parts, while these change.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use ripstop_datapath::ebpf::EbpfEngine;
use ripstop_datapath::{Datapath, Part};
use ripstop_model::LocalPod;
use ripstop_plan::policy::ClassId;
use ripstop_plan::{Change, Tables};

use super::rows::{CLASS, INGRESS, NOBODY, OPEN, Rows, any};
use crate::common::{Engine, Node, Pod, net};
use crate::services::{node, ranges};

/// Blocks of each family.
const BLOCKS: u32 = 2500;

/// A node that has them.
pub(crate) struct Blocks<E: Engine> {
    pub(crate) node: Node<E>,
    pub(crate) desired: Tables,
    pods: Vec<LocalPod>,
    random: u64,
    _pod: Pod,
}

/// Every family's blocks, with prefixes around and inside.
fn block(number: u32, length: u8) -> IpNet {
    let (high, low) = (number % BLOCKS, number / BLOCKS);
    let (address, more): (IpAddr, u8) = match low % 2 {
        0 => (Ipv4Addr::from(0x1400_0000 | high << 8).into(), 0),
        _ => (
            Ipv6Addr::from((0x2001_0db8 << 96) | u128::from(high) << 72).into(),
            32,
        ),
    };
    IpNet::new(address, length + more).unwrap().trunc()
}

impl<E: Engine> Blocks<E> {
    pub(crate) fn new(name: &str) -> Self {
        let mut node = node::<E>(name);
        let pod = node.add_pod();
        let mut rows = Rows::default();
        rows.pod(&pod, [INGRESS, NOBODY])
            .rule(INGRESS, CLASS, any());
        for number in 0..2 * BLOCKS {
            let base = ClassId::base(number < BLOCKS);
            rows.class(
                [block(number, 24)],
                if number % 3 == 0 { OPEN } else { CLASS },
            );
            rows.class([block(number, 30)], base);
        }
        let mut blocks = Self {
            node,
            desired: Tables::default(),
            pods: vec![pod.local.clone()],
            random: 1,
            _pod: pod,
        };
        blocks.desired.apply(&ranges());
        assert!(blocks.apply(&rows.change()));
        blocks
    }

    /// What the kernel does not take, an audit does.
    fn apply(&mut self, change: &Change) -> bool {
        self.desired.apply(change);
        self.node.run(|engine| engine.apply(change)).is_ok()
    }

    /// From a fixed start, always the same.
    fn next(&mut self) -> u32 {
        self.random = self
            .random
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        (self.random >> 33) as u32
    }

    /// Some blocks come, go, or are of other classes. False if the kernel refused.
    pub(crate) fn change(&mut self) -> bool {
        let mut change = Change::default();
        for _ in 0..1 + self.next() % 8 {
            let number = self.next() % (2 * BLOCKS);
            let net = block(
                number,
                [12, 16, 20, 24, 28, 30, 32][self.next() as usize % 7],
            );
            let base = ClassId::base(number < BLOCKS);
            let class = [Some(CLASS), Some(OPEN), Some(base), None][self.next() as usize % 4];
            change.policy.classes.insert(net, class);
        }
        self.apply(&change)
    }

    /// What an audit repairs, and how many parts it has.
    pub(crate) fn audit(&mut self, mut between: impl FnMut(&mut Self)) -> (Vec<String>, usize) {
        let (mut repaired, mut parts) = (Vec::new(), 0);
        let mut next = Some(Part::default());
        while let Some(part) = next {
            let Self {
                node,
                desired,
                pods,
                ..
            } = self;
            let audited = node.run(|engine| engine.audit_part(desired, pods, part));
            let (drift, after) = audited.unwrap();
            repaired.extend(drift.repaired);
            (next, parts) = (after, parts + 1);
            between(self);
        }
        (repaired, parts)
    }

    /// What differs.
    pub(crate) fn verify(&mut self, mut between: impl FnMut(&mut Self)) -> Vec<String> {
        let mut lines = Vec::new();
        let mut next = Some(Part::default());
        while let Some(part) = next {
            let Self { node, desired, .. } = self;
            let verified = node.run(|engine| engine.verify_part(desired, part));
            let (found, after) = verified.unwrap();
            lines.extend(found);
            next = after;
            between(self);
        }
        lines
    }

    /// Gives a block a class that no other has.
    pub(crate) fn set_apart(&mut self, net: IpNet) {
        let mut change = Change::default();
        let class = ClassId::from_number(77);
        change.policy.classes.insert(net, Some(class));
        assert!(self.apply(&change));
    }

    /// Damage of rows is told, and repaired while changes go on.
    pub(crate) fn is_told_and_repaired(&mut self, damage: &str) {
        assert_ne!(self.verify(|_| {}), [""; 0], "{damage}: verified");
        self.is_repaired(damage);
    }

    /// Damage is repaired while changes go on.
    pub(crate) fn is_repaired(&mut self, damage: &str) {
        let go_on = |blocks: &mut Self| {
            blocks.change();
        };
        assert_ne!(self.audit(go_on).0, [""; 0], "{damage}: audited");
        // What could not change before that.
        self.audit(go_on);
        assert_eq!(self.audit(go_on).0, [""; 0], "{damage}: audited again");
        assert_eq!(self.verify(go_on), [""; 0], "{damage}: verified again");
        // Nothing is left that only a look at everything would find.
        let Self {
            node,
            desired,
            pods,
            ..
        } = self;
        let drift = node.run(|engine| engine.audit(desired, pods)).unwrap();
        assert_eq!(drift.repaired, [""; 0], "{damage}: audited whole");
    }
}

pub(crate) fn changes_between_parts_are_no_drift<E: Engine>() {
    let mut blocks = Blocks::<E>::new("parts");
    // The first of an engine: everything.
    blocks.audit(|_| {});
    for _ in 0..4 {
        let (repaired, parts) = blocks.audit(|blocks| {
            (0..3).for_each(|_| assert!(blocks.change()));
        });
        assert_eq!(repaired, [""; 0]);
        assert!(parts > 3, "{parts}");
        assert_eq!(blocks.verify(|blocks| assert!(blocks.change())), [""; 0]);
    }
    let Blocks {
        node,
        desired,
        pods,
        ..
    } = &mut blocks;
    let drift = node.run(|engine| engine.audit(desired, pods)).unwrap();
    assert_eq!(drift.repaired, [""; 0]);
}

#[test]
fn what_others_did_to_many_classes_is_found_in_parts() {
    let mut blocks = Blocks::<EbpfEngine>::new("damage");
    blocks.audit(|_| {});
    let (there, other) = (net("20.0.7.0/24"), net("2001:db8:0:700::/56"));
    let stray = net("99.0.0.0/8");
    for (net, class) in [
        (there, None),
        (other, Some(ClassId::from_number(99))),
        (other, None),
        (stray, Some(OPEN)),
    ] {
        if net != stray {
            blocks.set_apart(net);
        }
        // Somebody who knows the tables, and whom our engine does not know.
        let ours = blocks.node.engine.take();
        blocks.node.open();
        let mut change = Change::default();
        change.policy.classes.insert(net, class);
        blocks.node.run(|engine| engine.apply(&change)).unwrap();
        blocks.node.engine = ours;
        blocks.is_told_and_repaired(&format!("{net} {class:?}"));
    }
}
