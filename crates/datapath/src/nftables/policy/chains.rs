//! The chains in which connections are judged: as many as there are families and
//! directions, whatever the number of policies and pods.

use std::net::IpAddr;

use ripstop_netlink::nftables::{
    CONNECTION_MISSING, Compare, CtKey, Expression as E, Hook, HookPoint, MetaKey, Refusal,
    Register, Verdict,
};

use super::super::rules::{Chain, Rule};
use super::super::sets::FAMILIES;
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

/// Chains come before those that lead to them.
pub(in super::super) fn base(deny: Deny) -> Vec<Chain> {
    let asked = |question| judges(question).map(Judge::ask);
    let mut chains = vec![denied(deny)];
    for question in [Question::Connection, Question::Packet] {
        chains.extend(judges(question).flat_map(Judge::chains));
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
