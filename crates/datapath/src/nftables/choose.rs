//! How packets are led to one of a frontend's backends.

use ripstop_netlink::nftables::{Expression as E, Update, Verdict};

use super::rules::{REFUSE, Rule, Words};
use super::sets::Set;

/// Every node must choose alike, and after every start.
const HASH_SEED: u32 = 0x7269_7073;

/// How a slot is found.
#[derive(Clone, Copy)]
pub(super) enum Choose {
    Random(Set, u32),
    /// By the client's address and port.
    Hash(u32),
}

/// Looks a backend up.
fn find(words: Words, choose: Choose) -> Vec<E> {
    let mut steps = Vec::from(words.load_frontend());
    let set = match choose {
        Choose::Random(set, modulus) => {
            steps.push(E::Random {
                modulus,
                to: words.slot(),
            });
            set
        }
        Choose::Hash(modulus) => {
            // Address and source port, one after the other.
            steps.extend([
                words.source(words.found()),
                Words::load_port(0, words.found_port()),
                E::Hash {
                    value: words.found(),
                    length: 4 * words.address() + 4,
                    modulus,
                    seed: HASH_SEED,
                    to: words.slot(),
                },
            ]);
            Set::Spread
        }
    };
    steps.extend(words.stand_in());
    steps.push(E::Lookup {
        map: words.set(set),
        key: words.slot(),
        to: words.result(),
    });
    steps
}

/// Leads to one of the backends, for clients that come back to the one that they
/// had if `affinity` is not 0.
///
/// A rule ends where there is no room for what it counts or remembers: the next one
/// does the rest.
pub(super) fn choice(words: Words, choose: Choose, affinity: u32) -> Vec<Rule> {
    let found = find(words, choose);
    let mut counted = found.clone();
    counted.extend([words.reload_port(), words.count(Set::Led)]);
    // The others' slots count themselves.
    let ways = match choose {
        Choose::Hash(_) => vec![(" and count", counted), ("", found)],
        Choose::Random(..) => vec![("", found)],
    };
    let mut rules = Vec::new();
    if affinity != 0 {
        let held = [words.source(words.client())]
            .into_iter()
            .chain(words.load_frontend())
            .chain(words.stand_in())
            .chain([
                E::Lookup {
                    map: words.set(Set::Affinity),
                    key: words.client(),
                    to: words.result(),
                },
                words.reload_port(),
                // Not one that is no backend any more.
                E::Contains {
                    set: words.set(Set::Members),
                    key: words.frontend(),
                    not: false,
                },
                words.refresh(affinity),
                words.dnat(),
            ]);
        rules.push(Rule::new("the same as before", held));
        for (count, steps) in &ways {
            let new = steps.iter().cloned().chain([
                words.reload_port(),
                words.source(words.client()),
                words.affinity(Update::Remove, affinity),
                words.refresh(affinity),
                words.dnat(),
            ]);
            rules.push(Rule::new(format!("choose{count} and remember"), new));
        }
    }
    for (count, steps) in ways {
        let steps = steps.into_iter().chain([words.dnat()]);
        rules.push(Rule::new(format!("choose{count}"), steps));
    }
    // A packet on its way may have been told of more slots than there are after a
    // change: the first one is there as long as there is any.
    let set = match choose {
        Choose::Random(set, _) => set,
        Choose::Hash(_) => Set::Spread,
    };
    let mut first = find(words, Choose::Random(set, 1));
    first.push(words.dnat());
    rules.push(Rule::new("the first", first));
    let refuse = [E::Verdict(Verdict::Goto(REFUSE.into()))];
    rules.push(Rule::new("nobody any more", refuse));
    rules
}
