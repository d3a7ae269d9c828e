//! The chains: what a packet goes through.
//!
//! Words of a rule, for an address of `a` words: client at 0, or a slot at
//! `a - 1`; frontend (address, protocol, port) at `a`; then, from `2a + 2`, the
//! class or the backend. So client and frontend, slot and frontend, and frontend
//! and backend are each in one piece, as the keys of the maps are.
//!
//! `nft list` (1.0.6 of Debian 12, and at least up to 1.1.3) gives up, with an
//! assertion in `netlink_parse_concat_expr`, on rules that use what one map gave
//! as a key or as data of another: it takes that to have no length. It only knows
//! where the result begins, however. So results begin one word earlier, with the
//! frontend's port that is there anyway, and the words behind it were loaded with
//! something as long before: what is shown for a class is a piece of the packet's
//! header, for a backend the packet's destination.

use std::net::IpAddr;

use ripstop_netlink::nftables::{
    AddressKind, Compare, CtKey, Direction, Expression as E, Family, Header, Hook, HookPoint,
    MetaKey, Register, Update, Verdict,
};

use super::choose::{Choose, choice};
use super::class::{Class, Outside};
use super::pressure;
use super::refuse;
use super::segments;
use super::sets::{FAMILIES, Set};
use super::sources;
use super::sources_nat;

pub(super) const REFUSE: &str = "refuse";
/// `IPS_DST_NAT` (include/uapi/linux/netfilter/nf_conntrack_common.h).
const DESTINATION_TRANSLATED: u32 = 1 << 5;
/// `RTN_LOCAL` (include/uapi/linux/rtnetlink.h).
pub(super) const LOCAL_ROUTE: u32 = 2;
/// `lo` has it in every network namespace.
const LOOPBACK: u32 = 1;
pub(super) const TCP: u8 = 6;

/// A rule: what to do, and a word on what it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rule {
    pub(super) what: String,
    pub(super) steps: Vec<E>,
}

/// A chain with its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) name: String,
    pub(super) hook: Option<Hook>,
    pub(super) rules: Vec<Rule>,
}

impl Rule {
    pub(super) fn new(what: impl Into<String>, steps: impl IntoIterator<Item = E>) -> Self {
        Self {
            what: what.into(),
            steps: steps.into_iter().collect(),
        }
    }
}

/// Where things are in the words of a rule of one family.
#[derive(Clone, Copy)]
pub(super) struct Words(pub(super) Family);

impl Words {
    /// Words of an address.
    pub(super) fn address(self) -> u32 {
        match self.0 {
            Family::V4 => 1,
            Family::V6 => 4,
        }
    }
    pub(super) fn client(self) -> Register {
        Register::word(0)
    }
    pub(super) fn frontend(self) -> Register {
        Register::word(self.address())
    }
    pub(super) fn protocol(self) -> Register {
        Register::word(2 * self.address())
    }
    pub(super) fn port(self) -> Register {
        Register::word(2 * self.address() + 1)
    }
    /// In the place of the client's end.
    pub(super) fn slot(self) -> Register {
        Register::word(self.address() - 1)
    }
    /// Where the results of maps begin.
    pub(super) fn result(self) -> Register {
        self.port()
    }
    /// Class or backend.
    pub(super) fn found(self) -> Register {
        Register::word(2 * self.address() + 2)
    }
    pub(super) fn found_port(self) -> Register {
        Register::word(3 * self.address() + 2)
    }

    pub(super) fn is_family(self) -> [E; 2] {
        let to = Register::word(0);
        [
            E::Meta {
                key: MetaKey::Family,
                to,
            },
            equal(to, [self.0.number()]),
        ]
    }

    pub(super) fn source(self, to: Register) -> E {
        let offset = match self.0 {
            Family::V4 => 12,
            Family::V6 => 8,
        };
        self.network(offset, to)
    }

    pub(super) fn destination(self, to: Register) -> E {
        let offset = match self.0 {
            Family::V4 => 16,
            Family::V6 => 24,
        };
        self.network(offset, to)
    }

    fn network(self, offset: u32, to: Register) -> E {
        E::Payload {
            header: Header::Network,
            offset,
            length: 4 * self.address(),
            to,
        }
    }

    pub(super) fn load_frontend(self) -> [E; 3] {
        [
            self.destination(self.frontend()),
            E::Meta {
                key: MetaKey::Protocol,
                to: self.protocol(),
            },
            // Source and destination port are the first words of all three.
            Self::load_port(2, self.port()),
        ]
    }

    pub(super) fn load_port(offset: u32, to: Register) -> E {
        E::Payload {
            header: Header::Transport,
            offset,
            length: 2,
            to,
        }
    }

    /// What `nft list` shows for a backend that is looked up.
    pub(super) fn stand_in(self) -> [E; 2] {
        [
            self.destination(self.found()),
            Self::load_port(2, self.found_port()),
        ]
    }

    /// The frontend's port, again: for `nft list` it has become a result.
    pub(super) fn reload_port(self) -> E {
        Self::load_port(2, self.port())
    }

    pub(super) fn set(self, set: Set) -> String {
        set.name(self.0).to_owned()
    }

    /// The packet's source is neither a pod's nor this node's.
    pub(super) fn is_from_outside(self) -> [E; 4] {
        self.is_neither_of(Set::PodRanges)
    }

    /// The packet's source is neither in the set nor this node's.
    fn is_neither_of(self, pods: Set) -> [E; 4] {
        let word = self.client();
        [
            self.source(word),
            E::Contains {
                set: self.set(pods),
                key: word,
                not: true,
            },
            E::RouteType {
                of: AddressKind::Source,
                to: word,
            },
            differs(word, LOCAL_ROUTE.to_ne_bytes()),
        ]
    }

    /// Leads to the backend that was chosen.
    pub(super) fn dnat(self) -> E {
        E::Dnat {
            family: self.0,
            address: self.found(),
            port: self.found_port(),
        }
    }

    /// Counts the packet for frontend and backend.
    pub(super) fn count(self, set: Set) -> E {
        E::Dynamic {
            set: self.set(set),
            // Nothing that packets on several processors would write at once.
            how: Update::Make,
            key: self.frontend(),
            data: None,
            timeout_ms: 0,
        }
    }

    pub(super) fn refresh(self, seconds: u32) -> E {
        self.affinity(Update::Refresh, seconds)
    }

    pub(super) fn affinity(self, how: Update, seconds: u32) -> E {
        E::Dynamic {
            set: self.set(Set::Affinity),
            how,
            key: self.client(),
            data: Some(self.result()),
            timeout_ms: u64::from(seconds) * 1000,
        }
    }
}

pub(super) fn equal(value: Register, with: impl Into<Vec<u8>>) -> E {
    E::Compare {
        value,
        how: Compare::Equal,
        with: with.into(),
    }
}

pub(super) fn differs(value: Register, with: impl Into<Vec<u8>>) -> E {
    E::Compare {
        value,
        how: Compare::NotEqual,
        with: with.into(),
    }
}

/// The chains of a class.
pub(super) fn class(family: Family, class: Class) -> Vec<Chain> {
    let words = Words(family);
    let mut rules = Vec::new();
    if class.ranges {
        let steps = words.load_frontend().into_iter().chain([
            words.source(words.found()),
            E::Contains {
                set: words.set(Set::Clients),
                key: words.frontend(),
                not: true,
            },
            E::Verdict(Verdict::Drop),
        ]);
        rules.push(Rule::new("source ranges", steps));
    }
    let mut chains = Vec::new();
    if let Some(name) = class.outside_chain(family) {
        // Pods of other nodes have chosen a node like any other client.
        let inside = match class.outside {
            Outside::Local(_) => Set::Pods,
            Outside::Same | Outside::Spread(_) => Set::PodRanges,
        };
        let steps = words
            .is_neither_of(inside)
            .into_iter()
            .chain([E::Verdict(Verdict::Goto(name.clone()))]);
        rules.push(Rule::new("from outside", steps));
        let choose = match class.outside {
            Outside::Spread(slots) => Some(Choose::Hash(slots)),
            Outside::Local(0) | Outside::Same => None,
            Outside::Local(count) => Some(Choose::Random(Set::Outer, count)),
        };
        let rules = match choose {
            Some(choose) => choice(words, choose, class.affinity),
            None => vec![Rule::new("nobody here", [E::Verdict(Verdict::Drop)])],
        };
        chains.push(Chain {
            name,
            hook: None,
            rules,
        });
    }
    if class.backends == 0 {
        rules.push(Rule::new(
            "no backends",
            [E::Verdict(Verdict::Goto(REFUSE.into()))],
        ));
    } else {
        let choose = Choose::Random(Set::Slots, class.backends);
        rules.extend(choice(words, choose, class.affinity));
    }
    chains.push(Chain {
        name: class.chain(family),
        hook: None,
        rules,
    });
    chains
}

/// The chains that are always there, after those of policies. Chains come before
/// those that lead to them.
pub(super) fn base(node_addresses: &[IpAddr], policies: Vec<Chain>) -> Vec<Chain> {
    let hook = |point, priority, nat| {
        Some(Hook {
            point,
            priority,
            nat,
        })
    };
    // Priorities: before connection tracking; as destination and source NAT of
    // others (include/uapi/linux/netfilter_ipv4.h).
    let mut chains = policies;
    chains.extend([
        Chain {
            name: REFUSE.into(),
            hook: None,
            rules: refuse::rules(),
        },
        pressure::chain(),
        Chain {
            name: "guard".into(),
            hook: hook(HookPoint::Prerouting, -300, false),
            rules: FAMILIES
                .into_iter()
                .flat_map(sources::guards)
                .chain([guard()])
                .collect(),
        },
        Chain {
            name: "prerouting".into(),
            hook: hook(HookPoint::Prerouting, -100, true),
            rules: [pressure::rule()].into_iter().chain(services()).collect(),
        },
        Chain {
            name: "output".into(),
            hook: hook(HookPoint::Output, -100, true),
            rules: services(),
        },
        // After destinations are translated: each packet passes one of the two.
        Chain {
            name: "count-forwarded".into(),
            hook: hook(HookPoint::Prerouting, -50, false),
            rules: FAMILIES.into_iter().map(count).collect(),
        },
        Chain {
            name: "count-own".into(),
            hook: hook(HookPoint::Output, -50, false),
            rules: FAMILIES.into_iter().map(count).collect(),
        },
        // As other people's changes of packets.
        Chain {
            name: "segments-own".into(),
            hook: hook(HookPoint::Input, -150, false),
            rules: FAMILIES.into_iter().map(segments::own).collect(),
        },
        Chain {
            name: "segments-forwarded".into(),
            hook: hook(HookPoint::Postrouting, -150, false),
            rules: vec![segments::forwarded()],
        },
        Chain {
            name: "postrouting".into(),
            hook: hook(HookPoint::Postrouting, 100, true),
            rules: FAMILIES
                .into_iter()
                .flat_map(|family| sources_nat::rules(family, node_addresses))
                .collect(),
        },
    ]);
    chains
}

/// Loopback addresses may be routed on a node with ports on them: not from
/// elsewhere.
fn guard() -> Rule {
    let (words, word) = (Words(Family::V4), Register::word(0));
    let steps = words.is_family().into_iter().chain([
        E::Meta {
            key: MetaKey::Iif,
            to: word,
        },
        differs(word, LOOPBACK.to_ne_bytes()),
        words.destination(word),
        E::Mask {
            value: word,
            mask: vec![255, 0, 0, 0],
        },
        equal(word, [127, 0, 0, 0]),
        E::Verdict(Verdict::Drop),
    ]);
    Rule::new("loopback from elsewhere", steps)
}

fn services() -> Vec<Rule> {
    let mut rules = Vec::new();
    for words in FAMILIES.map(Words) {
        let known = words
            .is_family()
            .into_iter()
            .chain(words.load_frontend())
            .chain([
                // A stand-in for the class.
                E::Payload {
                    header: Header::Network,
                    offset: 0,
                    length: 16,
                    to: words.found(),
                },
                E::Lookup {
                    map: words.set(Set::Services),
                    key: words.frontend(),
                    to: words.result(),
                },
                E::VerdictMap {
                    map: words.set(Set::Classes),
                    key: words.found(),
                },
            ]);
        rules.push(Rule::new("services", known));
    }
    for words in FAMILIES.map(Words) {
        let unknown = words.is_family().into_iter().chain([
            words.destination(words.frontend()),
            E::Contains {
                set: words.set(Set::ServiceRanges),
                key: words.frontend(),
                not: false,
            },
            // The node has the address of the cluster's DNS itself.
            E::RouteType {
                of: AddressKind::Destination,
                to: words.client(),
            },
            differs(words.client(), LOCAL_ROUTE.to_ne_bytes()),
            E::Verdict(Verdict::Goto(REFUSE.into())),
        ]);
        rules.push(Rule::new("no such service", unknown));
    }
    rules
}

/// The destination of the packet's connection was translated.
pub(super) fn is_translated(word: Register) -> [E; 3] {
    [
        E::Ct {
            key: CtKey::Status,
            direction: None,
            to: word,
        },
        E::Mask {
            value: word,
            mask: DESTINATION_TRANSLATED.to_ne_bytes().into(),
        },
        differs(word, [0; 4]),
    ]
}

/// Counts what goes through services.
fn count(family: Family) -> Rule {
    let words = Words(family);
    let (asked, answers) = (Some(Direction::Original), Some(Direction::Reply));
    let ct = |key, direction, to| E::Ct { key, direction, to };
    let pair = [
        ct(CtKey::Destination(family), asked, words.frontend()),
        ct(CtKey::Protocol, None, words.protocol()),
        ct(CtKey::DestinationPort, asked, words.port()),
        ct(CtKey::Source(family), answers, words.found()),
        ct(CtKey::SourcePort, answers, words.found_port()),
        words.count(Set::Traffic),
    ];
    let steps = is_translated(words.client())
        .into_iter()
        .chain(words.is_family())
        .chain(pair);
    Rule::new("bytes of services", steps)
}
