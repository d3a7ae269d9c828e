//! What keeps a pod that floods from filling the kernel's table of connections.
//!
//! When that is full, the kernel forgets connections that have no answer yet,
//! whosever they are (`early_drop`, net/netfilter/nf_conntrack_core.c), or drops
//! what begins new ones. So from half of it on it is counted whose they are, and
//! who has more than an eighth of it begins no more until it has less: see
//! [`gauge::Marks`]. Counting takes a while; until it is done no pod begins more
//! than [`BURST`] at once.
//!
//! As long as there are fewer, a new connection costs one lookup in an empty set,
//! and other packets nothing: the rule is where services are looked up. What is
//! dropped there is in nobody's table yet. Pods are told by their links, so that a
//! pod has one share whatever address it sends from; the node's own processes and
//! outsiders are not held.

mod gauge;
mod valve;

use std::collections::BTreeMap;

use ripstop_netlink::nftables::{
    Element, Expression as E, Field, MetaKey, Nftables, Register, SetSpec, Update, Verdict,
};

use super::rules::{Chain, Rule};
use super::{TABLE, refused};
use crate::engine::Error;

pub(super) use valve::start;

/// What each pod may begin until it is known whose the connections are: so many
/// at once and per second. More than a client needs for the moment that a count
/// takes, and a fraction of what is left of the table.
const BURST: u32 = 2048;
const PER_SECOND: u64 = 2048;
/// Links of which there is something in the sets, at most.
const LINKS: u32 = 1 << 16;
/// Elements that nobody confirms end by themselves, milliseconds: nobody is held
/// for long by an agent that is gone.
const PATIENCE: u64 = 60_000;
/// A link's drops are forgotten so long after the last, milliseconds.
const REMEMBERED: u64 = 3_600_000;
const NAME: &str = "pressure";
const WHAT: &str = "more connections than its share";

const fn of_links(name: &'static str, counts: bool) -> SetSpec {
    SetSpec {
        dynamic: Some(LINKS),
        counts,
        ..SetSpec::set(name, &[Field::Interface])
    }
}

/// Links of pods that something of this is in force for.
const PRESSED: SetSpec = of_links("pressed", false);
/// Those of them that have more than their share.
const HELD: SetSpec = of_links("held", false);
/// How many connections each began lately; made by packets.
const BEGUN: SetSpec = of_links("begun", false);
/// Packets that were dropped, by link; made by packets.
const REFUSED: SetSpec = of_links("refused", true);

/// What is in them comes and goes: nobody's plan has it.
pub(super) const SETS: [SetSpec; 4] = [PRESSED, HELD, BEGUN, REFUSED];

const LINK: Register = Register::word(0);

fn by_link_of(set: &SetSpec) -> [E; 2] {
    [
        E::Meta {
            key: MetaKey::Iif,
            to: LINK,
        },
        E::Contains {
            set: set.name.into(),
            key: LINK,
            not: false,
        },
    ]
}

/// Where new connections go through first of all.
pub(super) fn rule() -> Rule {
    let to = E::Verdict(Verdict::Jump(NAME.into()));
    Rule::new(
        "connections are many",
        by_link_of(&PRESSED).into_iter().chain([to]),
    )
}

pub(super) fn chain() -> Chain {
    let ends = || {
        [
            E::Counter,
            E::Dynamic {
                set: REFUSED.name.into(),
                how: Update::Refresh,
                key: LINK,
                data: None,
                timeout_ms: REMEMBERED,
            },
            E::Verdict(Verdict::Drop),
        ]
    };
    let too_many = [
        E::Meta {
            key: MetaKey::Iif,
            to: LINK,
        },
        E::TooMany {
            set: BEGUN.name.into(),
            key: LINK,
            timeout_ms: PATIENCE,
            per_second: PER_SECOND,
            burst: BURST,
        },
    ];
    Chain {
        name: NAME.into(),
        hook: None,
        rules: vec![
            Rule::new(WHAT, by_link_of(&HELD).into_iter().chain(ends())),
            Rule::new(WHAT, too_many.into_iter().chain(ends())),
        ],
    }
}

/// Packets that were dropped here.
pub(super) fn dropped(nftables: &mut Nftables) -> Result<u64, Error> {
    let rules = nftables.rules(TABLE).map_err(refused)?;
    let ours = rules.iter().filter(|rule| rule.comment == WHAT);
    Ok(ours.filter_map(|rule| rule.packets).sum())
}

/// The same by link, of the last hour.
pub(super) fn dropped_by_link(nftables: &mut Nftables) -> Result<BTreeMap<u32, u64>, Error> {
    let elements = nftables.elements(TABLE, REFUSED.name).map_err(refused)?;
    let of = |element: &Element| Some((link(&element.key)?, element.packets));
    Ok(elements.iter().filter_map(of).collect())
}

fn link(key: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*key.first_chunk()?))
}
