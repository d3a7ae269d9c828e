//! What is written for a change is what a new row would need, and nothing is left.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use ripstop_abi::{FLAG_MAGLEV, Port};

use super::*;

/// Tables as the kernel would have them.
#[derive(Default)]
struct Kernel {
    backends: BTreeMap<BackendKey, Backend>,
    slots: BTreeMap<SlotsKey, Slots>,
    maglev: BTreeMap<SlotsKey, MaglevRow>,
}

impl Kernel {
    fn put(&mut self, planned: &Planned) {
        let backends = planned.backends.iter();
        self.backends
            .extend(backends.map(|(key, row)| (*key, row.backend)));
        self.slots.extend(planned.slots.iter().copied());
        self.maglev.extend(planned.maglev.iter().copied());
    }

    fn remove(&mut self, unused: &Unused) {
        let Unused {
            backends,
            slots,
            maglev,
            ..
        } = unused;
        assert!(
            backends
                .iter()
                .all(|key| self.backends.remove(key).is_some())
        );
        assert!(slots.iter().all(|key| self.slots.remove(key).is_some()));
        assert!(maglev.iter().all(|key| self.maglev.remove(key).is_some()));
    }

    /// Whether packets find all backends by the row, and no row is too much.
    fn serves(&self, row: &Row) {
        let at = |id: u32| self.backends[&BackendKey { set: row.set, id }];
        let mut found: Vec<Backend> = row.slots.iter().map(|id| at(*id)).collect();
        found.sort_unstable();
        assert_eq!(found, *row.wanted.backends);
        let slots: Vec<Slots> = row.slots_keys().map(|key| self.slots[&key]).collect();
        let ids = slots.iter().flat_map(|slots| slots.0).take(row.slots.len());
        assert!(slots.is_empty() || ids.eq(row.slots.iter().copied()));
        let entries = row.maglev_keys().flat_map(|key| self.maglev[&key].0);
        let entries: BTreeSet<Backend> = entries.filter(|id| *id != 0).map(at).collect();
        assert!(
            entries
                .into_iter()
                .eq(row.wanted.to_outside().iter().copied())
        );
        assert_eq!(self.backends.len(), row.ids.len());
        assert_eq!(self.slots.len(), row.slots_keys().count());
        assert_eq!(self.maglev.len(), row.maglev_keys().count());
    }
}

fn wanted((backends, outside): &(BTreeSet<u16>, Option<BTreeSet<u16>>)) -> Wanted {
    let list = |numbers: &BTreeSet<u16>| {
        let backend = |n: &u16| {
            let [a, b] = n.to_be_bytes();
            let address = IpAddr::from(Ipv4Addr::new(10, 0, a, b));
            Backend::new(address.into(), Port::from_host(80))
        };
        let mut list: Vec<Backend> = numbers.iter().map(backend).collect();
        list.sort_unstable();
        Arc::from(list)
    };
    Wanted {
        backends: list(backends),
        outside: outside.as_ref().map(list),
        kind: FLAG_MAGLEV,
        ..Wanted::default()
    }
}

fn numbers(most: usize) -> impl Strategy<Value = BTreeSet<u16>> {
    prop::collection::btree_set(0..60_u16, 0..most)
}

proptest! {
    #[test]
    fn changes_add_up(
        history in prop::collection::vec((numbers(40), prop::option::of(numbers(6))), 1..12)
    ) {
        let mut known = Known::default();
        let mut kernel = Kernel::default();
        let mut there: Option<Row> = None;
        let address = ServiceAddress::new(
            IpAddr::from(Ipv4Addr::LOCALHOST).into(), Port::from_host(80), 6,
        );
        for lists in &history {
            let planned = Planned::new(address, there.clone(), wanted(lists), 7, &mut known);
            let rows = planned.slots.len() + planned.maglev.len();
            kernel.put(&planned);
            kernel.remove(&planned.unused);
            kernel.serves(&planned.row);
            // Who stays keeps its number, and its slot if there is still such a one.
            if let Some(before) = &there {
                for (backend, id) in before.ids.iter() {
                    let now = planned.row.id(backend);
                    prop_assert!(now.is_none() || now == Some(*id));
                }
                for (was, is) in before.slots.iter().zip(planned.row.slots.iter()) {
                    prop_assert!(was == is || !planned.row.slots.contains(was));
                }
            }
            let again = Planned::new(
                address, Some(planned.row.clone()), wanted(lists), 7, &mut known,
            );
            prop_assert_eq!(again.backends.len() + again.slots.len() + again.maglev.len(), 0);
            prop_assert!(rows <= 8 + 1021_usize.div_ceil(128));
            there = Some(planned.row);
        }
    }
}
