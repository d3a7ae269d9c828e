//! How long segments may be that go to services.
//!
//! Who connects to an address of the node itself takes loopback's length for
//! granted. If a service there leads into a tunnel, the first long segments are
//! too long, and the error that says so is lost on a way that was never taken:
//! the transfer stalls. So what the other side says of its segments, in its
//! answer, becomes what the way there carries.
//!
//! Who asks a node that passes it on into a tunnel would learn from an error that
//! the way to that *node* is narrow. If it is a node, too, its own tunnel to there
//! becomes narrower by as much. So both sides are told before.

use std::collections::BTreeMap;

use ipnet::IpNet;
use ripstop_netlink::nftables::{
    CtKey, Direction, Expression as E, Family, Header, MetaKey, Register,
};

use super::rules::{Rule, TCP, differs, equal, is_translated};
use super::sets::Set;
use super::write::{Changes, Parts};
use super::{keys, ranges};
use crate::engine::ResolvedRoute;

/// Of a TCP header's flags: SYN.
const BEGINS: u8 = 2;

/// Ways to other nodes' pods: longest packets, in bytes.
#[derive(Debug, Default)]
pub(super) struct Segments {
    routes: BTreeMap<IpNet, u32>,
    /// As the kernel has them.
    parts: BTreeMap<Family, Parts>,
}

/// Bytes of headers in each segment.
fn headers(family: Family) -> u32 {
    match family {
        Family::V4 => 40,
        Family::V6 => 60,
    }
}

impl Segments {
    /// What there is in an empty table.
    pub(super) fn clear(&mut self) {
        self.parts.clear();
    }

    pub(super) fn read_back(&mut self, family: Family, parts: Parts) {
        self.parts.insert(family, parts);
    }

    pub(super) fn take(&mut self, routes: &[ResolvedRoute]) {
        for route in routes {
            match route.next_hop {
                Some(hop) => drop(self.routes.insert(route.prefix.trunc(), hop.mtu)),
                None => drop(self.routes.remove(&route.prefix.trunc())),
            }
        }
    }

    /// Makes the kernel have what the routes say.
    pub(super) fn write(&mut self, changes: &mut Changes, family: Family) {
        let wanted = self.wanted(family);
        let before = self.parts.insert(family, wanted.clone());
        changes.replace_parts((Set::Segments, family), before.unwrap_or_default(), wanted);
    }

    fn wanted(&self, family: Family) -> Parts {
        let mut wanted = Parts::new();
        let mut last: Option<IpNet> = None;
        for (net, mtu) in &self.routes {
            // Of ways to the same pods the wider one is enough.
            let is_inside = last.is_some_and(|last| last.contains(net));
            if Family::of(&net.addr()) != family || is_inside {
                continue;
            }
            last = Some(*net);
            let segment = u16::try_from(mtu.saturating_sub(headers(family))).unwrap_or(u16::MAX);
            let mut part = ranges::elements(&(net.network(), net.broadcast()));
            if let Some(first) = part.first_mut() {
                first.data = keys::port(segment).to_vec();
                wanted.insert(first.key.clone(), part);
            }
        }
        wanted
    }
}

/// A TCP packet that says how long segments may be.
fn begins(word: Register) -> impl Iterator<Item = E> {
    [
        E::Meta {
            key: MetaKey::Protocol,
            to: word,
        },
        equal(word, [TCP]),
        E::Payload {
            header: Header::Transport,
            offset: 13,
            length: 1,
            to: word,
        },
        E::Mask {
            value: word,
            mask: vec![BEGINS],
        },
        differs(word, [0]),
    ]
    .into_iter()
    .chain(is_translated(word))
}

/// For answers to the node's own processes.
pub(super) fn own(family: Family) -> Rule {
    let word = Register::word(0);
    let steps = begins(word).chain([
        E::Meta {
            key: MetaKey::Family,
            to: word,
        },
        equal(word, [family.number()]),
        E::Ct {
            key: CtKey::Source(family),
            direction: Some(Direction::Reply),
            to: word,
        },
        E::Lookup {
            map: Set::Segments.name(family).into(),
            key: word,
            to: word,
        },
        E::SetLongestSegment { from: word },
    ]);
    Rule::new("segments of the node's own", steps)
}

/// By the ways there and back of what is passed on.
pub(super) fn forwarded() -> Rule {
    let word = Register::word(0);
    let steps = begins(word).chain([
        E::LongestSegment { to: word },
        E::ToNetwork { value: word },
        E::SetLongestSegment { from: word },
    ]);
    Rule::new("segments of services", steps)
}
