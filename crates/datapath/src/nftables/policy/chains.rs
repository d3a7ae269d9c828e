//! The chains in which connections are judged: as many as there are families and
//! directions, whatever the number of policies and pods.

use std::net::IpAddr;

use ripstop_netlink::nftables::{
    CONNECTION_MISSING, Compare, CtKey, Expression as E, Hook, HookPoint, MetaKey, Refusal,
    Register, Verdict,
};

use super::super::rules::{Chain, Rule};
use super::super::sets::FAMILIES;
use super::generation::Generation;
use super::judge::{DENIED, Judge, NO_ROOM, Question};
use super::{DIRECTIONS, FILLER};
use crate::engine::Deny;

const FORWARD: &str = "forward";
const WITHOUT_CONNECTION: &str = "forward-without-connection";
const TCP: u8 = 6;

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

/// Those of one kind of question; egress comes first.
fn judges(question: Question) -> impl Iterator<Item = Judge> {
    DIRECTIONS.into_iter().flat_map(move |direction| {
        FAMILIES.map(|family| Judge {
            family,
            question,
            direction,
        })
    })
}

fn asked(question: Question) -> impl Iterator<Item = Rule> {
    judges(question).map(Judge::ask)
}

/// Chains come before those that lead to them. `generation`: [`Generation`].
pub(in super::super) fn base(deny: Deny, generation: Option<Generation>) -> Vec<Chain> {
    let mut chains = vec![denied(deny)];
    for question in [Question::Connection, Question::Packet] {
        chains.extend(judges(question).flat_map(Judge::chains));
    }
    chains.push(Chain {
        name: WITHOUT_CONNECTION.into(),
        hook: None,
        rules: asked(Question::Packet).collect(),
    });
    chains.push(forward(generation));
    chains
}

/// The base chain. What passed it once passes by the connection's mark for as long
/// as the rules have the same generation, whatever it is about.
///
/// Both rules of a generation are in this one chain, and a packet keeps the rules
/// of a base chain with which it began: so one that was judged by what was there
/// before a change never marks its connection as one of after it.
pub(in super::super) fn forward(generation: Option<Generation>) -> Chain {
    let word = Register::word(0);
    let missing = [
        E::Ct {
            key: CtKey::State,
            direction: None,
            to: word,
        },
        E::Mask {
            value: word,
            mask: CONNECTION_MISSING.to_ne_bytes().into(),
        },
        E::Compare {
            value: word,
            how: Compare::NotEqual,
            with: vec![0; 4],
        },
        E::Verdict(Verdict::Goto(WITHOUT_CONNECTION.into())),
    ];
    let mut rules = vec![Rule::new("without a connection", missing)];
    if let Some(Generation(number)) = generation {
        let passed = [
            E::Ct {
                key: CtKey::SecurityMark,
                direction: None,
                to: word,
            },
            E::Compare {
                value: word,
                how: Compare::Equal,
                with: number.to_ne_bytes().into(),
            },
            E::Verdict(Verdict::Accept),
        ];
        rules.push(Rule::new("passed under the rules of now", passed));
    }
    rules.extend(asked(Question::Connection));
    if let Some(Generation(number)) = generation {
        let mark = [
            E::Immediate {
                value: number.to_ne_bytes().into(),
                to: word,
            },
            E::SetSecurityMark { from: word },
        ];
        rules.push(Rule::new("passes", mark));
    }
    Chain {
        name: FORWARD.into(),
        // As other people's filters (NF_IP_PRI_FILTER).
        hook: Some(Hook {
            point: HookPoint::Forward,
            priority: 0,
            nat: false,
        }),
        rules,
    }
}

/// All chains with a rule for what found no room.
pub(super) fn counting() -> impl Iterator<Item = String> {
    let chains = base(Deny::Drop, None).into_iter();
    chains
        .filter(|chain| chain.rules.iter().any(|rule| rule.what == NO_ROOM))
        .map(|chain| chain.name)
}

/// Data of an id, behind its filler.
pub(super) fn id_data(number: u64) -> Vec<u8> {
    [&FILLER, &number.to_be_bytes()[..]].concat()
}

/// An id read back; `None` if nobody of ours wrote this.
pub(super) fn read_id(data: &[u8]) -> Option<u64> {
    let number = data.strip_prefix(&FILLER)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// An address as a key, beside the family that its sets are of.
pub(super) fn address_key(address: IpAddr) -> Vec<u8> {
    super::super::keys::address(address)
}
