//! The tables that another version left pinned, read by its own description of
//! them.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ripstop_abi::{
    Connection, ConnectionKey, Field, HANDED_OVER, Layout, POLICY_ALONE, POLICY_RETIRED, Place,
    RETIRED, names, policy_names,
};

use super::config::Limits;
use super::layout::{self, OldField, OldForm};
use super::maps::{self, Form, Maps, State};
use super::pins::Pins;
use super::sys::{self, ByteRows, MapShape};
use crate::Error;

/// Tables of another version that are a whole.
#[derive(Debug)]
pub(crate) struct OldTables(BTreeMap<String, OldTable>);

#[derive(Debug)]
struct OldTable {
    map: OwnedFd,
    shape: MapShape,
    form: OldForm,
}

/// Tables that programs on sockets write: what is in them is known nowhere else.
pub(crate) const OF_SOCKETS: [&str; 3] = [names::REVERSE, names::NAMES, names::CONNECTED];
/// Likewise, by programs on links, of what they lead.
pub(crate) const OF_FLOWS: [&str; 3] = [names::AFFINITY, names::FLOWS, names::PARTS];
/// Likewise, of what they ask policies about.
pub(crate) const OF_POLICIES: [&str; 3] = [
    policy_names::CONNECTIONS,
    policy_names::PLACES,
    policy_names::DENIALS,
];

/// Values by key, as bytes.
type Rows = HashMap<Box<[u8]>, Box<[u8]>>;

/// What has been copied, by table: to tell what has changed since on which side.
#[derive(Debug, Default)]
pub(crate) struct Carried(HashMap<&'static str, Rows>);

fn is_remembered(name: &str) -> bool {
    OF_SOCKETS.contains(&name) || OF_FLOWS.contains(&name) || OF_POLICIES.contains(&name)
}

impl OldTables {
    /// What is pinned, if it is a whole and described.
    pub(crate) fn find(pins: &Pins) -> Result<Option<Self>, Error> {
        if State::read(pins)?.is_none() {
            return Ok(None);
        }
        let Some(text) = layout::read(pins)? else {
            return Ok(None);
        };
        let mut tables = BTreeMap::new();
        for (name, form) in layout::parse(&text) {
            let Some(map) = pins.get(&maps::pin(&name))? else {
                continue;
            };
            let shape =
                sys::map_shape(map.as_fd()).map_err(|error| failed("look at", &name, error))?;
            let table = OldTable { map, shape, form };
            if table.is_as_described() {
                tables.insert(name, table);
            }
        }
        Ok(Some(Self(tables)))
    }

    /// Whether its tables are no larger than these.
    pub(crate) fn fits(&self, limits: &Limits) -> bool {
        maps::all().all(|name| {
            let limit = maps::form(name, limits).shape.max_entries;
            let table = self.0.get(name);
            table.is_none_or(|table| table.shape.max_entries <= limit)
        })
    }

    /// The table, if this version would make the same.
    pub(crate) fn same(&self, name: &str, form: &Form) -> Option<BorrowedFd<'_>> {
        let table = self.0.get(name)?;
        let same = table.shape == form.shape
            && is_same(&table.form.key, form.key)
            && is_same(&table.form.value, form.value);
        same.then(|| table.map.as_fd())
    }

    /// Copies into new tables, field by field, what user space has written. True if
    /// that is all that a plan would write, so that programs over the new ones do
    /// what those over the old ones do.
    ///
    /// # Errors
    /// What the kernel said; a row that does not fit is no error.
    pub(crate) fn carry_all(&self, new: &Maps, limits: &Limits) -> Result<bool, Error> {
        let mut complete = true;
        for name in maps::all() {
            let form = maps::form(name, limits);
            if form.value.is_empty() || is_shared(name) || is_remembered(name) {
                continue;
            }
            complete &= self.carry(name, &form, new.get(name), None)?;
        }
        Ok(complete)
    }

    /// Copies what programs have written, since the last call. Rows that the new
    /// programs have made or changed themselves stay.
    ///
    /// # Errors
    /// Likewise.
    pub(crate) fn carry_again(
        &self,
        names: &[&'static str],
        new: &Maps,
        limits: &Limits,
        carried: &mut Carried,
    ) -> Result<(), Error> {
        for name in names {
            let carried = carried.0.entry(name).or_default();
            if *name == policy_names::PLACES {
                self.carry_places(new, carried)?;
                continue;
            }
            self.carry(
                name,
                &maps::form(name, limits),
                new.get(name),
                Some(carried),
            )?;
        }
        Ok(())
    }

    /// True if every field was there.
    fn carry(
        &self,
        name: &str,
        form: &Form,
        new: BorrowedFd<'_>,
        mut carried: Option<&mut Rows>,
    ) -> Result<bool, Error> {
        let Some(table) = self.0.get(name) else {
            return Ok(false);
        };
        let key = Moves::of(&table.form.key, form.key);
        let value = Moves::of(&table.form.value, form.value);
        if !key.is_whole || table.form.key.len() != form.key.len() {
            return Ok(false);
        }
        let rows = table.rows().map_err(|error| failed("read", name, error))?;
        let mut whole = value.is_whole;
        let mut to = (
            vec![0; form.shape.key_size as usize],
            vec![0; form.shape.value_size as usize],
        );
        for (old_key, old_value) in rows.iter() {
            key.carry_out(old_key, &mut to.0);
            value.carry_out(old_value, &mut to.1);
            if !write(name, new, &to, carried.as_deref_mut())? {
                whole = false;
                break;
            }
        }
        Ok(whole)
    }

    /// Connections that have places are rows of the table here: where a place is may
    /// be another matter in each version.
    fn carry_places(&self, new: &Maps, carried: &mut Rows) -> Result<(), Error> {
        const NAME: &str = policy_names::PLACES;
        let Some(table) = self.0.get(NAME) else {
            return Ok(());
        };
        let fields = &table.form.value;
        let place = |name: &str| {
            let found = fields.iter().find(|field| field.name == name);
            found.filter(|field| field.size == 1).map(|f| f.offset)
        };
        let (Some(state), Some(protocol)) = (place(Place::STATE), place(Place::PROTOCOL)) else {
            return Ok(());
        };
        let key = Moves::of(fields, ConnectionKey::FIELDS);
        let value = Moves::of(fields, Connection::FIELDS);
        let wide = ConnectionKey::FIELDS.iter();
        let Some(wide) = wide.into_iter().find(|field| field.name == Place::PROTOCOL) else {
            return Ok(());
        };
        let rows = table.rows().map_err(|error| failed("read", NAME, error))?;
        let new = new.get(policy_names::CONNECTIONS);
        let mut to = (
            vec![0; size_of::<ConnectionKey>()],
            vec![0; size_of::<Connection>()],
        );
        for (_, old) in rows.iter() {
            if old[state] & Place::HAS_CONNECTION == 0 {
                continue;
            }
            key.carry_out(old, &mut to.0);
            let number = u32::from(old[protocol]).to_ne_bytes();
            to.0[wide.offset..wide.offset + wide.size].copy_from_slice(&number);
            value.carry_out(old, &mut to.1);
            if !write(NAME, new, &to, Some(carried))? {
                break;
            }
        }
        Ok(())
    }

    /// From here on what the programs over these tables allow is not asked about
    /// by who comes after them. False if they cannot be told.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn decide_alone(&self) -> Result<bool, Error> {
        self.set_bit(policy_names::STATE, "flags", POLICY_ALONE)
    }

    /// From here on the programs over these tables leave to whoever comes after
    /// them what is of no connection that they remember for policies. False if
    /// they cannot be told.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn retire_policies(&self) -> Result<bool, Error> {
        self.set_bit(policy_names::STATE, "flags", POLICY_RETIRED)
    }

    /// Likewise, what is of no flow that they lead.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn retire_flows(&self) -> Result<bool, Error> {
        let pods = self.set_bit(names::ENDPOINTS, "flags", HANDED_OVER.into())?;
        let node = self.set_bit(names::UPLINKS, "flags", RETIRED)?;
        Ok(pods && node)
    }

    fn set_bit(&self, name: &str, field: &str, bit: u32) -> Result<bool, Error> {
        let Some(table) = self.0.get(name) else {
            return Ok(false);
        };
        let found = table.form.value.iter().find(|known| known.name == field);
        let Some(field) = found.filter(|field| matches!(field.size, 2 | 4)) else {
            return Ok(false);
        };
        let set = || -> io::Result<()> {
            for (key, value) in table.rows()?.iter() {
                let mut value = value.to_vec();
                let place = field.offset..field.offset + field.size;
                for (byte, bit) in value[place].iter_mut().zip(bit.to_ne_bytes()) {
                    *byte |= bit;
                }
                // SAFETY: both come from this table.
                unsafe { sys::map_put_bytes(table.map.as_fd(), key, &value)? };
            }
            Ok(())
        };
        set().map_err(|error| failed("mark", name, error))?;
        Ok(true)
    }
}

/// Writes a row into a new table, unless it was `carried` as it is, or the new
/// programs have made or changed it. False if the table is full: it is smaller.
fn write(
    name: &str,
    new: BorrowedFd<'_>,
    (key, value): &(Vec<u8>, Vec<u8>),
    carried: Option<&mut Rows>,
) -> Result<bool, Error> {
    if let Some(carried) = carried {
        let before = carried.get(key.as_slice());
        if before.is_some_and(|before| **before == *value) {
            return Ok(true);
        }
        let mut now = vec![0; value.len()];
        // SAFETY: both are as long as the new table's shape says.
        let is_there = unsafe { sys::map_get_bytes(new, key, &mut now) }.is_ok();
        if is_there && before.is_none_or(|before| **before != now) {
            return Ok(true);
        }
        carried.insert(key.as_slice().into(), value.as_slice().into());
    }
    // SAFETY: both are as long as the new table's shape says.
    match unsafe { sys::map_put_bytes(new, key, value) } {
        Ok(()) => Ok(true),
        Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => Ok(false),
        Err(error) => Err(failed("write", name, error)),
    }
}

impl OldTable {
    /// Rows that the description does not cover are not read.
    fn is_as_described(&self) -> bool {
        let bytes = |fields: &[OldField]| fields.iter().map(|field| field.size).sum::<usize>();
        bytes(&self.form.key) == self.shape.key_size as usize
            && (self.form.value.is_empty()
                || bytes(&self.form.value) == self.shape.value_size as usize)
    }

    fn rows(&self) -> io::Result<ByteRows> {
        let (key, value) = (self.shape.key_size as usize, self.shape.value_size as usize);
        // SAFETY: the sizes are what the kernel says, and tables with values per
        // CPU are shared or left.
        let rows = unsafe { sys::map_read_bytes(self.map.as_fd(), key, value)? };
        rows.ok_or_else(|| io::ErrorKind::Unsupported.into())
    }
}

/// Which bytes of a row go where.
struct Moves {
    /// From, to, how many.
    moves: Vec<(usize, usize, usize)>,
    /// Every field of the new row is in the old one.
    is_whole: bool,
}

impl Moves {
    fn of(old: &[OldField], new: &[Field]) -> Self {
        let from = |new: &Field| {
            let same = |old: &&OldField| (old.name.as_str(), old.size) == (new.name, new.size);
            old.iter().find(same)
        };
        let found = new.iter().filter_map(|new| {
            let old = from(new)?;
            Some((old.offset, new.offset, new.size))
        });
        let moves: Vec<_> = found.collect();
        let is_whole = moves.len() == new.len();
        Self { moves, is_whole }
    }

    /// Fields that the old row has not are zero.
    fn carry_out(&self, from: &[u8], to: &mut [u8]) {
        to.fill(0);
        for (old, new, size) in &self.moves {
            to[*new..new + size].copy_from_slice(&from[*old..old + size]);
        }
    }
}

/// Of these a new table takes no rows: they are the same, or they are lost, or
/// counted anew.
fn is_shared(name: &str) -> bool {
    let tables = [
        names::SOCKETS,
        names::DROPS,
        names::FLOW_SHARES,
        policy_names::DENIALS_LOST,
    ];
    tables.contains(&name)
}

fn is_same(old: &[OldField], new: &[Field]) -> bool {
    let old = old.iter().map(|f| (f.name.as_str(), f.offset, f.size));
    old.eq(new.iter().map(|f| (f.name, f.offset, f.size)))
}

fn failed(what: &str, table: &str, source: io::Error) -> Error {
    Error::Kernel {
        operation: format!("{what} table {table} of another version"),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn old(fields: &[(&str, usize)]) -> Vec<OldField> {
        let mut offset = 0;
        let field = |(name, size): &(&str, usize)| {
            let (name, size) = ((*name).to_owned(), *size);
            offset += size;
            let offset = offset - size;
            OldField { name, offset, size }
        };
        fields.iter().map(field).collect()
    }

    const NEW: [Field; 3] = [
        Field {
            name: "last",
            offset: 0,
            size: 2,
        },
        Field {
            name: "added",
            offset: 2,
            size: 1,
        },
        Field {
            name: "port",
            offset: 3,
            size: 1,
        },
    ];

    #[test]
    fn fields_go_where_they_are_now() {
        let moves = Moves::of(&old(&[("port", 1), ("gone", 2), ("last", 2)]), &NEW);
        let mut row = [9; 4];
        moves.carry_out(&[1, 2, 3, 4, 5], &mut row);
        assert_eq!(row, [4, 5, 0, 1]);
        assert!(!moves.is_whole, "one of them is new");
        let same = Moves::of(&old(&[("added", 1), ("last", 2), ("port", 1)]), &NEW);
        assert!(same.is_whole);
    }

    #[test]
    fn a_field_of_another_size_is_another_field() {
        let moves = Moves::of(&old(&[("last", 4), ("added", 1), ("port", 1)]), &NEW);
        assert!(!moves.is_whole);
        assert_eq!(moves.moves, [(4, 2, 1), (5, 3, 1)]);
    }
}
