//! Which backend a connection gets, and under which name its answers are shown.

use crate::table::{
    Affinity, AffinityKey, BACKENDS_PER_SLOTS, Backend, BackendKey, FLAG_HOST_ONLY, FLAG_RANGES,
    Frontend, MAGLEV_CHUNK, RANGE_PODS, RANGE_SERVICES, SOCKET_CONNECTED, SOCKET_UNCONNECTED,
    ServiceAddress, SlotsKey, SocketState,
};
use crate::verdict::DropReason;
use crate::{Address, Port};

/// The tables that backends are chosen from.
pub trait Services {
    fn frontend(&self, address: &ServiceAddress) -> Option<&Frontend>;
    /// Second half of the key of the backend in a slot.
    fn slot(&self, key: &SlotsKey, slot: u32) -> Option<u32>;
    /// Likewise, of an entry of a Maglev table.
    fn maglev(&self, key: &SlotsKey, entry: u32) -> Option<u32>;
    /// The backend, which gets one more connection.
    fn take(&self, key: &BackendKey) -> Option<Backend>;
    /// The backend, for nobody.
    fn peek(&self, key: &BackendKey) -> Option<Backend>;
    /// The backend is still one of its set.
    #[inline(always)]
    fn is_alive(&self, key: &BackendKey) -> bool {
        self.peek(key).is_some()
    }
    fn affinity(&self, key: &AffinityKey) -> Option<Affinity>;
    /// Without room the client has no affinity, which is no reason to refuse it.
    fn set_affinity(&self, key: &AffinityKey, affinity: &Affinity);
    /// One of `RANGE_*`; 0 if the address is in none.
    fn range(&self, address: &Address) -> u32;
    /// The client is in one of the set's source ranges.
    fn may_reach(&self, set: u32, client: &Address) -> bool;
    /// Counts a connection or packet that found nobody behind this frontend.
    fn count_refused(&self, address: &ServiceAddress);
    /// Seconds since boot.
    fn now(&self) -> u32;
    fn random(&self) -> u32;
}

/// What the caller's socket knows beside the tables.
pub trait Caller {
    /// The socket is in the node's own network namespace.
    fn in_node_netns(&self) -> bool;
    /// The socket's network namespace, whom affinity goes by.
    fn netns(&self) -> u64;
    /// [`picked`]. In the kernel a function that the verifier walks through once.
    #[inline(always)]
    fn picked(&self, services: &impl Services, address: [u64; 2], port: u64, before: u64) -> u64
    where
        Self: Sized,
    {
        picked(services, self, address, port, before)
    }
}

/// What becomes of a destination.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Not a service: as the application said.
    Keep,
    Backend(Chosen),
    Refuse(DropReason),
}

/// A backend and its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chosen {
    pub key: BackendKey,
    pub backend: Backend,
}

/// Lookups of a frontend before its backend counts as missing. An update makes
/// the frontend name other backends and then removes the old ones, so who read
/// just before finds the new ones when reading again.
const ATTEMPTS: usize = 3;

/// What [`picked`] gives if it is no backend's key, whose first half is never zero.
mod instead {
    pub(super) const KEEP: u64 = 0;
    pub(super) const NO_SERVICE: u64 = 1;
    pub(super) const NO_BACKENDS: u64 = 2;
    pub(super) const MISSING: u64 = 3;
}

/// Chooses a backend for a socket's destination, each with equal probability.
///
/// `last`: what an unconnected socket sent to before. Datagrams of one socket
/// to one service stay with one backend while it is one of the service's.
#[inline(always)]
pub fn choose(
    services: &impl Services,
    caller: &impl Caller,
    destination: &ServiceAddress,
    last: Option<&SocketState>,
) -> Choice {
    let last =
        last.filter(|last| last.flags & SOCKET_UNCONNECTED != 0 && last.frontend == *destination);
    let before = last.map_or(0, |last| word(last.set, last.id));
    let [a, b, c, d] = destination.address.words();
    let (address, port) = ([word(a, b), word(c, d)], destination.port.network());
    let port = u64::from(port) | u64::from(destination.protocol) << 16;
    let mut attempt = 0;
    while attempt < ATTEMPTS {
        attempt += 1;
        let picked = caller.picked(services, address, port, before);
        let (set, id) = ((picked >> 32) as u32, picked as u32);
        if set == 0 {
            return match picked {
                instead::KEEP => Choice::Keep,
                instead::NO_SERVICE => Choice::Refuse(DropReason::NoService),
                instead::NO_BACKENDS => Choice::Refuse(DropReason::NoBackends),
                _ => continue,
            };
        }
        let key = BackendKey { set, id };
        if let Some(last) = last
            && picked == before
        {
            let backend = last.backend;
            return Choice::Backend(Chosen { key, backend });
        }
        if let Some(backend) = services.take(&key) {
            return Choice::Backend(Chosen { key, backend });
        }
    }
    Choice::Refuse(DropReason::BackendMissing)
}

#[inline(always)]
const fn word(high: u32, low: u32) -> u64 {
    (high as u64) << 32 | low as u64
}

/// The key of a backend for a socket, or why there is none. `port`: with the
/// protocol above it; `before`: the key of the one that the socket sent to.
#[inline(always)]
pub fn picked(
    services: &impl Services,
    caller: &impl Caller,
    [first, second]: [u64; 2],
    port: u64,
    before: u64,
) -> u64 {
    let words = [
        (first >> 32) as u32,
        first as u32,
        (second >> 32) as u32,
        second as u32,
    ];
    let (port, protocol) = (Port::from_network(port as u16), (port >> 16) as u8);
    let destination = ServiceAddress::new(Address::v6(words), port, protocol);
    let frontend = match reached(services, caller, &destination) {
        Ok(frontend) => frontend,
        Err(instead) => return instead,
    };
    let (set, count) = (frontend.set(), frontend.count());
    let is_alive = |id| services.is_alive(&BackendKey { set, id });
    if (before >> 32) as u32 == set && is_alive(before as u32) {
        return before;
    }
    let seconds = frontend.affinity();
    if seconds == 0 {
        let slot = scale(services.random(), count.into());
        let id = in_slot(services, frontend, slot);
        return id.map_or(instead::MISSING, |id| word(set, id));
    }
    let netns = caller.netns();
    // In 0.0.0.0/8 of IPv6, as it were: nobody's address (RFC 4291, 2.5).
    let client = Address::v6([0, 0, netns as u32, (netns >> 32) as u32]);
    let key = AffinityKey { client, set };
    let now = services.now();
    let kept = services
        .affinity(&key)
        .filter(|kept| now.wrapping_sub(kept.last) < seconds && is_alive(kept.id));
    let id = match kept {
        Some(kept) => {
            if kept.last == now {
                return word(set, kept.id);
            }
            kept.id
        }
        None => {
            let slot = scale(services.random(), count.into());
            match in_slot(services, frontend, slot).filter(|id| is_alive(*id)) {
                Some(id) => id,
                None => return instead::MISSING,
            }
        }
    };
    services.set_affinity(&key, &Affinity { id, last: now });
    word(set, id)
}

/// Who is behind a frontend for packets.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behind {
    Nobody,
    /// Nobody on this node, but somebody elsewhere.
    NobodyHere,
    Chosen(Chosen),
    /// Tables are damaged, or it is just going.
    Missing,
    /// Not for this client.
    Forbidden,
    /// Not a frontend for packets.
    Keep,
}

/// Whether a datagram socket of a pod stays connected to the service itself, its
/// packets to be led one by one: so they find another backend when theirs goes,
/// which a socket that is connected to a backend never would. Not where backends
/// are no pods, whose answers may not come by the pod's link.
#[inline(always)]
pub fn leads_datagrams(services: &impl Services, destination: &ServiceAddress) -> bool {
    let Some(frontend) = services.frontend(destination) else {
        return false;
    };
    let set = frontend.set();
    if frontend.count() == 0 {
        return false;
    }
    let Some(id) = in_slot(services, frontend, 0) else {
        return false;
    };
    let first = services.peek(&BackendKey { set, id });
    first.is_some_and(|backend| services.range(&backend.address) == RANGE_PODS)
}

/// The frontend that a socket reaches there, which has somebody behind it; or what
/// there is instead.
#[inline(always)]
fn reached<'s, S: Services>(
    services: &'s S,
    caller: &impl Caller,
    destination: &ServiceAddress,
) -> Result<&'s Frontend, u64> {
    let Some(frontend) = services.frontend(destination) else {
        return Err(if services.range(&destination.address) == RANGE_SERVICES {
            instead::NO_SERVICE
        } else {
            instead::KEEP
        });
    };
    // Another namespace's loopback is its own; and whether a pod is in the
    // ranges is seen by its packets' source.
    if frontend.flags() & (FLAG_HOST_ONLY | FLAG_RANGES) != 0 && !caller.in_node_netns() {
        return Err(instead::KEEP);
    }
    if frontend.count() == 0 {
        services.count_refused(destination);
        return Err(instead::NO_BACKENDS);
    }
    Ok(frontend)
}

/// From where a packet to a frontend comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// A pod, of this node or another.
    Pod,
    /// From outside, and to any backend.
    Outside,
    /// From outside, and to the backends of this node alone.
    OutsideToHere,
}

/// Chooses a backend for the first packet of a flow: from outside the same one
/// for the same client on every node that has the same backends.
#[inline(always)]
pub(crate) fn behind(
    services: &impl Services,
    frontend: &Frontend,
    client: (Address, Port),
    from: From,
) -> Behind {
    let (set, flags) = (frontend.set(), frontend.flags());
    if flags & FLAG_HOST_ONLY != 0 {
        return Behind::Keep;
    }
    if flags & FLAG_RANGES != 0 && !services.may_reach(set, &client.0) {
        return Behind::Forbidden;
    }
    match from {
        From::OutsideToHere if frontend.outside() != 0 => {}
        _ if frontend.count() == 0 => return Behind::Nobody,
        From::OutsideToHere => return Behind::NobodyHere,
        From::Pod | From::Outside => {}
    }
    let affinity = match frontend.affinity() {
        0 => None,
        seconds => {
            let key = AffinityKey {
                client: client.0,
                set,
            };
            Some((key, seconds))
        }
    };
    let hash = client_hash(&client.0, client.1.host());
    let entries = match from {
        From::Pod => 0,
        From::Outside | From::OutsideToHere => frontend.maglev(),
    };
    let chosen = pick(services, set, affinity, |services| {
        if entries == 0 {
            return in_slot(services, frontend, scale(hash, frontend.count().into()));
        }
        let entry = scale(hash, entries.into());
        let key = SlotsKey {
            set,
            chunk: entry / MAGLEV_CHUNK,
        };
        services.maglev(&key, entry % MAGLEV_CHUNK)
    });
    chosen.map_or(Behind::Missing, Behind::Chosen)
}

/// The backend that the client keeps, else the one that `other` says.
#[inline(always)]
fn pick<S: Services>(
    services: &S,
    set: u32,
    client: Option<(AffinityKey, u32)>,
    other: impl FnOnce(&S) -> Option<u32>,
) -> Option<Chosen> {
    let Some((client, seconds)) = client else {
        let key = BackendKey {
            set,
            id: other(services)?,
        };
        let backend = services.take(&key)?;
        return Some(Chosen { key, backend });
    };
    let now = services.now();
    let kept = services
        .affinity(&client)
        .filter(|kept| now.wrapping_sub(kept.last) < seconds);
    if let Some(kept) = kept {
        let key = BackendKey { set, id: kept.id };
        if let Some(backend) = services.take(&key) {
            if kept.last != now {
                services.set_affinity(
                    &client,
                    &Affinity {
                        id: kept.id,
                        last: now,
                    },
                );
            }
            return Some(Chosen { key, backend });
        }
    }
    let id = other(services)?;
    let key = BackendKey { set, id };
    let backend = services.take(&key)?;
    services.set_affinity(&client, &Affinity { id, last: now });
    Some(Chosen { key, backend })
}

#[inline(always)]
fn in_slot(services: &impl Services, frontend: &Frontend, slot: u32) -> Option<u32> {
    let at = slot % BACKENDS_PER_SLOTS;
    if let Some(slots) = frontend.slots() {
        return slots.0.get(at as usize).copied();
    }
    let set = frontend.set();
    let key = SlotsKey {
        set,
        chunk: slot / BACKENDS_PER_SLOTS,
    };
    services.slot(&key, at)
}

/// A random word scaled to 0 .. count - 1.
#[inline(always)]
const fn scale(random: u32, count: u32) -> u32 {
    ((random as u64 * count as u64) >> 32) as u32
}

/// A word from who sends, the same on every node (MurmurHash3's finalizer).
#[inline(always)]
pub(crate) const fn client_hash(client: &Address, port: u16) -> u32 {
    let words = client.words();
    let mut hash = words[3] ^ words[2].rotate_left(8) ^ words[1].rotate_left(16);
    hash ^= words[0].rotate_left(24) ^ ((port as u32) << 16 | port as u32);
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// The service's address that an application is to see instead of its
/// connection's peer; `None` if it sees the right one already.
#[inline(always)]
pub fn original(state: &SocketState, peer: (Address, Port)) -> Option<(Address, Port)> {
    (state.flags & SOCKET_CONNECTED != 0
        && state.backend.port == peer.1
        && state.backend.address == peer.0)
        .then_some((state.frontend.address, state.frontend.port))
}

#[cfg(test)]
mod tests;
