//! Who connections seem to come from: after routing, what is to come back by this
//! node gets its address.

use std::net::IpAddr;

use ripstop_netlink::nftables::{
    AddressKind, Compare, CtKey, Direction, Expression as E, Family, MetaKey, Register,
};

use super::keys;
use super::rules::{LOCAL_ROUTE, Rule, Words, differs, equal, is_translated};
use super::sets::Set;

pub(super) fn rules(family: Family, node_addresses: &[IpAddr]) -> Vec<Rule> {
    let words = Words(family);
    let node = node_addresses.iter().find(|a| Family::of(a) == family);
    let word = words.client();
    let translated = is_translated(word);
    // The node's address, as the plan has it: an interface may have others, or
    // none.
    let ports = ports(words);
    let as_node = || {
        let address = node.map(|node| {
            let value = keys::address(*node);
            let to = words.found();
            E::Immediate { value, to }
        });
        let registers = ports.registers;
        let translate = match node {
            Some(_) => E::Snat {
                family,
                address: words.found(),
                ports: registers,
            },
            None => E::Masquerade { ports: registers },
        };
        let steps = address.into_iter().chain(ports.steps.clone());
        steps.chain([translate]).collect::<Vec<_>>()
    };
    let start = |steps: &mut Vec<E>| {
        steps.extend(words.is_family());
        steps.extend(translated.clone());
    };

    let mut hairpin = Vec::new();
    start(&mut hairpin);
    hairpin.extend([
        words.source(words.client()),
        words.destination(words.frontend()),
        E::Contains {
            set: words.set(Set::Hairpin),
            key: words.client(),
            not: false,
        },
    ]);
    hairpin.extend(as_node());

    let mut loopback = Vec::new();
    start(&mut loopback);
    loopback.push(words.source(word));
    match family {
        Family::V4 => loopback.extend([
            E::Mask {
                value: word,
                mask: vec![255, 0, 0, 0],
            },
            equal(word, [127, 0, 0, 0]),
        ]),
        Family::V6 => {
            loopback.push(equal(word, std::net::Ipv6Addr::LOCALHOST.octets()));
        }
    }
    loopback.extend(as_node());

    let mut outside = Vec::new();
    start(&mut outside);
    outside.extend(words.is_from_outside());
    let original = Some(Direction::Original);
    outside.extend([
        E::Ct {
            key: CtKey::Destination(family),
            direction: original,
            to: words.frontend(),
        },
        E::Meta {
            key: MetaKey::Protocol,
            to: words.protocol(),
        },
        E::Ct {
            key: CtKey::DestinationPort,
            direction: original,
            to: words.port(),
        },
        E::Contains {
            set: words.set(Set::Preserved),
            key: words.frontend(),
            not: true,
        },
        // One of ours: others translate destinations, too.
        E::Lookup {
            map: words.set(Set::Services),
            key: words.frontend(),
            to: words.found(),
        },
    ]);
    outside.extend(as_node());

    // A pod of another node that asked a port of this one: where the backend is
    // elsewhere, its answer would go straight to that pod.
    let mut elsewhere = Vec::new();
    start(&mut elsewhere);
    elsewhere.extend([
        words.source(word),
        E::Contains {
            set: words.set(Set::PodRanges),
            key: word,
            not: false,
        },
        E::Contains {
            set: words.set(Set::Pods),
            key: word,
            not: true,
        },
        words.destination(words.frontend()),
        E::Contains {
            set: words.set(Set::Pods),
            key: words.frontend(),
            not: true,
        },
        // Nor this node itself, under an address of the pods' range.
        E::RouteType {
            of: AddressKind::Source,
            to: word,
        },
        differs(word, LOCAL_ROUTE.to_ne_bytes()),
    ]);
    elsewhere.extend(as_node());

    let egress = words.is_family().into_iter().chain([
        words.source(word),
        E::Contains {
            set: words.set(Set::Pods),
            key: word,
            not: false,
        },
        // Without the cluster's ranges nothing is known to be outside of them.
        E::Contains {
            set: words.set(Set::PodRanges),
            key: word,
            not: false,
        },
        words.destination(word),
        E::Contains {
            set: words.set(Set::ClusterRanges),
            key: word,
            not: true,
        },
    ]);
    let egress = egress.chain(ports.steps.clone());
    let egress = egress.chain([E::Masquerade {
        ports: ports.registers,
    }]);
    vec![
        Rule::new("a pod to itself", hairpin),
        Rule::new("from loopback", loopback),
        Rule::new("from outside", outside),
        Rule::new("a pod of another node", elsewhere),
        Rule::new("out of the cluster", egress),
        own_ports(family),
    ]
}

/// What the node's own sockets send keeps its port, as always, unless somebody has it
/// there: a connection of before to a service that led to the same backend. Then the
/// kernel would choose any port of all, and so one of a flow that the other engine
/// leads, which gets the answer. So it is another one of sockets'.
pub(super) fn own_ports(family: Family) -> Rule {
    let (words, word) = (Words(family), Register::word(0));
    let (first, last) = crate::ports::of_sockets();
    // Of echo requests type and code are where the port is.
    let without_ports: u8 = match family {
        Family::V4 => 1,
        Family::V6 => 58,
    };
    let compare = |how, port: u16| E::Compare {
        value: word,
        how,
        with: port.to_be_bytes().into(),
    };
    let Ports { steps, registers } = between(words, first, last);
    let own = words.is_family().into_iter().chain([
        E::Meta {
            key: MetaKey::Protocol,
            to: word,
        },
        differs(word, [without_ports]),
        Words::load_port(0, word),
        compare(Compare::AtLeast, first),
        compare(Compare::AtMost, last),
        E::RouteType {
            of: AddressKind::Source,
            to: word,
        },
        equal(word, LOCAL_ROUTE.to_ne_bytes()),
    ]);
    let ports = E::OwnPort {
        family,
        ports: registers,
    };
    Rule::new("the node's own", own.chain(steps).chain([ports]))
}

/// Ports to choose from, at the end of a rule: in the place of what was asked
/// about.
struct Ports {
    steps: [E; 2],
    registers: [Register; 2],
}

fn ports(words: Words) -> Ports {
    let (first, last) = crate::ports::of_nftables();
    between(words, first, last)
}

fn between(words: Words, first: u16, last: u16) -> Ports {
    let registers = [words.frontend(), words.port()];
    let load = |port: u16, to| E::Immediate {
        // Two bytes, as `nft list` wants.
        value: port.to_be_bytes().to_vec(),
        to,
    };
    Ports {
        steps: [load(first, registers[0]), load(last, registers[1])],
        registers,
    }
}
