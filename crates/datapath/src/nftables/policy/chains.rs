//! The chains in which connections are judged: as many as there are families and
//! directions, whatever the number of policies and pods.
//!
//! Words of a rule: side at 1, family at 3, class at 4, protocol at 6, port at 7,
//! and from 8 on an address. Words 1 to 7 are a key of the map of pairs. Word 0,
//! and the family's before it is loaded, take the fillers of what maps give; the
//! words of side and class are loaded with something else before, which is what
//! `nft list` shows for them (`super::super::rules` says why).

use std::net::IpAddr;

use ripstop_netlink::nftables::{
    CONNECTION_MISSING, Compare, CtKey, Direction as Flow, Expression as E, Family, Header, Hook,
    HookPoint, MetaKey, Refusal, Register, Update, Verdict,
};
use ripstop_plan::policy::{ClassId, Direction};

use super::super::rules::{Chain, Rule};
use super::super::sets::{FAMILIES, Set};
use super::FILLER;
use crate::engine::Deny;

const FORWARD: &str = "forward";
const WITHOUT_CONNECTION: &str = "forward-without-connection";
const DENIED: &str = "denied";
/// What the rule is for that counts what found no room in the sets.
pub(super) const NO_ROOM: &str = "count all others";
/// A row of denials is forgotten so long after its last packet, milliseconds.
const REMEMBERED: u64 = 3_600_000;
const TCP: u8 = 6;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// What a packet is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Question {
    /// Its connection, in whichever direction it goes.
    Connection,
    /// Itself: connection tracking does not know it.
    Packet,
}

/// One end of the question.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Client,
    Server,
}

const SIDE_FILLER: Register = Register::word(0);
const SIDE: Register = Register::word(1);
const FAMILY: Register = Register::word(3);
const CLASS: Register = Register::word(4);
const PROTOCOL: Register = Register::word(6);
const PORT: Register = Register::word(7);
const ADDRESS: Register = Register::word(8);

fn end_of(direction: Direction) -> (End, End) {
    match direction {
        Direction::Egress => (End::Client, End::Server),
        Direction::Ingress => (End::Server, End::Client),
    }
}

/// Side of a pod.
pub(super) const fn sides(direction: Direction) -> Set {
    match direction {
        Direction::Egress => Set::EgressSides,
        Direction::Ingress => Set::IngressSides,
    }
}

pub(super) const fn denials(direction: Direction) -> Set {
    match direction {
        Direction::Egress => Set::DeniedEgress,
        Direction::Ingress => Set::DeniedIngress,
    }
}

/// Rules of one family and kind of question.
#[derive(Clone, Copy)]
struct Judge(Family, Question);

impl Judge {
    fn set(self, set: Set) -> String {
        set.name(self.0).to_owned()
    }

    fn chain(self, what: &str, direction: Direction) -> String {
        let family = match self.0 {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let kind = match self.1 {
            Question::Connection => "",
            Question::Packet => "-without-connection",
        };
        format!("{family}-{what}-{direction}{kind}")
    }

    fn is_family(self) -> [E; 2] {
        let word = Register::word(0);
        [
            E::Meta {
                key: MetaKey::Family,
                to: word,
            },
            E::Compare {
                value: word,
                how: Compare::Equal,
                with: vec![self.0.number()],
            },
        ]
    }

    fn address(self, end: End, to: Register) -> E {
        let (key, direction) = match (self.1, end) {
            (Question::Packet, _) => return self.packet_address(end, to),
            // Who answers, and from where, is who gets it after translation.
            (Question::Connection, End::Client) => (CtKey::Source(self.0), Flow::Original),
            (Question::Connection, End::Server) => (CtKey::Source(self.0), Flow::Reply),
        };
        E::Ct {
            key,
            direction: Some(direction),
            to,
        }
    }

    fn packet_address(self, end: End, to: Register) -> E {
        let (offset, length) = match (self.0, end) {
            (Family::V4, End::Client) => (12, 4),
            (Family::V4, End::Server) => (16, 4),
            (Family::V6, End::Client) => (8, 16),
            (Family::V6, End::Server) => (24, 16),
        };
        E::Payload {
            header: Header::Network,
            offset,
            length,
            to,
        }
    }

    fn protocol(self, to: Register) -> E {
        match self.1 {
            Question::Connection => E::Ct {
                key: CtKey::Protocol,
                direction: None,
                to,
            },
            Question::Packet => E::Meta {
                key: MetaKey::Protocol,
                to,
            },
        }
    }

    fn port(self, to: Register) -> E {
        match self.1 {
            Question::Connection => E::Ct {
                key: CtKey::SourcePort,
                direction: Some(Flow::Reply),
                to,
            },
            Question::Packet => E::Payload {
                header: Header::Transport,
                offset: 2,
                length: 2,
                to,
            },
        }
    }

    /// The side of the pod at one end; ends the rule if that is none, or one that
    /// no policy is about.
    fn side(self, direction: Direction) -> [E; 2] {
        let (pod, _) = end_of(direction);
        [
            self.address(pod, ADDRESS),
            E::Lookup {
                map: self.set(sides(direction)),
                key: ADDRESS,
                to: SIDE_FILLER,
            },
        ]
    }

    /// For pods with policies, on to the chain that judges.
    fn ask(self, direction: Direction) -> Rule {
        let chain = self.chain("judge", direction);
        let steps = self
            .is_family()
            .into_iter()
            .chain(self.side(direction))
            .chain([E::Verdict(Verdict::Jump(chain))]);
        Rule::new(format!("{direction} of pods with policies"), steps)
    }

    /// What `nft list` shows for an id.
    fn stand_in(to: Register) -> E {
        E::Payload {
            header: Header::Network,
            offset: 0,
            length: 8,
            to,
        }
    }

    fn verdict(self, direction: Direction, class: impl IntoIterator<Item = E>) -> Vec<E> {
        let deny = self.chain("deny", direction);
        [Self::stand_in(SIDE), Self::stand_in(CLASS)]
            .into_iter()
            .chain(self.side(direction))
            .chain(class)
            .chain([
                E::Meta {
                    key: MetaKey::Family,
                    to: FAMILY,
                },
                self.protocol(PROTOCOL),
                self.port(PORT),
                // What is allowed leaves the chain here.
                E::VerdictMap {
                    map: self.set(Set::Pairs),
                    key: SIDE,
                },
                E::Verdict(Verdict::Goto(deny)),
            ])
            .collect()
    }

    fn judge(self, direction: Direction) -> Chain {
        let (_, other) = end_of(direction);
        let known = [
            self.address(other, ADDRESS),
            E::Lookup {
                map: self.set(Set::PolicyClasses),
                key: ADDRESS,
                to: FAMILY,
            },
        ];
        let base = ClassId::base(self.0 == Family::V4).number().to_be_bytes();
        let everybody = [E::Immediate {
            value: [&FILLER, &base[..]].concat(),
            to: FAMILY,
        }];
        let deny = self.chain("deny", direction);
        let mut rules = Vec::new();
        // A packet on its way may see a side of before a change, and rows of after
        // it: none. By the next time it sees the side of now.
        for when in ["", ", once more"] {
            for (what, class) in [
                ("what is said of its class", &known[..]),
                ("what is said of all", &everybody[..]),
            ] {
                let steps = self.verdict(direction, class.iter().cloned());
                rules.push(Rule::new(format!("{what}{when}"), steps));
            }
        }
        // Closed, or not whole.
        let steps = [E::Verdict(Verdict::Goto(deny))];
        rules.push(Rule::new("nothing is said", steps));
        Chain {
            name: self.chain("judge", direction),
            hook: None,
            rules,
        }
    }

    fn deny(self, direction: Direction) -> Chain {
        let words = match self.0 {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        let at = |index| Register::word(index);
        let (pod, other) = end_of(direction);
        let itself = [
            self.address(pod, at(0)),
            self.address(other, at(words)),
            E::Contains {
                set: self.set(Set::Hairpin),
                key: at(0),
                not: false,
            },
            E::Verdict(Verdict::Return),
        ];
        let count = [
            self.address(pod, at(0)),
            self.address(other, at(words)),
            self.protocol(at(2 * words)),
            self.port(at(2 * words + 1)),
            E::Dynamic {
                set: self.set(denials(direction)),
                how: Update::Refresh,
                key: at(0),
                data: None,
                timeout_ms: REMEMBERED,
            },
            E::Verdict(Verdict::Goto(DENIED.into())),
        ];
        let lost = [E::Counter, E::Verdict(Verdict::Goto(DENIED.into()))];
        let rules = vec![
            Rule::new("a pod to itself", itself),
            Rule::new("count", count),
            Rule::new(NO_ROOM, lost),
        ];
        Chain {
            name: self.chain("deny", direction),
            hook: None,
            rules,
        }
    }
}

/// How what is denied ends.
pub(in super::super) fn denied(deny: Deny) -> Chain {
    let word = Register::word(0);
    let reset = [
        E::Meta {
            key: MetaKey::Protocol,
            to: word,
        },
        E::Compare {
            value: word,
            how: Compare::Equal,
            with: vec![TCP],
        },
        E::Reject(Refusal::Reset),
    ];
    let rules = match deny {
        Deny::Drop => vec![Rule::new("drop", [E::Verdict(Verdict::Drop)])],
        Deny::Reject => vec![
            Rule::new("reset TCP", reset),
            Rule::new("refuse others", [E::Reject(Refusal::Prohibited)]),
        ],
    };
    Chain {
        name: DENIED.into(),
        hook: None,
        rules,
    }
}

/// Chains come before those that lead to them.
pub(in super::super) fn base(deny: Deny) -> Vec<Chain> {
    let judges = |question| FAMILIES.map(|family| Judge(family, question));
    let asked = |question| {
        let of = |judge: Judge| DIRECTIONS.map(|direction| judge.ask(direction));
        judges(question).into_iter().flat_map(of)
    };
    let mut chains = vec![denied(deny)];
    for judge in [Question::Connection, Question::Packet]
        .map(judges)
        .concat()
    {
        chains.extend(DIRECTIONS.map(|direction| judge.deny(direction)));
        chains.extend(DIRECTIONS.map(|direction| judge.judge(direction)));
    }
    chains.push(Chain {
        name: WITHOUT_CONNECTION.into(),
        hook: None,
        rules: asked(Question::Packet).collect(),
    });
    let state = Register::word(0);
    let missing = [
        E::Ct {
            key: CtKey::State,
            direction: None,
            to: state,
        },
        E::Mask {
            value: state,
            mask: CONNECTION_MISSING.to_ne_bytes().into(),
        },
        E::Compare {
            value: state,
            how: Compare::NotEqual,
            with: vec![0; 4],
        },
        E::Verdict(Verdict::Goto(WITHOUT_CONNECTION.into())),
    ];
    let rules = [Rule::new("without a connection", missing)];
    chains.push(Chain {
        name: FORWARD.into(),
        // As other people's filters (NF_IP_PRI_FILTER).
        hook: Some(Hook {
            point: HookPoint::Forward,
            priority: 0,
            nat: false,
        }),
        rules: rules
            .into_iter()
            .chain(asked(Question::Connection))
            .collect(),
    });
    chains
}

/// All chains with a rule for what found no room.
pub(super) fn counting() -> impl Iterator<Item = String> {
    let chains = base(Deny::Drop).into_iter();
    chains
        .filter(|chain| chain.rules.iter().any(|rule| rule.what == NO_ROOM))
        .map(|chain| chain.name)
}

/// Data of a side, behind its filler.
pub(super) fn side_data(side: ripstop_plan::policy::PolicyId) -> Vec<u8> {
    [&FILLER, &side.number().to_be_bytes()[..]].concat()
}

/// An address as a key, beside the family that its sets are of.
pub(super) fn pod_key(address: IpAddr) -> Vec<u8> {
    super::super::keys::address(address)
}
