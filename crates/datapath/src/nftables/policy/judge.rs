//! How one end of a connection is judged: the chains of one family, direction and
//! kind of question.
//!
//! Words of a rule: side at 1, family at 3, class at 4, what is said (its row) at
//! 7, protocol at 9, port at 10, the port's length at 11, and from 12 on an
//! address. Words 1 to 5 are a key of the map of pairs, words 7 to 11 one of the
//! set of what is allowed. Words 0 and 6, and the family's before it is loaded,
//! take the fillers of what maps give; the words of side, class and row are loaded
//! with something else before, which is what `nft list` shows for them
//! (`super::super::rules` says why).
//!
//! All are hash tables but the one of blocks: so a change costs what it changes,
//! and not the size of the table (newer kernels, 6.18.44 among them, make an
//! array of a whole set of ranges with each transaction that touches it).

use ripstop_netlink::nftables::{
    Compare, CtKey, Direction as Flow, Expression as E, Family, Header, MetaKey, Register, Update,
    Verdict,
};
use ripstop_plan::policy::{ClassId, Direction};

use super::super::rules::{Chain, Rule};
use super::super::sets::Set;
use super::FILLER;
use super::said::{LENGTHS, WITH_PORTS};

/// What the rule is for that counts what found no room in the sets.
pub(super) const NO_ROOM: &str = "count all others";
/// How what is denied ends.
pub(super) const DENIED: &str = "denied";
/// A row of denials is forgotten so long after its last packet, milliseconds.
const REMEMBERED: u64 = 3_600_000;

/// What a packet is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
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

/// Where the class of the other end is from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// The address has one itself, as pods have.
    Listed,
    /// A block has it.
    Block,
    /// It is the one of all others.
    Everybody,
}

const SIDE_FILLER: Register = Register::word(0);
const SIDE: Register = Register::word(1);
const FAMILY: Register = Register::word(3);
const CLASS: Register = Register::word(4);
const ROW_FILLER: Register = Register::word(6);
const ROW: Register = Register::word(7);
const PROTOCOL: Register = Register::word(9);
const PORT: Register = Register::word(10);
const LENGTH: Register = Register::word(11);
const ADDRESS: Register = Register::word(12);

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

/// Rules of one family, kind of question and direction.
#[derive(Clone, Copy)]
pub(super) struct Judge {
    pub(super) family: Family,
    pub(super) question: Question,
    pub(super) direction: Direction,
}

impl Judge {
    fn set(self, set: Set) -> String {
        set.name(self.family).to_owned()
    }

    fn name(self, what: &str) -> String {
        let family = match self.family {
            Family::V4 => "ip",
            Family::V6 => "ip6",
        };
        let kind = match self.question {
            Question::Connection => "",
            Question::Packet => "-without-connection",
        };
        format!("{family}-{what}-{}{kind}", self.direction)
    }

    fn chain(self, what: &str, rules: Vec<Rule>) -> Chain {
        Chain {
            name: self.name(what),
            hook: None,
            rules,
        }
    }

    fn goto(self, what: &str) -> E {
        E::Verdict(Verdict::Goto(self.name(what)))
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
                with: vec![self.family.number()],
            },
        ]
    }

    fn address(self, end: End, to: Register) -> E {
        let (key, direction) = match (self.question, end) {
            (Question::Packet, _) => return self.packet_address(end, to),
            // Who answers, and from where, is who gets it after translation.
            (Question::Connection, End::Client) => (CtKey::Source(self.family), Flow::Original),
            (Question::Connection, End::Server) => (CtKey::Source(self.family), Flow::Reply),
        };
        E::Ct {
            key,
            direction: Some(direction),
            to,
        }
    }

    fn packet_address(self, end: End, to: Register) -> E {
        let (offset, length) = match (self.family, end) {
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
        match self.question {
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
        match self.question {
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
    fn side(self) -> [E; 2] {
        let (pod, _) = end_of(self.direction);
        [
            self.address(pod, ADDRESS),
            E::Lookup {
                map: self.set(sides(self.direction)),
                key: ADDRESS,
                to: SIDE_FILLER,
            },
        ]
    }

    /// For pods with policies, on to the chain that judges.
    pub(super) fn ask(self) -> Rule {
        let steps = self.is_family().into_iter().chain(self.side());
        Rule::new(
            format!("{} of pods with policies", self.direction),
            steps.chain([E::Verdict(Verdict::Jump(self.name("judge")))]),
        )
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

    /// The class of the other end; ends the rule if it has none from there.
    fn class(self, class: Class) -> Vec<E> {
        let (_, other) = end_of(self.direction);
        let of = |set| {
            vec![
                self.address(other, ADDRESS),
                E::Lookup {
                    map: self.set(set),
                    key: ADDRESS,
                    to: FAMILY,
                },
            ]
        };
        match class {
            Class::Listed => of(Set::PolicyAddresses),
            Class::Block => of(Set::PolicyBlocks),
            Class::Everybody => {
                let base = ClassId::base(self.family == Family::V4);
                vec![E::Immediate {
                    value: [&FILLER, &base.number().to_be_bytes()[..]].concat(),
                    to: FAMILY,
                }]
            }
        }
    }

    /// What the side says of the class; ends the rule if that is nothing.
    fn row(self, class: Class) -> Vec<E> {
        [SIDE, CLASS, ROW]
            .map(Self::stand_in)
            .into_iter()
            .chain(self.side())
            .chain(self.class(class))
            .chain([
                E::Meta {
                    key: MetaKey::Family,
                    to: FAMILY,
                },
                E::Lookup {
                    map: self.set(Set::Pairs),
                    key: SIDE,
                    to: ROW_FILLER,
                },
            ])
            .collect()
    }

    /// Goes on if the row allows the port, by so many of its first bits.
    fn allowed(self, class: Class, length: u8) -> Rule {
        let port = match length {
            0 => vec![E::Immediate {
                value: vec![0; 2],
                to: PORT,
            }],
            16 => vec![self.port(PORT)],
            _ => {
                let mask = u16::MAX << (16 - length);
                vec![
                    self.port(PORT),
                    E::Mask {
                        value: PORT,
                        mask: mask.to_be_bytes().into(),
                    },
                ]
            }
        };
        let steps = self
            .row(class)
            .into_iter()
            .chain([self.protocol(PROTOCOL)])
            .chain(port);
        let what = match length {
            0 => "any port".to_owned(),
            16 => "this port".to_owned(),
            _ => format!("ports with these {length} bits"),
        };
        self.passes(what, steps.collect(), length)
    }

    /// The same for protocols without ports.
    fn others_allowed(self, class: Class) -> Rule {
        let is_other = WITH_PORTS.map(|protocol| E::Compare {
            value: PROTOCOL,
            how: Compare::NotEqual,
            with: vec![protocol],
        });
        let zero = |to, length| E::Immediate {
            value: vec![0; length],
            to,
        };
        let steps = [self.protocol(PROTOCOL)]
            .into_iter()
            .chain(is_other)
            .chain(self.row(class))
            .chain([zero(PROTOCOL, 1), zero(PORT, 2)]);
        self.passes("other protocols".into(), steps.collect(), 0)
    }

    fn passes(self, what: String, mut steps: Vec<E>, length: u8) -> Rule {
        steps.extend([
            E::Immediate {
                value: vec![length],
                to: LENGTH,
            },
            E::Contains {
                set: self.set(Set::Allowed),
                key: ROW,
                not: false,
            },
            E::Verdict(Verdict::Return),
        ]);
        Rule::new(what, steps)
    }

    /// Whatever is allowed but one port.
    fn ranges(self, class: Class) -> impl Iterator<Item = Rule> {
        let lengths = LENGTHS.into_iter().filter(|length| *length != 16);
        lengths
            .map(move |length| self.allowed(class, length))
            .chain([self.others_allowed(class)])
    }

    /// All that decides; for connections twice. A packet on its way may see a side
    /// of before a change, and rows of after it: none. The second time it sees the
    /// side of now. (Each rule that looks into a map costs every new element of it,
    /// which the kernel holds against all of them: so there are no more than need
    /// be.) Chains come before those that lead to them.
    pub(super) fn chains(self) -> Vec<Chain> {
        // Closed, not whole, or not allowed.
        let mut chains = vec![self.chain("deny", self.deny())];
        match self.question {
            Question::Connection => {
                chains.extend(self.judge("-again", "deny"));
                chains.extend(self.judge("", "judge-again"));
            }
            Question::Packet => chains.extend(self.judge("", "deny")),
        }
        chains
    }

    fn judge(self, suffix: &str, otherwise: &str) -> [Chain; 4] {
        let name = |what: &str| format!("{what}{suffix}");
        let found = |what, steps: Vec<E>, to: &str| {
            Rule::new(what, steps.into_iter().chain([self.goto(&name(to))]))
        };
        let last = || Rule::new("not allowed", [self.goto(otherwise)]);
        let ranges = |class| self.ranges(class).chain([last()]).collect();
        let everybody = [self.allowed(Class::Everybody, 16)]
            .into_iter()
            .chain(self.ranges(Class::Everybody))
            .chain([last()]);
        let judge = vec![
            self.allowed(Class::Listed, 16),
            found("something is said of it", self.row(Class::Listed), "listed"),
            found("it has a class", self.class(Class::Listed), "everybody"),
            self.allowed(Class::Block, 16),
            found("something is said of it", self.row(Class::Block), "block"),
            found("it is as all others", Vec::new(), "everybody"),
        ];
        [
            self.chain(&name("listed"), ranges(Class::Listed)),
            self.chain(&name("block"), ranges(Class::Block)),
            self.chain(&name("everybody"), everybody.collect()),
            self.chain(&name("judge"), judge),
        ]
    }

    fn deny(self) -> Vec<Rule> {
        let words = match self.family {
            Family::V4 => 1,
            Family::V6 => 4,
        };
        let at = |index| Register::word(index);
        let (pod, other) = end_of(self.direction);
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
                set: self.set(denials(self.direction)),
                how: Update::Refresh,
                key: at(0),
                data: None,
                timeout_ms: REMEMBERED,
            },
            E::Verdict(Verdict::Goto(DENIED.into())),
        ];
        let lost = [E::Counter, E::Verdict(Verdict::Goto(DENIED.into()))];
        vec![
            Rule::new("a pod to itself", itself),
            Rule::new("count", count),
            Rule::new(NO_ROOM, lost),
        ]
    }
}
