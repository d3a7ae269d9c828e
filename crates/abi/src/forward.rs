//! Packets of pods and for pods: where they go. What is addressed to a pod is
//! decided here; everything else is [`crate::crossing`]'s.

use crate::crossing::{
    self, Direct, Packed, begun, claimed, decided_from_outside, decided_from_pod,
    decided_to_outside,
};
use crate::packet::Packet;
use crate::parts::{first_part, note_part};
use crate::policy::{
    Connections, RENUMBERED_SENDER, Says, TRANSLATED_SENDER, answers, denied_to_pod, sent_by,
};
use crate::service::Services;
use crate::table::{
    Endpoint, Flow, FlowKey, FlowPorts, Part, PartKey, RANGE_NODE, Route, Uplink, Work,
};
use crate::verdict::{DropReason, FinalVerdict, Verdict};
use crate::wire::{
    ETH_P_ARP, ETH_P_IP, ETH_P_IPV6, Frame, HOST_MAC, Header, IPPROTO_FRAGMENT, IPPROTO_ICMPV6,
    IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP, Ip, Ipv4, Ipv6, Ports, TCP_ACK, TCP_SYN, TUNNEL_PORT,
    Tcp,
};
use crate::{Address, Port};

/// The tables that packets are looked up in.
pub trait Tables: Services + Connections {
    fn endpoint(&self, address: &Address) -> Option<&Endpoint>;
    fn route(&self, address: &Address) -> Option<&Route>;
    /// What comes to this pod may be an answer to a translated packet.
    fn set_translated(&self, address: &Address);
    /// Some of what this pod sends straight to pods goes by other ports, or is an
    /// answer to what came by a port of the node.
    fn set_renumbered(&self, address: &Address);
    /// A part of a packet of this pod was too long for a route.
    fn set_cut(&self, address: &Address);
    /// What the node itself sends may be an answer to a translated packet.
    fn set_node_translated(&self);
    /// By interface index; 0 is the node.
    fn uplink(&self, ifindex: u32) -> Option<&Uplink>;
    /// Those from which translated flows leave.
    fn ports(&self) -> FlowPorts;
    /// Those of them that no other engine gives.
    fn own_ports(&self) -> FlowPorts;
    fn flow(&self, key: &FlowKey) -> Option<&Flow>;
    /// The first part of a packet, if nothing took its place.
    fn part(&self, key: &PartKey) -> Option<&Part>;
    /// Without room the other parts are dropped.
    fn remember_part(&self, key: &PartKey, part: &Part);
    /// Room to work in, for one packet.
    #[expect(clippy::mut_from_ref, reason = "each packet has its own")]
    fn work(&self) -> Option<&mut Work>;
    /// Counts payload of a flow.
    fn count(&self, key: &FlowKey, flow: &Flow, bytes: u32);
    /// Notes that a flow was met, and adds what was counted to its backend's.
    fn touch(&self, key: &FlowKey, now: u32, flags: u32);
    /// Forgets one direction of a flow.
    fn forget(&self, key: &FlowKey);
    /// Counts a flow that `source` begins: its link in the higher half, and in the
    /// lower how many it had; [`NO_SHARE`](crate::NO_SHARE) if it has all that it may
    /// have.
    fn takes_share(&self, source: &Address) -> u64;
    /// Remembers a flow, in the place of any other.
    ///
    /// # Errors
    /// [`DropReason::FlowState`] if there is no memory for it.
    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason>;
    /// Remembers a flow if there is none of that key; false if there is one.
    ///
    /// # Errors
    /// Likewise.
    fn claim(&self, key: &FlowKey, flow: &Flow) -> Result<bool, DropReason>;
    /// [`begun`]. In the kernel a function that the verifier walks through once,
    /// whoever calls it; so are the next ones.
    #[inline(always)]
    fn begun(&self, ifindex: u32, kind: u32) -> u64
    where
        Self: Sized,
    {
        begun(self, ifindex, kind)
    }
    /// [`claimed`].
    #[inline(always)]
    fn claimed(&self, attempt: u32, place: u32) -> u32
    where
        Self: Sized,
    {
        claimed(self, attempt, place)
    }
    /// [`note_part`].
    #[inline(always)]
    fn note_part(&self, by: u32) -> u32
    where
        Self: Sized,
    {
        note_part(self, by)
    }
    /// [`first_part`].
    #[inline(always)]
    fn first_part(&self, by: u32) -> u64
    where
        Self: Sized,
    {
        first_part(self, by)
    }
    /// [`decided_from_pod`].
    #[inline(always)]
    fn decided_from_pod(&self, read: u32, ifindex: u32) -> u64
    where
        Self: Sized,
    {
        decided_from_pod(self, read, ifindex)
    }
    /// [`decided_from_outside`].
    #[inline(always)]
    fn decided_from_outside(&self, read: u32, ifindex: u32) -> u64
    where
        Self: Sized,
    {
        decided_from_outside(self, read, ifindex)
    }
    /// [`decided_to_outside`].
    #[inline(always)]
    fn decided_to_outside(&self, read: u32, ifindex: u32) -> u64
    where
        Self: Sized,
    {
        decided_to_outside(self, read, ifindex)
    }
}

/// A packet that a pod sent, at the host's end of its link.
#[inline(always)]
pub fn from_pod<P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict {
    match (packet.is_for_this_link(), packet.protocol()) {
        (true, ETH_P_IP) => pod_sent::<Ipv4, P>(packet, tables),
        (true, ETH_P_IPV6) => pod_sent::<Ipv6, P>(packet, tables),
        (false, ETH_P_IP) => pod_called::<Ipv4, P>(packet, tables),
        (false, ETH_P_IPV6) => pod_called::<Ipv6, P>(packet, tables),
        (_, ETH_P_ARP) => Verdict::Stack.into(),
        // Also tags within tags: the kernel takes off those of no VLAN (priority
        // tags), however many, and goes on with what is inside.
        _ => Verdict::Drop(DropReason::Unreadable).into(),
    }
}

/// A packet that came in by an uplink or by the tunnel.
#[inline(always)]
pub fn from_outside<P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict {
    if !packet.is_for_this_link() {
        return Verdict::Stack.into();
    }
    match packet.protocol() {
        ETH_P_IP => came_in::<Ipv4, P>(packet, tables),
        ETH_P_IPV6 => came_in::<Ipv6, P>(packet, tables),
        _ => Verdict::Stack.into(),
    }
}

/// A packet that leaves by an uplink, after the host's routes have decided that
/// it does.
#[inline(always)]
pub fn to_outside<P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict {
    match packet.protocol() {
        ETH_P_IP => crossing::to_outside::<Ipv4, P>(packet, tables),
        ETH_P_IPV6 => crossing::to_outside::<Ipv6, P>(packet, tables),
        _ => Verdict::Stack.into(),
    }
}

/// A packet that the host's stack sends to a pod, at the host's end of its link.
#[inline(always)]
pub fn to_pod<P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict {
    match packet.protocol() {
        ETH_P_IP => goes_in::<Ipv4, P>(packet, tables),
        ETH_P_IPV6 => goes_in::<Ipv6, P>(packet, tables),
        _ => Verdict::Stack.into(),
    }
}

#[inline(always)]
fn goes_in<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    let destination = frame.ip.destination();
    let came_by = packet.came_by();
    // What the pod itself sent, or was answered to that.
    if came_by == packet.ifindex() {
        return Verdict::Stack.into();
    }
    // Neighbours and groups have no endpoint.
    let Some(endpoint) = tables.endpoint(&destination) else {
        return Verdict::Stack.into();
    };
    if !endpoint.is_tracked() {
        return Verdict::Stack.into();
    }
    match denied_to_pod::<H, P>(packet, tables, came_by == 0) {
        Says::No(reason) if answers(tables, reason) => {
            crossing::prohibited::<H, P>(packet, tables, reason)
        }
        Says::No(reason) => Verdict::Drop(reason).into(),
        Says::Ours => Verdict::StackAtOnce.into(),
        Says::Yes | Says::Leave => Verdict::Stack.into(),
    }
}

/// The row of the pod that sent a packet, whose address has to be its own.
#[inline(always)]
fn sender<'t, P: Packet, T: Tables>(
    packet: &P,
    tables: &'t T,
    source: &Address,
) -> Option<&'t Endpoint> {
    let endpoint = tables.endpoint(source)?;
    (endpoint.ifindex == packet.ifindex()).then_some(endpoint)
}

/// Whether a packet that stays on the pod's link may be from `source`: an address of
/// links, nobody's yet (RFC 4861, 4.3), or the pod's own.
#[inline(always)]
fn may_say<P: Packet>(packet: &P, tables: &impl Tables, source: &Address) -> bool {
    !source.is_routed() || source.is_unspecified() || sender(packet, tables, source).is_some()
}

/// From a pod to everybody on its link, or in a VLAN, of which there is none here.
/// What is for one of elsewhere does not come this way.
#[inline(always)]
fn pod_called<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    if destination.is_routed() || !may_say(packet, tables, &source) {
        return Verdict::Drop(DropReason::Spoofed).into();
    }
    Verdict::Stack.into()
}

/// Whether a packet may be one for a tunnel between nodes, in which anybody could
/// be the sender: by its port, or because that cannot be seen.
#[inline(always)]
pub(crate) fn may_be_tunnelled<H: Ip, P: Packet>(packet: &mut P) -> bool
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return true;
    };
    let (plain, v4) = (frame.ip.is_plain(), frame.ip.source().is_v4());
    let (mut protocol, mut at) = (frame.ip.protocol(), H::TRANSPORT);
    if !v4 && protocol == IPPROTO_FRAGMENT {
        // Two bytes of it are where ports would be: what is in parts, and nothing.
        let Some(part) = packet.at::<Ports>(at) else {
            return true;
        };
        protocol = (part.source().host() >> 8) as u8;
        at += 8;
    }
    match protocol {
        // A later part of a datagram has something else there, and is nothing
        // without the first.
        IPPROTO_UDP if plain => packet
            .at::<Ports>(at)
            .is_none_or(|ports| ports.destination() == Port::from_host(TUNNEL_PORT)),
        IPPROTO_UDP => true,
        IPPROTO_TCP | IPPROTO_SCTP | IPPROTO_ICMPV6 => false,
        // An extension header of IPv6, which anything may be behind.
        _ => !v4,
    }
}

/// From a pod, and nothing that a router looks at the destination of alone.
#[inline(always)]
fn pod_sent_other<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    let (plain, hops) = (frame.ip.is_plain(), frame.ip.hops());
    // Nobody sends these on (RFC 4291, 2.5.6; RFC 3927, 2.7).
    if plain && !(source.is_routed() && destination.is_routed()) {
        return match may_say(packet, tables, &source) {
            true => Verdict::Stack.into(),
            false => Verdict::Drop(DropReason::Spoofed).into(),
        };
    }
    if tables.range(&destination) == RANGE_NODE && may_be_tunnelled::<H, P>(packet) {
        return Verdict::Drop(DropReason::Spoofed).into();
    }
    match sender(packet, tables, &source) {
        None => Verdict::Drop(DropReason::Spoofed).into(),
        Some(sender) if sender.is_tracked() && hops > 1 => {
            // With options, which may be anything.
            if tables.is_own(&destination) {
                return Verdict::Stack.into();
            }
            Verdict::Drop(DropReason::Unreadable).into()
        }
        Some(_) => Verdict::Stack.into(),
    }
}

#[inline(always)]
fn pod_sent<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    if !frame.ip.is_routable() {
        return pod_sent_other::<H, P>(packet, tables);
    }
    let (source, destination) = (frame.ip.source(), frame.ip.destination());
    let Some(sender) = sender(packet, tables, &source) else {
        return Verdict::Drop(DropReason::Spoofed).into();
    };
    let of_sender = sent_by(sender);
    let mut direct = Direct::No;
    if !may_be_renumbered::<H, P>(packet, of_sender) {
        match tables.endpoint(&destination) {
            Some(endpoint) if !endpoint.is_translated() => direct = Direct::Pod(endpoint),
            _ => {
                if let Some(route) = tables.route(&destination) {
                    direct = Direct::Node(route);
                }
            }
        }
    }
    let act = match direct {
        Direct::No => crossing::from_pod::<H, P>(packet, tables, of_sender),
        _ => Packed::PASSES,
    };
    crossing::carry_out::<H, P>(packet, tables, act, direct, &destination, of_sender)
}

/// Whether a packet to a pod has to be looked up among the flows: its port may be
/// that of a flow whose answers come from there, too.
#[inline(always)]
fn may_be_renumbered<H: Ip, P: Packet>(packet: &mut P, of_sender: u32) -> bool
where
    Frame<H>: Header,
{
    if of_sender & (TRANSLATED_SENDER | RENUMBERED_SENDER) == 0 {
        return false;
    }
    if of_sender & RENUMBERED_SENDER != 0 {
        return true;
    }
    // In the middle of a connection it was said as that began.
    let tcp = packet.at::<Frame<H>>(0).map(|frame| frame.ip.protocol()) == Some(IPPROTO_TCP);
    let begins = |tcp: &mut Tcp| tcp.flags() & (TCP_SYN | TCP_ACK) == TCP_SYN;
    !tcp || packet.at::<Tcp>(H::TRANSPORT).is_some_and(begins)
}

#[inline(always)]
fn came_in<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables) -> FinalVerdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack.into();
    };
    if !frame.ip.is_routable() {
        return Verdict::Stack.into();
    }
    let destination = frame.ip.destination();
    let (act, direct) = match tables.endpoint(&destination) {
        Some(endpoint) if !endpoint.is_translated() => (Packed::PASSES, Direct::Pod(endpoint)),
        _ => {
            let act = crossing::from_outside::<H, P>(packet, tables);
            (act, Direct::No)
        }
    };
    crossing::carry_out::<H, P>(packet, tables, act, direct, &destination, 0)
}

/// To the neighbour that the route names.
#[inline(always)]
pub(crate) fn forward<H: Ip, P: Packet>(packet: &mut P, route: &Route) -> Verdict
where
    Frame<H>: Header,
{
    let (ifindex, gateway) = (route.ifindex, route.gateway);
    one_hop_less::<H, P>(packet, Verdict::Forward { ifindex, gateway })
}

/// The verdict, with the packet as a router passes it on.
#[inline(always)]
pub(crate) fn one_hop_less<H: Ip, P: Packet>(packet: &mut P, verdict: Verdict) -> Verdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Drop(DropReason::Rewrite);
    };
    frame.ip.decrement_hops();
    if !H::HAS_CHECKSUM {
        packet.hop_limit_decremented();
    }
    verdict
}

/// Whether the packet, or the longest that it is to be cut into, fits into the
/// route. If that cannot be told it does not.
#[inline(always)]
pub(crate) fn fits<H: Ip, P: Packet>(packet: &mut P, route: &Route) -> bool
where
    Frame<H>: Header,
{
    longest_packet::<H, P>(packet).is_some_and(|length| length <= route.mtu)
}

/// Whether a packet to another node is the host's stack's: that cuts what is too long
/// for the route, or tells who sent it.
#[inline(always)]
pub(crate) fn is_for_stack<H: Ip, P: Packet>(
    packet: &mut P,
    tables: &impl Tables,
    route: &Route,
) -> bool
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return true;
    };
    let is_part = if H::HAS_CHECKSUM {
        frame.ip.transport().is_none()
    } else {
        frame.ip.protocol() == IPPROTO_FRAGMENT
    };
    if is_part {
        return packet.part_for_stack(tables, route.mtu) != 0;
    }
    !fits::<H, P>(packet, route)
}

/// [`is_for_stack`] of a part of a packet: 1, else 0. Of a pod of which one was too
/// long all are: where connection tracking is in use, the stack waits for every part
/// of a packet before it goes on with any.
#[inline(always)]
pub fn part_for_stack<P: Packet>(packet: &mut P, tables: &impl Tables, mtu: u32) -> u32 {
    if packet.protocol() == ETH_P_IP {
        part_of_family_for_stack::<Ipv4, P>(packet, tables, mtu)
    } else {
        part_of_family_for_stack::<Ipv6, P>(packet, tables, mtu)
    }
}

#[inline(always)]
fn part_of_family_for_stack<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, mtu: u32) -> u32
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return 1;
    };
    let (source, length) = (frame.ip.source(), frame.ip.packet_len());
    if length > mtu {
        // No later one is longer than the first: none has gone another way.
        tables.set_cut(&source);
        return 1;
    }
    u32::from(tables.endpoint(&source).is_some_and(Endpoint::is_cut))
}

/// What the host's stack would do on the way to the pod's link.
#[inline(always)]
pub(crate) fn deliver<H: Ip, P: Packet>(packet: &mut P, endpoint: &Endpoint) -> Verdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Drop(DropReason::Rewrite);
    };
    frame.ethernet.address(endpoint.mac(), HOST_MAC);
    frame.ip.decrement_hops();
    if !H::HAS_CHECKSUM {
        packet.hop_limit_decremented();
    }
    Verdict::Deliver {
        ifindex: endpoint.ifindex,
    }
}

/// Length of the packet, or of the longest that a large one is to be cut into;
/// `None` if that cannot be told.
#[inline(always)]
pub(crate) fn longest_packet<H: Ip, P: Packet>(packet: &mut P) -> Option<u32>
where
    Frame<H>: Header,
{
    let segment = packet.segment_size();
    let ip = &packet.at::<Frame<H>>(0)?.ip;
    if segment == 0 {
        return Some(ip.packet_len());
    }
    let header = match ip.transport()? {
        IPPROTO_TCP => packet.at::<Tcp>(H::TRANSPORT)?.header_len(),
        IPPROTO_UDP => 8,
        _ => return None,
    };
    Some(H::LEN as u32 + header + segment)
}

#[cfg(test)]
mod tests;
