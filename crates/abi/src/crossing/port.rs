//! Ports of the node for flows that get its address.

use super::flow::is_over;
use crate::Port;
use crate::forward::Tables;
use crate::service::client_hash;
use crate::table::{FLOW_LINGERS, FlowKey, FlowPorts, ServiceAddress, Work};
use crate::verdict::DropReason;
use crate::wire::IPPROTO_TCP;

/// Ports that are tried for a flow before it is dropped: where five of eight are taken,
/// one of 1,800 is, besides the client's usual one.
const ATTEMPTS: u32 = 17;

/// The client's usual port.
const USUAL: u32 = 1;

/// From this attempt on a port is taken from a flow that is over, not at first: it is
/// two more lookups.
const TAKE: u32 = 5;

/// From this one on also where its server may still know it ([`FLOW_LINGERS`]).
const TAKE_ANY: u32 = 10;

/// Out of which ports a flow gets one, by their places among all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Window {
    from: u32,
    among: u32,
    of: u32,
}

impl Window {
    /// For who has so many flows. Who has many may take the ports that there are for
    /// flows to one address and port, and others need some: he gets his ports out of
    /// one half of them. With what he had before, anywhere, these are five of eight.
    /// Those outside (link 0) take away each other's alone.
    #[inline(always)]
    fn new(link: u32, flows: u32, ports: u32) -> Self {
        // Links that follow each other begin far apart (Knuth, 6.4).
        const GOLDEN: u32 = 0x9e37_79b1;
        const FEW: u32 = 1024;
        let is_few = link == 0 || flows < (ports / 4).max(FEW);
        Self {
            from: if is_few {
                0
            } else {
                part_of(link.wrapping_mul(GOLDEN), ports)
            },
            among: if is_few { ports } else { ports.div_ceil(2) },
            of: ports,
        }
    }

    #[inline(always)]
    fn place(self, index: u32) -> u32 {
        let place = self.from + index;
        if place >= self.of {
            place - self.of
        } else {
            place
        }
    }

    /// By which a client's connections usually leave: from each of its own ports by
    /// another one, so that what a server still knows by that name is the same
    /// client's, whose clock goes on. Connections get every second port as long as
    /// there is one (`__inet_hash_connect`): the others begin half-way.
    #[inline(always)]
    fn usual(self, client: &FlowKey) -> u32 {
        let port = u32::from(client.source_port.host());
        let first = part_of(client_hash(&client.source, 0), self.among);
        let index = first + port / 2 + port % 2 * (self.among / 2);
        self.place(index.checked_rem(self.among).unwrap_or(0))
    }

    #[inline(always)]
    fn any(self, random: u32) -> u32 {
        self.place(part_of(random, self.among))
    }
}

/// A part of a whole, of which `of` is a part of 2^32.
#[inline(always)]
fn part_of(of: u32, whole: u32) -> u32 {
    ((u64::from(of) * u64::from(whole)) >> 32) as u32
}

/// A port of the node for the flow of [`Tables::work`], one whose answers are no other
/// flow's: a connection's usual one, else one by chance. The client's link and how many
/// flows it has are said.
#[inline(always)]
pub(super) fn claim(
    tables: &impl Tables,
    client: &FlowKey,
    link: u32,
    flows: u32,
) -> Result<(), DropReason> {
    let window = Window::new(link, flows, ports(tables).count.into());
    // Only connections are remembered when they are over.
    let is_connection = client.protocol == u32::from(IPPROTO_TCP);
    let mut attempt = if is_connection { 0 } else { USUAL };
    while attempt < ATTEMPTS {
        attempt += 1;
        let place = match attempt {
            USUAL => window.usual(client),
            _ => window.any(tables.random()),
        };
        match tables.claimed(attempt, place) {
            CLAIMED => return Ok(()),
            TAKEN => {}
            _ => return Err(DropReason::FlowState),
        }
    }
    Err(DropReason::PortsExhausted)
}

/// What became of an attempt to get a port; anything else is that there is no
/// memory for it.
const TAKEN: u32 = 0;
const CLAIMED: u32 = 1;
const NO_MEMORY: u32 = 2;

/// Those of which there is a choice now.
#[inline(always)]
fn ports(tables: &impl Tables) -> FlowPorts {
    if tables.uplink(0).is_some_and(|node| node.shares_ports()) {
        tables.own_ports()
    } else {
        tables.ports()
    }
}

/// An attempt to get the port of that place for the flow of [`Tables::work`]. Not one
/// at which the address has a service: a process that answers datagrams to it would be
/// led there by its socket.
#[inline(always)]
pub fn claimed(tables: &impl Tables, attempt: u32, place: u32) -> u32 {
    let Some(work) = tables.work() else {
        return NO_MEMORY;
    };
    let Work {
        key,
        flow,
        back,
        answer,
        ..
    } = work;
    back.destination_port = Port::from_host(ports(tables).nth(place));
    let (address, port) = (back.destination, back.destination_port);
    let service = ServiceAddress::new(address, port, back.protocol as u8);
    if tables.frontend(&service).is_some() {
        return TAKEN;
    }
    match tables.claim(back, answer) {
        Ok(true) => return CLAIMED,
        Ok(false) => {}
        Err(_) => return NO_MEMORY,
    }
    if attempt != USUAL && attempt < TAKE {
        return TAKEN;
    }
    let Some(known) = tables.flow(back) else {
        return TAKEN;
    };
    let may_take = match attempt {
        USUAL => known.destination == key.source && known.destination_port == key.source_port,
        TAKE..TAKE_ANY => known.flags & FLOW_LINGERS == 0,
        _ => true,
    };
    if !may_take || !is_over(tables, known, back.protocol, flow.last) {
        return TAKEN;
    }
    match tables.remember(back, answer) {
        Ok(()) => CLAIMED,
        Err(_) => NO_MEMORY,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::Address;

    #[test]
    fn who_has_many_flows_leaves_ports_to_others() {
        const PORTS: u32 = 14_000;
        let all = Window {
            from: 0,
            among: PORTS,
            of: PORTS,
        };
        assert_eq!(Window::new(7, PORTS / 4 - 1, PORTS), all);
        assert_eq!(Window::new(0, PORTS, PORTS), all, "outsiders");
        let begin = |link| {
            let window = Window::new(link, PORTS / 4, PORTS);
            assert_eq!(window.among, PORTS / 2);
            assert!([0, u32::MAX].into_iter().all(|by| window.any(by) < PORTS));
            window.from
        };
        for link in 1..200 {
            let apart = begin(link).abs_diff(begin(link + 1));
            let apart = apart.min(PORTS - apart);
            assert!(apart > PORTS / 4, "{link} and the next one");
        }
    }

    #[test]
    fn a_client_s_ports_have_one_each() {
        for (client, ports, among) in [
            ([0, 0, 1, 2], (32_768..=60_999).step_by(1), 28_975),
            ([7, 0, 0, 9], (1024..=58_000).step_by(2), 28_975),
            ([7, 0, 0, 8], (32_769..=60_999).step_by(2), 14_200),
        ] {
            let window = Window::new(0, 0, among);
            let usual = |port: u16| {
                let place = window.usual(&FlowKey {
                    source: Address::v6(client),
                    source_port: Port::from_host(port),
                    ..FlowKey::default()
                });
                assert!(place < among);
                place
            };
            let all: BTreeSet<u32> = ports.clone().map(usual).collect();
            assert_eq!(all.len(), ports.count(), "{among}");
        }
    }
}
