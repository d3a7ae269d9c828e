//! Tables in memory.

use core::net::IpAddr;
use std::boxed::Box;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::vec::Vec;

use crate::{
    Address, Affinity, AffinityKey, BACKENDS_PER_SLOTS, Backend, BackendKey, Connection,
    ConnectionKey, Connections, DenialKey, DropReason, Endpoint, Flow, FlowKey, FlowPorts,
    Frontend, Judgement, MaglevRow, PairKey, PairRow, Part, PartKey, Place, Policing, PolicyPod,
    PolicyState, PolicyTables, PortNode, Route, RouteKey, ServiceAddress, Services, Slots,
    SlotsKey, Tables, Uplink, Work,
};

/// Tables in memory. Rows that are lent are leaked when they are written: tests
/// are short.
#[derive(Debug, Default)]
pub struct MemoryTables {
    pub endpoints: HashMap<Address, Endpoint>,
    pub routes: Vec<(RouteKey, Route)>,
    pub ranges: Vec<(RouteKey, u32)>,
    pub uplinks: HashMap<u32, Uplink>,
    /// Set once packets were led to the node itself.
    pub node_translated: RefCell<Option<&'static Uplink>>,
    pub frontends: HashMap<ServiceAddress, Frontend>,
    pub slots: HashMap<SlotsKey, Slots>,
    pub maglev: HashMap<SlotsKey, MaglevRow>,
    pub backends: HashMap<BackendKey, Backend>,
    /// Set and range.
    pub sources: Vec<(u32, RouteKey)>,
    /// First and number.
    pub ports: FlowPorts,
    pub own_ports: FlowPorts,
    pub now: Cell<u32>,
    /// Steps by this much from number to number.
    pub random: Cell<u32>,
    pub flows: RefCell<HashMap<FlowKey, &'static Flow>>,
    /// How many flows each may begin, if that is limited, and what each has begun.
    pub flows_each: Option<u32>,
    pub flow_shares: RefCell<HashMap<u32, u32>>,
    pub affinity: RefCell<HashMap<AffinityKey, Affinity>>,
    pub connections: RefCell<HashMap<BackendKey, u64>>,
    /// Of backends: what was added to them.
    pub bytes: RefCell<HashMap<BackendKey, u64>>,
    pub refused: RefCell<HashMap<ServiceAddress, u64>>,
    /// Pods of whose packets something was noted.
    pub translated: RefCell<HashMap<Address, &'static Endpoint>>,
    /// Addresses of the node.
    pub own: Vec<Address>,
    pub policy_pods: HashMap<Address, PolicyPod>,
    pub policy_classes: Vec<(RouteKey, u64)>,
    pub policy_pairs: HashMap<PairKey, PairRow>,
    pub policy_ports: HashMap<u32, PortNode>,
    pub policy_state: PolicyState,
    pub connections_of_pods: RefCell<HashMap<ConnectionKey, *mut Connection>>,
    /// Made when they are first asked for; none are if it is not there.
    pub places: Option<RefCell<HashMap<u32, *mut Place>>>,
    /// What was judged, likewise.
    pub judgements: Option<RefCell<HashMap<u32, *mut Judgement>>>,
    /// How many connections are remembered; none more if it is not none.
    pub connections_limit: Option<usize>,
    pub parts: RefCell<HashMap<PartKey, &'static Part>>,
    pub denials: RefCell<HashMap<DenialKey, u64>>,
    /// Made when it is first asked for.
    pub work: Cell<*mut Work>,
    /// Likewise.
    pub policing: Cell<*mut Policing>,
}

fn covers(range: &RouteKey, address: &Address) -> bool {
    let bits = |address: &Address| match IpAddr::from(*address) {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    };
    let mask = u128::MAX.checked_shl(128 - range.prefix_len).unwrap_or(0);
    bits(&range.address) & mask == bits(address) & mask
}

fn longest<'t, V>(rows: &'t [(RouteKey, V)], address: &Address) -> Option<&'t V> {
    let covering = rows.iter().filter(|(key, _)| covers(key, address));
    covering
        .max_by_key(|(key, _)| key.prefix_len)
        .map(|(_, row)| row)
}

impl MemoryTables {
    /// A frontend with its set, slots and backends, without a Maglev table.
    pub fn serve(&mut self, address: ServiceAddress, frontend: Frontend, backends: &[Backend]) {
        let set = frontend.set();
        for (index, backend) in (0..).zip(backends) {
            let id = index + 1;
            self.backends.insert(BackendKey { set, id }, *backend);
            let chunk = index / BACKENDS_PER_SLOTS;
            let slots = self.slots.entry(SlotsKey { set, chunk }).or_default();
            slots.0[(index % BACKENDS_PER_SLOTS) as usize] = id;
        }
        let ids: Vec<u32> = (1..).take(backends.len()).collect();
        self.frontends.insert(address, frontend.with_slots(&ids));
    }
}

impl Services for MemoryTables {
    fn frontend(&self, address: &ServiceAddress) -> Option<&Frontend> {
        self.frontends.get(address)
    }

    fn slot(&self, key: &SlotsKey, slot: u32) -> Option<u32> {
        self.slots.get(key).map(|row| row.0[slot as usize])
    }

    fn maglev(&self, key: &SlotsKey, entry: u32) -> Option<u32> {
        self.maglev.get(key).map(|row| row.0[entry as usize])
    }

    fn take(&self, key: &BackendKey) -> Option<Backend> {
        let backend = self.backends.get(key)?;
        *self.connections.borrow_mut().entry(*key).or_default() += 1;
        Some(*backend)
    }

    fn peek(&self, key: &BackendKey) -> Option<Backend> {
        self.backends.get(key).copied()
    }

    fn affinity(&self, key: &AffinityKey) -> Option<Affinity> {
        self.affinity.borrow().get(key).copied()
    }

    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity) {
        self.affinity.borrow_mut().insert(*key, *affinity);
    }

    fn range(&self, address: &Address) -> u32 {
        longest(&self.ranges, address).copied().unwrap_or(0)
    }

    fn may_reach(&self, set: u32, client: &Address) -> bool {
        let mut sources = self.sources.iter();
        sources.any(|(of, range)| *of == set && covers(range, client))
    }

    fn count_refused(&self, address: &ServiceAddress) {
        *self.refused.borrow_mut().entry(*address).or_default() += 1;
    }

    fn now(&self) -> u32 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        // Steps through the whole range, evenly.
        let next = self.random.get().wrapping_add(0x0100_0193);
        self.random.set(next);
        next
    }
}

impl Tables for MemoryTables {
    fn endpoint(&self, address: &Address) -> Option<&Endpoint> {
        let translated = self.translated.borrow().get(address).copied();
        translated.or_else(|| self.endpoints.get(address))
    }

    fn route(&self, address: &Address) -> Option<&Route> {
        longest(&self.routes, address)
    }

    fn set_translated(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_translated();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_renumbered(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_renumbered();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_cut(&self, address: &Address) {
        if let Some(mut endpoint) = self.endpoint(address).copied() {
            endpoint.set_cut();
            let endpoint = Box::leak(Box::new(endpoint));
            self.translated.borrow_mut().insert(*address, endpoint);
        }
    }

    fn set_node_translated(&self) {
        if let Some(mut node) = self.uplinks.get(&0).copied() {
            node.set_translated();
            *self.node_translated.borrow_mut() = Some(Box::leak(Box::new(node)));
        }
    }

    fn uplink(&self, ifindex: u32) -> Option<&Uplink> {
        let translated = *self.node_translated.borrow();
        translated
            .filter(|_| ifindex == 0)
            .or_else(|| self.uplinks.get(&ifindex))
    }

    fn ports(&self) -> FlowPorts {
        self.ports
    }

    fn own_ports(&self) -> FlowPorts {
        self.own_ports
    }

    fn flow(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.borrow().get(key).copied()
    }

    fn part(&self, key: &PartKey) -> Option<&Part> {
        self.parts.borrow().get(key).copied()
    }

    fn remember_part(&self, key: &PartKey, part: &Part) {
        let part = Box::leak(Box::new(*part));
        self.parts.borrow_mut().insert(*key, part);
    }

    fn work(&self) -> Option<&mut Work> {
        if self.work.get().is_null() {
            self.work.set(Box::leak(Box::default()));
        }
        // SAFETY: leaked; one packet at a time has it.
        unsafe { self.work.get().as_mut() }
    }

    fn count(&self, key: &FlowKey, flow: &Flow, bytes: u32) {
        let mut counted = *flow;
        counted.bytes += bytes;
        let counted = Box::leak(Box::new(counted));
        self.flows.borrow_mut().insert(*key, counted);
    }

    fn touch(&self, key: &FlowKey, now: u32, flags: u32) {
        let mut flows = self.flows.borrow_mut();
        if let Some(flow) = flows.get_mut(key) {
            let mut touched = **flow;
            touched.flags |= flags;
            touched.last = now;
            let (set, id) = (touched.set, touched.id);
            let mut bytes = self.bytes.borrow_mut();
            *bytes.entry(BackendKey { set, id }).or_default() += u64::from(touched.bytes);
            touched.bytes = 0;
            *flow = Box::leak(Box::new(touched));
        }
    }

    fn forget(&self, key: &FlowKey) {
        self.flows.borrow_mut().remove(key);
    }

    fn takes_share(&self, source: &Address) -> u64 {
        let link = self.endpoint(source).map_or(0, |endpoint| endpoint.ifindex);
        let mut shares = self.flow_shares.borrow_mut();
        let used = shares.entry(link).or_default();
        let before = *used;
        if self.flows_each.is_some_and(|each| before >= each) {
            return crate::NO_SHARE;
        }
        *used += 1;
        u64::from(link) << 32 | u64::from(before)
    }

    fn remember(&self, key: &FlowKey, flow: &Flow) -> Result<(), DropReason> {
        let flow = Box::leak(Box::new(*flow));
        self.flows.borrow_mut().insert(*key, flow);
        Ok(())
    }

    fn claim(&self, key: &FlowKey, flow: &Flow) -> Result<bool, DropReason> {
        if self.flows.borrow().contains_key(key) {
            return Ok(false);
        }
        self.remember(key, flow).map(|()| true)
    }
}

impl PolicyTables for MemoryTables {
    fn pod(&self, address: &Address) -> Option<&PolicyPod> {
        self.policy_pods.get(address)
    }

    fn class(&self, address: &Address) -> Option<u64> {
        longest(&self.policy_classes, address).copied()
    }

    fn pair(&self, key: &PairKey) -> Option<&PairRow> {
        self.policy_pairs.get(key)
    }

    fn port_node(&self, index: u32) -> Option<&PortNode> {
        self.policy_ports.get(&index)
    }
}

impl MemoryTables {
    /// Connections of pods, wherever they are remembered.
    pub fn all_connections(&self) -> Vec<(ConnectionKey, Connection)> {
        let rows = self.connections_of_pods.borrow();
        // SAFETY: leaked when it was written.
        let rows = rows.iter().map(|(key, row)| (*key, unsafe { **row }));
        let mut all: Vec<_> = rows.collect();
        if let Some(places) = &self.places {
            let places = places.borrow();
            // SAFETY: likewise.
            let places = places.values().map(|place| unsafe { &**place });
            all.extend(places.filter_map(Place::connection));
        }
        all
    }
}

impl Connections for MemoryTables {
    fn policy_state(&self) -> PolicyState {
        self.policy_state
    }

    fn is_own(&self, address: &Address) -> bool {
        self.own.contains(address)
    }

    fn connection(&self, key: &ConnectionKey) -> Option<&mut Connection> {
        let row = self.connections_of_pods.borrow().get(key).copied()?;
        // SAFETY: leaked when it was written; one packet at a time has it.
        Some(unsafe { &mut *row })
    }

    fn remember_connection(&self, key: &ConnectionKey, row: &Connection) -> bool {
        let mut rows = self.connections_of_pods.borrow_mut();
        let is_full = self
            .connections_limit
            .is_some_and(|limit| rows.len() >= limit);
        if is_full && !rows.contains_key(key) {
            return false;
        }
        rows.insert(*key, Box::leak(Box::new(*row)));
        true
    }

    fn forget_connection(&self, key: &ConnectionKey, _: &Connection) {
        self.connections_of_pods.borrow_mut().remove(key);
    }

    fn place(&self, index: u32) -> Option<&mut Place> {
        let mut places = self.places.as_ref()?.borrow_mut();
        let place = places.entry(index);
        let place = *place.or_insert_with(|| Box::leak(Box::default()));
        // SAFETY: as for connections.
        Some(unsafe { &mut *place })
    }

    fn judgement(&self, slot: u32) -> Option<&mut Judgement> {
        let mut judgements = self.judgements.as_ref()?.borrow_mut();
        let judgement = judgements.entry(slot);
        let judgement = *judgement.or_insert_with(|| Box::leak(Box::default()));
        // SAFETY: as for connections.
        Some(unsafe { &mut *judgement })
    }

    fn change(&self, word: &mut u64, from: u64, to: u64) -> bool {
        let same = *word == from;
        if same {
            *word = to;
        }
        same
    }

    fn count_denied(&self, key: &DenialKey, _: u32) {
        *self.denials.borrow_mut().entry(*key).or_default() += 1;
    }

    fn policing(&self) -> Option<&mut Policing> {
        if self.policing.get().is_null() {
            self.policing.set(Box::leak(Box::default()));
        }
        // SAFETY: as for `work`.
        unsafe { self.policing.get().as_mut() }
    }
}
