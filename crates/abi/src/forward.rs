//! Packets of pods and for pods: where they go.

use crate::Address;
use crate::host_port;
use crate::packet::Packet;
use crate::table::{Endpoint, Flow, FlowKey, HostPortTarget, Route, ServiceAddress};
use crate::verdict::{DropReason, Verdict};
use crate::wire::{
    ETH_P_IP, ETH_P_IPV6, Frame, HOST_MAC, Header, IPPROTO_TCP, IPPROTO_UDP, Ip, Ipv4, Ipv6, Tcp,
};

/// The tables that packets are looked up in.
pub trait Tables {
    fn endpoint(&self, address: &Address) -> Option<&Endpoint>;
    fn route(&self, address: &Address) -> Option<&Route>;
    fn host_port(&self, address: &ServiceAddress) -> Option<&HostPortTarget>;
    fn flow(&self, key: &FlowKey) -> Option<&Flow>;
    /// Remembers a flow through a host port.
    ///
    /// # Errors
    /// [`DropReason::FlowState`] if there is no memory for it.
    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason>;
}

/// A packet that a pod sent, at the host's end of its link. `host_ports`: the
/// pod has some, so its packets may be answers to translated ones.
#[inline(always)]
pub fn from_pod<P: Packet>(packet: &mut P, tables: &impl Tables, host_ports: bool) -> Verdict {
    if !packet.is_for_this_link() {
        return Verdict::Stack;
    }
    match packet.protocol() {
        ETH_P_IP => pod_sent::<Ipv4, P>(packet, tables, host_ports),
        ETH_P_IPV6 => pod_sent::<Ipv6, P>(packet, tables, host_ports),
        _ => Verdict::Stack,
    }
}

/// A packet that came in by an uplink or by the tunnel; `ifindex` is that link.
#[inline(always)]
pub fn from_outside<P: Packet>(packet: &mut P, tables: &impl Tables, ifindex: u32) -> Verdict {
    if !packet.is_for_this_link() {
        return Verdict::Stack;
    }
    match packet.protocol() {
        ETH_P_IP => came_in::<Ipv4, P>(packet, tables, ifindex),
        ETH_P_IPV6 => came_in::<Ipv6, P>(packet, tables, ifindex),
        _ => Verdict::Stack,
    }
}

#[inline(always)]
fn pod_sent<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, host_ports: bool) -> Verdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack;
    };
    if !frame.ip.is_routable() {
        return Verdict::Stack;
    }
    let destination = frame.ip.destination();
    if let Some(endpoint) = tables.endpoint(&destination) {
        return deliver::<H, P>(packet, endpoint);
    }
    let route = tables.route(&destination);
    if let Some(route) = route
        && longest_packet::<H, P>(packet).is_none_or(|length| length > route.mtu)
    {
        return Verdict::Stack;
    }
    let by = if host_ports {
        match host_port::answer::<H, P>(packet, tables) {
            Ok(by) => by,
            Err(reason) => return Verdict::Drop(reason),
        }
    } else {
        None
    };
    let verdict = match (route, by) {
        (Some(route), _) => Verdict::Forward {
            ifindex: route.ifindex,
            gateway: route.gateway,
        },
        // Not through the stack: it takes a packet with an address of its own
        // as source, coming in by a link, for a forgery.
        (None, Some(ifindex)) => Verdict::Route { ifindex },
        (None, None) => return Verdict::Stack,
    };
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Drop(DropReason::Rewrite);
    };
    frame.ip.decrement_hops();
    if !H::HAS_CHECKSUM {
        packet.hop_limit_decremented();
    }
    verdict
}

#[inline(always)]
fn came_in<H: Ip, P: Packet>(packet: &mut P, tables: &impl Tables, ifindex: u32) -> Verdict
where
    Frame<H>: Header,
{
    let Some(frame) = packet.at::<Frame<H>>(0) else {
        return Verdict::Stack;
    };
    if !frame.ip.is_routable() {
        return Verdict::Stack;
    }
    if let Some(endpoint) = tables.endpoint(&frame.ip.destination()) {
        return deliver::<H, P>(packet, endpoint);
    }
    match host_port::request::<H, P>(packet, tables, ifindex) {
        Ok(Some(target)) => deliver::<H, P>(packet, &target.endpoint),
        Ok(None) => Verdict::Stack,
        Err(reason) => Verdict::Drop(reason),
    }
}

/// What the host's stack would do on the way to the pod's link.
#[inline(always)]
fn deliver<H: Ip, P: Packet>(packet: &mut P, endpoint: &Endpoint) -> Verdict
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
fn longest_packet<H: Ip, P: Packet>(packet: &mut P) -> Option<u32>
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
