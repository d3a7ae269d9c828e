//! What who asks for a service without backends is told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ripstop_model::Protocol;
use ripstop_netlink::nftables::{Expression as E, Family, MetaKey, Refusal, Register};

use super::keys;
use super::rules::{Rule, TCP, Words, equal};
use super::sets::FAMILIES;

/// Nobody can listen at it.
pub(super) const CLOSED_PORT: u16 = 0;

pub(super) fn rules() -> Vec<Rule> {
    let tcp = protocol(TCP).into_iter().chain([E::Reject(Refusal::Reset)]);
    let others = [E::Reject(Refusal::PortUnreachable)];
    [Rule::new("TCP", tcp)]
        .into_iter()
        .chain(FAMILIES.map(own_datagrams))
        .chain([Rule::new("others", others)])
        .collect()
}

fn protocol(number: u8) -> [E; 2] {
    let word = Register::word(0);
    [
        E::Meta {
            key: MetaKey::Protocol,
            to: word,
        },
        equal(word, [number]),
    ]
}

/// A packet that is dropped where the node's own processes send makes `sendmsg`
/// fail with EPERM (`nf_hook_slow`, net/netfilter/core.c), before the refusal can
/// say more. So it goes to a port of loopback that is closed: what the stack says
/// of that becomes ECONNREFUSED, as with a host that is far away.
fn own_datagrams(family: Family) -> Rule {
    let (words, word) = (Words(family), Register::word(0));
    let loopback: IpAddr = match family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let came_by_no_link = [
        E::Meta {
            key: MetaKey::Iif,
            to: word,
        },
        equal(word, [0; 4]),
    ];
    let steps = words
        .is_family()
        .into_iter()
        .chain(protocol(Protocol::Udp as u8))
        .chain(came_by_no_link)
        .chain([
            E::Immediate {
                value: keys::address(loopback),
                to: words.found(),
            },
            E::Immediate {
                value: CLOSED_PORT.to_be_bytes().into(),
                to: words.found_port(),
            },
            words.dnat(),
        ]);
    Rule::new("datagrams of the node's own", steps)
}
