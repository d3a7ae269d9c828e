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
    /// Whom affinity goes by: the network namespace, as an address.
    fn client(&self) -> Address;
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
    for _ in 0..ATTEMPTS {
        let frontend = match reached(services, caller, destination) {
            Ok(frontend) => frontend,
            Err(choice) => return choice,
        };
        let (set, count) = (frontend.set(), frontend.count());
        if let Some(last) = last
            && last.flags & SOCKET_UNCONNECTED != 0
            && last.set == set
            && last.frontend == *destination
        {
            let key = BackendKey { set, id: last.id };
            if services.is_alive(&key) {
                let backend = last.backend;
                return Choice::Backend(Chosen { key, backend });
            }
        }
        let client = match frontend.affinity() {
            0 => None,
            seconds => Some((
                AffinityKey {
                    client: caller.client(),
                    set,
                },
                seconds,
            )),
        };
        let slot = scale(services.random(), count.into());
        if let Some(chosen) = pick(services, set, client, |services| {
            in_slot(services, frontend, slot)
        }) {
            return Choice::Backend(chosen);
        }
    }
    Choice::Refuse(DropReason::BackendMissing)
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

/// The frontend that a socket reaches there, which has somebody behind it.
#[inline(always)]
fn reached<'s, S: Services>(
    services: &'s S,
    caller: &impl Caller,
    destination: &ServiceAddress,
) -> Result<&'s Frontend, Choice> {
    let Some(frontend) = services.frontend(destination) else {
        return Err(if services.range(&destination.address) == RANGE_SERVICES {
            Choice::Refuse(DropReason::NoService)
        } else {
            Choice::Keep
        });
    };
    // Another namespace's loopback is its own; and whether a pod is in the
    // ranges is seen by its packets' source.
    if frontend.flags() & (FLAG_HOST_ONLY | FLAG_RANGES) != 0 && !caller.in_node_netns() {
        return Err(Choice::Keep);
    }
    if frontend.count() == 0 {
        services.count_refused(destination);
        return Err(Choice::Refuse(DropReason::NoBackends));
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
