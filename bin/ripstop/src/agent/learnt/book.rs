//! Which addresses names have, and until when. No clock, no I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

/// Addresses of one name; the network policy API wants at least 100. Of more,
/// those that end first are forgotten.
pub(super) const PER_NAME: usize = 256;
/// Of all names. What comes beyond that is not learnt: its connections are denied.
const NAMES: usize = 8192;
const ADDRESSES: usize = 32_768;

/// Seconds since the agent started.
pub(super) type Seconds = u64;

#[derive(Debug, Default)]
pub(super) struct Book {
    names: HashMap<String, HashMap<IpAddr, Entry>>,
    addresses: usize,
    /// Addresses that there was no room for.
    refused: u64,
}

#[derive(Debug)]
struct Entry {
    until: AtomicU64,
    /// The kernel's rows are made with it.
    in_force: bool,
}

impl Book {
    /// Extends what is known; false if some of it is not, or not in force yet.
    pub(super) fn renew(&self, name: &str, addresses: &[IpAddr], until: Seconds) -> bool {
        let Some(known) = self.names.get(name) else {
            return false;
        };
        addresses.iter().all(|address| {
            known.get(address).is_some_and(|entry| {
                entry.until.fetch_max(until, Ordering::Relaxed);
                entry.in_force
            })
        })
    }

    /// Notes addresses of a name, not in force yet. True if some are new.
    pub(super) fn learn(&mut self, name: &str, addresses: &[IpAddr], until: Seconds) -> bool {
        let mut is_news = false;
        for address in addresses {
            let known = self.names.get_mut(name);
            let full = known.as_ref().map_or(0, |known| known.len()) >= PER_NAME;
            if let Some(entry) = known.and_then(|known| known.get_mut(address)) {
                entry.until.fetch_max(until, Ordering::Relaxed);
                continue;
            }
            if full {
                self.forget_first(name);
            }
            let no_room = !self.names.contains_key(name) && self.names.len() >= NAMES;
            if no_room || self.addresses >= ADDRESSES {
                self.refused += 1;
                continue;
            }
            let entry = Entry {
                until: until.into(),
                in_force: false,
            };
            let known = self.names.entry(name.to_owned()).or_default();
            known.insert(*address, entry);
            self.addresses += 1;
            is_news = true;
        }
        is_news
    }

    /// All that has been noted is in the kernel.
    pub(super) fn set_in_force(&mut self, name: &str) {
        for entry in self
            .names
            .get_mut(name)
            .into_iter()
            .flat_map(HashMap::values_mut)
        {
            entry.in_force = true;
        }
    }

    /// What holds no longer, except `in_use`, which holds for a while more. Returns
    /// the names that have fewer addresses now.
    pub(super) fn forget(
        &mut self,
        now: Seconds,
        in_use: &BTreeSet<IpAddr>,
        hold: Seconds,
    ) -> Vec<String> {
        let mut changed = Vec::new();
        for (name, known) in &mut self.names {
            let before = known.len();
            known.retain(|address, entry| {
                let until = entry.until.get_mut();
                if *until <= now && in_use.contains(address) {
                    *until = now + hold;
                }
                *until > now
            });
            if known.len() < before {
                self.addresses -= before - known.len();
                changed.push(name.clone());
            }
        }
        self.names.retain(|_, known| !known.is_empty());
        changed
    }

    /// Whether [`Book::forget`] has something to do.
    pub(super) fn has_ended(&self, now: Seconds) -> bool {
        let mut entries = self.names.values().flat_map(HashMap::values);
        entries.any(|entry| entry.until.load(Ordering::Relaxed) <= now)
    }

    /// None if nothing is known of it.
    pub(super) fn addresses(&self, name: &str) -> Vec<IpAddr> {
        let known = self.names.get(name);
        let mut addresses: Vec<_> = known.into_iter().flat_map(HashMap::keys).copied().collect();
        addresses.sort_unstable();
        addresses
    }

    /// Everything, sorted.
    pub(super) fn all(&self) -> BTreeMap<&str, BTreeMap<IpAddr, Seconds>> {
        let of = |known: &HashMap<IpAddr, Entry>| {
            let entries = known.iter();
            entries
                .map(|(address, entry)| (*address, entry.until.load(Ordering::Relaxed)))
                .collect()
        };
        self.names
            .iter()
            .map(|(name, known)| (name.as_str(), of(known)))
            .collect()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Names, their addresses, and those that there was no room for.
    pub(super) fn sizes(&self) -> (usize, usize, u64) {
        (self.names.len(), self.addresses, self.refused)
    }

    fn forget_first(&mut self, name: &str) {
        let Some(known) = self.names.get_mut(name) else {
            return;
        };
        let until = |entry: &Entry| entry.until.load(Ordering::Relaxed);
        let first = known
            .iter()
            .min_by_key(|(address, entry)| (until(entry), **address));
        if let Some(address) = first.map(|(address, _)| *address) {
            known.remove(&address);
            self.addresses -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ip(n: u32) -> IpAddr {
        match n % 2 {
            0 => std::net::Ipv4Addr::from(0xc000_0200 + n).into(),
            _ => std::net::Ipv6Addr::from(u128::from(n)).into(),
        }
    }

    fn nobody() -> BTreeSet<IpAddr> {
        BTreeSet::new()
    }

    #[test]
    fn an_address_holds_as_long_as_somebody_says_so_or_uses_it() {
        let mut book = Book::default();
        assert!(!book.renew("a.b", &[ip(1)], 10), "never heard of it");
        assert!(book.learn("a.b", &[ip(1), ip(2)], 10));
        assert!(!book.renew("a.b", &[ip(1)], 10), "not in force yet");
        book.set_in_force("a.b");
        assert!(book.renew("a.b", &[ip(1)], 20));
        assert!(!book.renew("a.b", &[ip(1), ip(3)], 20), "one is new");
        assert!(!book.has_ended(9) && book.has_ended(10));
        assert_eq!(book.forget(10, &nobody(), 5), ["a.b"]);
        assert_eq!(book.addresses("a.b"), [ip(1)]);
        // A connection lives on; when it has ended, so does the address.
        assert_eq!(book.forget(20, &[ip(1)].into(), 5), [""; 0]);
        assert!(!book.has_ended(24));
        assert_eq!(book.forget(25, &nobody(), 5), ["a.b"]);
        assert!(book.is_empty());
        assert_eq!(book.sizes(), (0, 0, 0));
    }

    #[test]
    fn it_is_bounded() {
        let mut book = Book::default();
        for n in 0..PER_NAME as u32 {
            assert!(book.learn("a.b", &[ip(n)], u64::from(1000 - n)));
        }
        assert!(book.learn("a.b", &[ip(5000)], 1));
        let addresses = book.addresses("a.b");
        assert_eq!(addresses.len(), PER_NAME);
        assert!(addresses.contains(&ip(5000)), "the newest is kept");
        assert!(
            !addresses.contains(&ip(PER_NAME as u32 - 1)),
            "this one ended first"
        );
        for n in 0..NAMES {
            book.learn(&format!("n{n}.b"), &[ip(7)], 1);
        }
        assert_eq!(book.sizes(), (NAMES, NAMES - 1 + PER_NAME, 1));
        assert!(!book.learn("one.more", &[ip(7)], 1));
    }

    proptest! {
        /// Beside a list of everything that was said.
        #[test]
        fn as_a_list_would_have_it(
            events in proptest::collection::vec((0..3_u8, 0..6_u32, 0..20_u64, any::<bool>()), 0..60)
        ) {
            let mut book = Book::default();
            let mut list: BTreeMap<(String, IpAddr), u64> = BTreeMap::new();
            for (now, (name, address, ttl, used)) in (0_u64..).zip(events) {
                let (name, address) = (format!("{name}.b"), ip(address));
                if ttl == 0 {
                    let in_use = match used {
                        true => [address].into(),
                        false => nobody(),
                    };
                    book.forget(now, &in_use, 3);
                    for (_, until) in list.iter_mut().filter(|((_, of), until)| in_use.contains(of) && **until <= now) {
                        *until = now + 3;
                    }
                    list.retain(|_, until| *until > now);
                } else {
                    let is_news = book.learn(&name, &[address], now + ttl);
                    book.set_in_force(&name);
                    let known = list.insert((name.clone(), address), 0).unwrap_or(0);
                    list.insert((name, address), known.max(now + ttl));
                    prop_assert_eq!(is_news, known == 0);
                }
                let all: BTreeMap<_, _> = book.all().into_iter().flat_map(|(name, known)| {
                    known.into_iter().map(move |(ip, until)| ((name.to_owned(), ip), until))
                }).collect();
                prop_assert_eq!(&all, &list);
                prop_assert_eq!(book.sizes().1, list.len());
            }
        }
    }
}
