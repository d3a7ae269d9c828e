//! Giving way to another engine, and taking over from one: whose flows are whose.

use ripstop_abi::{Endpoint, Uplink};

use super::links;
use super::maps::Maps;
use super::pins::Pins;
use crate::Error;
use crate::grace::let_packets_pass;

/// From here on no flow begins that is led by packets, no socket is led, and what
/// goes to a pod and is of no flow goes by the host's stack, which knows whether
/// it is an answer.
pub(crate) fn retire(maps: &Maps, pins: &Pins) -> Result<(), Error> {
    for address in maps.endpoints.rows().keys() {
        maps.endpoints.mark(address, |endpoint| {
            may_be_in_flows(endpoint);
            endpoint.set_handed_over();
        })?;
    }
    mark_node(maps, Uplink::set_retired)?;
    // Those that tell the names of who answers stay.
    links::release_sockets(pins)?;
    // Who was about to begin a flow has done so: it is handed over with the others.
    let_packets_pass()
}

/// Another engine's flows are being taken over, or not any more: what is in the
/// middle of a flow that is not known is the other's, by the host's stack.
pub(crate) fn take_over(maps: &Maps, handing_over: bool) -> Result<(), Error> {
    mark_node(maps, |node| {
        if handing_over {
            node.set_handed_over();
        }
    })
}

/// Another engine begins flows, too, or does not any more.
pub(crate) fn share_ports(maps: &Maps, shares: bool) -> Result<(), Error> {
    mark_node_as(maps, shares, |_| {})?;
    // Who was about to begin one with any port has done so.
    if shares { let_packets_pass() } else { Ok(()) }
}

/// Takes [`retire`] back; the programs on sockets are put back elsewhere.
pub(crate) fn resume(maps: &Maps) -> Result<(), Error> {
    if !maps.uplinks.get(&0)?.is_some_and(|node| node.is_retired()) {
        return Ok(());
    }
    // Which of them had flows is forgotten.
    for address in maps.endpoints.rows().keys() {
        maps.endpoints.mark(address, may_be_in_flows)?;
    }
    mark_node(maps, |_| {})
}

/// What comes to the node may be an answer.
pub(crate) fn note_translated(maps: &Maps) -> Result<(), Error> {
    mark_node(maps, Uplink::set_translated)
}

/// Writing a row anew forgets what programs noted in it: what costs a look at each
/// packet is noted of all.
pub(crate) fn may_be_in_flows(endpoint: &mut Endpoint) {
    endpoint.set_translated();
    endpoint.set_renumbered();
}

fn mark_node(maps: &Maps, mark: impl FnOnce(&mut Uplink)) -> Result<(), Error> {
    let now = maps.uplinks.get(&0)?;
    let shares = now.is_some_and(|now| now.shares_ports());
    mark_node_as(maps, shares, mark)
}

fn mark_node_as(
    maps: &Maps,
    shares_ports: bool,
    mark: impl FnOnce(&mut Uplink),
) -> Result<(), Error> {
    let now = maps.uplinks.get(&0)?;
    maps.uplinks.mark(&0, |node| {
        if now.is_some_and(|now| now.is_translated()) {
            node.set_translated();
        }
        if shares_ports {
            node.set_shares_ports();
        }
        mark(node);
    })
}
