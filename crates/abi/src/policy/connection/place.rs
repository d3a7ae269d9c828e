//! Places for connections, found without a search: a TCP connection that begins has
//! the one that its ends lead to, if that is free, and else a row of the table. Most
//! connections are short and few at a time; of those neither the first packet nor
//! the last has to write to a table, and those between are at a place of which one
//! line of memory says all.
//!
//! There are few places and it matters little who has them, so nobody's share of
//! them is limited, and nobody but programs writes to them: one whose connection is
//! over by the time is taken by the next that is led to it.

use core::mem::offset_of;

use super::{Connection, ConnectionKey};
use crate::Address;
use crate::layout::{Field, Layout, fields};
use crate::policy::enforce::Connections;
use crate::policy::question::Policing;
use crate::table::table_rows;
use crate::wire::IPPROTO_TCP;

/// As long as a line of memory.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pod: Address,
    other: Address,
    /// Ports and protocol of the key, [`TAKEN`] or [`BUSY`], and how often it was
    /// taken: whoever changes it does so in one step, and whoever reads the rest sees
    /// by it that all is of one connection.
    id: u64,
    row: Connection,
}

/// It has a connection.
const TAKEN: u64 = 1 << 40;
/// Somebody takes it right now.
const BUSY: u64 = 1 << 41;
/// One more time that it was taken.
const ONCE: u64 = 1 << 48;
const TIMES: u64 = !(ONCE - 1);

impl Place {
    /// How many there are: 1 MiB.
    pub const COUNT: u32 = 1 << 14;
    /// Name of the byte that has the protocol.
    pub const PROTOCOL: &str = "protocol";
    /// Of the byte that is [`Place::HAS_CONNECTION`] if it has a connection.
    pub const STATE: &str = "state";
    pub const HAS_CONNECTION: u8 = (TAKEN >> 40) as u8;

    /// The connection that it has, if any.
    pub fn connection(&self) -> Option<(ConnectionKey, Connection)> {
        let key = ConnectionKey {
            pod: self.pod,
            other: self.other,
            pod_port: crate::Port::from_network(self.id as u16),
            other_port: crate::Port::from_network((self.id >> 16) as u16),
            protocol: (self.id >> 32) as u32 & 0xff,
        };
        (self.id & TAKEN != 0).then_some((key, self.row))
    }

    #[inline(always)]
    fn id(&self) -> u64 {
        // SAFETY: a word of a row.
        unsafe { core::ptr::read_volatile(&raw const self.id) }
    }

    /// Its id if it has the connection.
    #[inline(always)]
    fn of(&self, key: &ConnectionKey) -> Option<u64> {
        let id = self.id();
        // SAFETY: words of a row; in this order.
        let [pod, other] = [&raw const self.pod, &raw const self.other]
            .map(|address| unsafe { core::ptr::read_volatile(address.cast::<[u64; 2]>()) });
        let (of_pod, of_other) = (halves(&key.pod), halves(&key.other));
        let is_of = id & !TIMES == id_of(key)
            && pod[1] == of_pod[1]
            && other[1] == of_other[1]
            && pod[0] == of_pod[0]
            && other[0] == of_other[0]
            // Nobody has taken it meanwhile.
            && self.id() == id;
        is_of.then_some(id)
    }
}

/// The address as a place is read: in fewer steps.
#[inline(always)]
const fn halves(address: &Address) -> [u64; 2] {
    let [a, b, c, d] = address.words();
    [a as u64 | (b as u64) << 32, c as u64 | (d as u64) << 32]
}

impl Default for Place {
    fn default() -> Self {
        Self {
            pod: Address::default(),
            other: Address::default(),
            id: 0,
            row: Connection::new(false, 0),
        }
    }
}

#[inline(always)]
const fn ports(key: &ConnectionKey) -> u32 {
    key.pod_port.network() as u32 | (key.other_port.network() as u32) << 16
}

#[inline(always)]
const fn id_of(key: &ConnectionKey) -> u64 {
    ports(key) as u64 | (key.protocol as u64 & 0xff) << 32 | TAKEN
}

/// Where the connection's place is, below [`Place::COUNT`].
#[inline(always)]
const fn index(key: &ConnectionKey) -> u32 {
    let (pod, other) = (key.pod.words()[3], key.other.words()[3]);
    let mixed = pod ^ other.rotate_left(15) ^ ports(key);
    // Of all bits, in the high ones (Knuth, 6.4).
    mixed.wrapping_mul(0x9e37_79b1) >> (32 - Place::COUNT.trailing_zeros())
}

/// The place that has the connection, and its id.
#[inline(always)]
fn place<'t>(tables: &'t impl Connections, key: &ConnectionKey) -> Option<(&'t mut Place, u64)> {
    if key.protocol != IPPROTO_TCP as u32 {
        return None;
    }
    let place = tables.place(index(key))?;
    let id = place.of(key)?;
    Some((place, id))
}

/// The connection's row, wherever it is.
#[inline(always)]
pub(in crate::policy) fn find<'t>(
    tables: &'t impl Connections,
    key: &ConnectionKey,
) -> Option<&'t mut Connection> {
    match place(tables, key) {
        Some((place, _)) => Some(&mut place.row),
        None => tables.connection(key),
    }
}

/// Takes the connection's place; false if another connection has it.
#[inline(always)]
pub(in crate::policy) fn take(
    tables: &impl Connections,
    key: &ConnectionKey,
    row: &Connection,
) -> bool {
    let Some(place) = tables.place(index(key)) else {
        return false;
    };
    let id = place.id();
    let is_over = || place.row.is_over(IPPROTO_TCP as u32, row.last);
    if id & BUSY != 0 || id & TAKEN != 0 && !is_over() {
        return false;
    }
    let times = (id & TIMES).wrapping_add(ONCE);
    if !tables.change(&mut place.id, id, times | BUSY) {
        return false;
    }
    key.pod.copy_to(&mut place.pod);
    key.other.copy_to(&mut place.other);
    place.row = *row;
    tables.change(&mut place.id, times | BUSY, times | id_of(key))
}

/// Forgets a connection that has a place; false if it has none.
#[inline(always)]
pub(in crate::policy) fn leave(tables: &impl Connections, key: &ConnectionKey) -> bool {
    let Some((place, id)) = place(tables, key) else {
        return false;
    };
    // Unless another CPU was first.
    tables.change(&mut place.id, id, id & TIMES);
    true
}

/// Forgets a connection, whose row is this.
#[inline(always)]
pub(in crate::policy) fn forget(tables: &impl Connections, key: &ConnectionKey, row: &Connection) {
    if !leave(tables, key) {
        tables.forget_connection(key, row);
    }
}

/// What is done by [`placed`]: the place of the connection is found,
const FIND: u32 = 0;
/// or gets a row, in the place of any other of that key.
const PUT: u32 = 1;

/// What is done about the place of the connection in [`Connections::policing`]: one
/// more than its number, or zero if it has none.
#[inline(always)]
pub fn placed(tables: &impl Connections, act: u32) -> u32 {
    let Some(policing) = tables.policing() else {
        return 0;
    };
    let key = &policing.key;
    let done = match (act, place(tables, key)) {
        (PUT, Some((place, _))) => {
            place.row.replace(&policing.row);
            true
        }
        (PUT, None) => policing.is_new != 0 && take(tables, key, &policing.row),
        (_, found) => found.is_some(),
    };
    if done { index(key) + 1 } else { 0 }
}

/// Remembers the connection in [`Connections::policing`]; false if there is no room.
#[inline(always)]
pub(in crate::policy) fn remember(tables: &impl Connections, policing: &Policing) -> bool {
    tables.placed(PUT) != 0 || tables.remember_connection(&policing.key, &policing.row)
}

/// The row of the connection in [`Connections::policing`], wherever it is.
#[inline(always)]
pub(in crate::policy) fn known<'t>(
    tables: &'t impl Connections,
    policing: &Policing,
) -> Option<&'t mut Connection> {
    match tables.placed(FIND) {
        0 => tables.connection(&policing.key),
        found => Some(&mut tables.place(found - 1)?.row),
    }
}

table_rows! {
    Place: 64,
}

impl Layout for Place {
    /// With those of [`ConnectionKey`] and [`Connection`] by themselves: who reads
    /// the places of another version finds them by their names.
    const FIELDS: &'static [Field] = {
        const ID: usize = offset_of!(Place, id);
        &fields(
            [
                ("pod", offset_of!(Place, pod)),
                ("other", offset_of!(Place, other)),
                // The words of an `id`, from the low one up.
                ("pod_port", ID),
                ("other_port", ID + 2),
                (Place::PROTOCOL, ID + 4),
                (Place::STATE, ID + 5),
                ("times", ID + 6),
                ("outcome", offset_of!(Place, row.outcome)),
                ("generation", offset_of!(Place, row.generation)),
                ("last", offset_of!(Place, row.last)),
                ("flags", offset_of!(Place, row.flags)),
                ("other_allows", offset_of!(Place, row.other_allows)),
            ],
            size_of::<Place>(),
        )
    };
}

const _: () = assert!(cfg!(target_endian = "little"));

#[cfg(test)]
mod tests;
