//! Where packets go: pods, other nodes, ranges, uplinks.

use crate::Address;
use crate::layout::layout;

/// A pod of this node.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Host's end of the pod's link.
    pub ifindex: u32,
    /// Of the pod's end, as words in the order in which they are sent.
    mac: [u16; 3],
    /// [`TRANSLATED`], [`HANDED_OVER`], [`TRACKED`], [`RENUMBERED`], [`CUT`].
    flags: u16,
}

/// Packets of this pod were led to backends one by one, so what comes to it may
/// be an answer to one of them.
pub(crate) const TRANSLATED: u16 = 1;
/// Another engine is being replaced: what is in the middle of a flow that is not
/// known here yet is the host's stack's, which that engine taught. The same bit in
/// all versions.
pub const HANDED_OVER: u16 = 2;
/// Its packets are asked about: policies are in force on it, or not yet known.
pub(crate) const TRACKED: u16 = 4;
/// Some of its packets go straight to pods by other ports
/// ([`FLOW_RENUMBERED`](super::FLOW_RENUMBERED)), or it has ports of the node, so that
/// they may be answers to who came by those: each is looked up.
pub(crate) const RENUMBERED: u16 = 8;

/// A part of a packet of its was too long for the way to a node: parts go there by the
/// host's stack, all of them.
const CUT: u16 = 16;

impl Endpoint {
    pub const fn new(ifindex: u32, mac: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mac = [
            u16::from_ne_bytes([a, b]),
            u16::from_ne_bytes([c, d]),
            u16::from_ne_bytes([e, f]),
        ];
        Self {
            ifindex,
            mac,
            flags: 0,
        }
    }

    /// `tracked`: policies are in force on it, or not yet known.
    #[must_use]
    pub const fn with_tracked(self, tracked: bool) -> Self {
        let flags = self.flags & !TRACKED | if tracked { TRACKED } else { 0 };
        Self { flags, ..self }
    }

    /// [`TRANSLATED`], [`TRACKED`] and others.
    #[inline(always)]
    pub(crate) const fn flags(&self) -> u32 {
        self.flags as u32
    }

    #[inline(always)]
    pub const fn is_tracked(&self) -> bool {
        self.flags & TRACKED != 0
    }

    #[inline(always)]
    pub(crate) const fn mac(&self) -> [u16; 3] {
        self.mac
    }

    #[inline(always)]
    pub const fn is_translated(&self) -> bool {
        self.flags & (TRANSLATED | HANDED_OVER) != 0
    }

    #[inline(always)]
    pub const fn set_translated(&mut self) {
        self.flags |= TRANSLATED;
    }

    #[inline(always)]
    pub const fn set_renumbered(&mut self) {
        self.flags |= RENUMBERED;
    }

    #[inline(always)]
    pub(crate) const fn is_cut(&self) -> bool {
        self.flags & CUT != 0
    }

    #[inline(always)]
    pub const fn set_cut(&mut self) {
        self.flags |= CUT;
    }

    #[inline(always)]
    pub const fn is_handed_over(&self) -> bool {
        self.flags & HANDED_OVER != 0
    }

    pub const fn set_handed_over(&mut self) {
        self.flags |= HANDED_OVER;
    }

    pub const fn clear_handed_over(&mut self) {
        self.flags &= !HANDED_OVER;
    }

    pub(super) const fn without_notes(self) -> Self {
        Self {
            flags: self.flags & TRACKED,
            ..self
        }
    }
}

/// Prefix of a range; the length counts the 96 bits before an IPv4 address.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RouteKey {
    pub prefix_len: u32,
    pub address: Address,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    pub ifindex: u32,
    /// Largest IP packet, bytes.
    pub mtu: u32,
    pub gateway: Address,
}

/// Pods of the cluster.
pub const RANGE_PODS: u32 = 1;
/// A node's own address.
pub const RANGE_NODE: u32 = 2;
/// A ServiceCIDR: who is no frontend there is refused.
pub const RANGE_SERVICES: u32 = 3;
/// Outside of the cluster, but pods keep their addresses.
pub const RANGE_EXCLUDED: u32 = 4;
/// Everything else of a family of which the cluster has pods: pods' packets
/// leave with the node's address.
pub const RANGE_OUTSIDE: u32 = 5;

/// Addresses with which translated packets leave by a link; unspecified if it
/// has none of that family.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uplink {
    pub v4: Address,
    pub v6: Address,
    /// Of the node: [`NODE_TRANSLATED`], [`RETIRED`], [`NODE_HANDED_OVER`],
    /// [`SHARES_PORTS`].
    flags: u32,
}

/// As that of an [`Endpoint`].
const NODE_TRANSLATED: u32 = 1;
/// New flows are another engine's, by the host's stack, or another version's. The
/// same bit in all versions.
pub const RETIRED: u32 = 2;
/// As that of an [`Endpoint`].
const NODE_HANDED_OVER: u32 = 4;
/// Another engine begins flows, too.
const SHARES_PORTS: u32 = 8;

impl Uplink {
    pub const fn new(v4: Address, v6: Address) -> Self {
        Self { v4, v6, flags: 0 }
    }

    #[inline(always)]
    pub const fn is_translated(&self) -> bool {
        self.flags & NODE_TRANSLATED != 0
    }

    #[inline(always)]
    pub const fn set_translated(&mut self) {
        self.flags |= NODE_TRANSLATED;
    }

    #[inline(always)]
    pub const fn is_retired(&self) -> bool {
        self.flags & RETIRED != 0
    }

    pub const fn set_retired(&mut self) {
        self.flags |= RETIRED;
    }

    /// Whether a packet that is of no flow is another engine's; `begins`: it can
    /// be the first of one.
    #[inline(always)]
    pub(crate) const fn leaves(&self, begins: bool) -> bool {
        let of_others = if begins {
            RETIRED
        } else {
            RETIRED | NODE_HANDED_OVER
        };
        self.flags & of_others != 0
    }

    pub const fn set_handed_over(&mut self) {
        self.flags |= NODE_HANDED_OVER;
    }

    #[inline(always)]
    pub const fn shares_ports(&self) -> bool {
        self.flags & SHARES_PORTS != 0
    }

    pub const fn set_shares_ports(&mut self) {
        self.flags |= SHARES_PORTS;
    }

    pub(super) const fn without_flags(self) -> Self {
        Self::new(self.v4, self.v6)
    }

    /// The address of the family of `peer`.
    #[inline(always)]
    pub fn towards(&self, peer: &Address) -> Option<Address> {
        let address = if peer.is_v4() { self.v4 } else { self.v6 };
        (address != Address::default()).then_some(address)
    }
}

layout! {
    Endpoint { ifindex, mac, flags }
    RouteKey { prefix_len, address }
    Route { ifindex, mtu, gateway }
    Uplink { v4, v6, flags }
}
