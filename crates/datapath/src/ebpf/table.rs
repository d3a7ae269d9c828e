//! A kernel map with typed rows.

use std::collections::BTreeMap;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ripstop_abi::TableRow;

use super::sys;
use crate::Error;

/// Indexes of the rows that were refused, and the first refusal.
type Put = (Vec<usize>, Result<(), Error>);

/// A map whose rows user space writes.
#[derive(Debug)]
pub(crate) struct Table<K, V> {
    map: OwnedFd,
    name: &'static str,
    limit: u64,
    rows: PhantomData<fn() -> (K, V)>,
}

impl<K: TableRow, V: TableRow> Table<K, V> {
    /// # Errors
    /// If the map's keys or values have other sizes than `K` and `V`.
    pub(crate) fn new(name: &'static str, map: OwnedFd) -> Result<Self, Error> {
        let shape =
            sys::map_shape(map.as_fd()).map_err(|e| failed("read the shape of", name, e))?;
        if (shape.key_size, shape.value_size) != (size_of::<K>() as u32, size_of::<V>() as u32) {
            let shape = io::Error::other(format!("{shape:?} does not hold its rows"));
            return Err(failed("use", name, shape));
        }
        Ok(Self {
            map,
            name,
            limit: shape.max_entries.into(),
            rows: PhantomData,
        })
    }

    /// The same table by another descriptor: for another thread.
    pub(crate) fn again(&self) -> io::Result<Self> {
        Ok(Self {
            map: self.map.try_clone()?,
            ..*self
        })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Writes a row; `describe` names it in an error.
    ///
    /// # Errors
    /// [`Error::TableFull`], or what the kernel said.
    pub(crate) fn put(
        &self,
        key: &K,
        value: &V,
        describe: impl FnOnce() -> String,
    ) -> Result<(), Error> {
        // SAFETY: the sizes were compared in `new`.
        match unsafe { sys::map_update(self.map.as_fd(), key, value) } {
            Ok(()) => Ok(()),
            // Hash tables say one, tries the other.
            Err(error) if matches!(error.raw_os_error(), Some(libc::E2BIG | libc::ENOSPC)) => {
                Err(Error::TableFull {
                    table: self.name,
                    limit: self.limit,
                    row: describe(),
                })
            }
            Err(error) => Err(failed("write a row of", self.name, error)),
        }
    }

    /// Writes many rows at once. Gives the indexes of those that were refused,
    /// and the first refusal with the name that `describe` has for it.
    pub(crate) fn put_all(
        &self,
        rows: &[(K, V)],
        describe: impl Fn(usize) -> String + Sync,
    ) -> Put {
        /// Rows that take longer to write than a thread to start, by far.
        const PART: usize = 8192;
        if rows.len() <= PART {
            return self.put_part(rows, describe);
        }
        // Asking for it takes longer than to write a few rows: files are read.
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let part = rows.len().div_ceil(threads).max(PART);
        // The kernel locks buckets, not tables.
        let describe = &describe;
        let written = std::thread::scope(|scope| {
            let parts = rows.chunks(part).enumerate();
            let threads = parts.map(|(number, rows)| {
                let first = number * part;
                let put = move || self.put_part(rows, |row| describe(first + row));
                (first, scope.spawn(put))
            });
            let threads: Vec<_> = threads.collect();
            let join = |(first, thread): (usize, std::thread::ScopedJoinHandle<'_, Put>)| {
                let put = thread.join();
                (
                    first,
                    put.unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
                )
            };
            threads.into_iter().map(join).collect::<Vec<_>>()
        });
        let mut all = (Vec::new(), Ok(()));
        for (first, (refused, result)) in written {
            all.0.extend(refused.into_iter().map(|row| first + row));
            all.1 = all.1.and(result);
        }
        all
    }

    fn put_part(&self, rows: &[(K, V)], describe: impl Fn(usize) -> String) -> Put {
        let keys: Vec<K> = rows.iter().map(|row| row.0).collect();
        let values: Vec<V> = rows.iter().map(|row| row.1).collect();
        let mut refused = Vec::new();
        let mut result = Ok(());
        let mut at = 0;
        while at < keys.len() {
            let map = self.map.as_fd();
            // SAFETY: the sizes were compared in `new`; a value for each key.
            let (written, outcome) =
                unsafe { sys::map_update_batch(map, &keys[at..], &values[at..]) };
            at += written;
            if outcome.is_err() && at < keys.len() {
                // Again, for what it is: a batch says less.
                let one = self.put(&keys[at], &values[at], || describe(at));
                if one.is_err() {
                    refused.push(at);
                    result = result.and(one);
                }
                at += 1;
            }
        }
        (refused, result)
    }

    /// Writes all rows of another table.
    ///
    /// # Errors
    /// The first that the kernel said.
    pub(crate) fn put_rows_of(&self, other: &Self) -> Result<(), Error> {
        let name = |row| format!("row {row}");
        self.put_all(&other.rows()?, name).1
    }

    /// Removes many rows at once; those that are not there are no error.
    ///
    /// # Errors
    /// The first that the kernel said; the other rows are removed.
    pub(crate) fn remove_all(&self, keys: &[K]) -> Result<(), Error> {
        let mut result = Ok(());
        let mut at = 0;
        while at < keys.len() {
            // SAFETY: the sizes were compared in `new`.
            let (removed, outcome) =
                unsafe { sys::map_delete_batch(self.map.as_fd(), &keys[at..]) };
            at += removed;
            if outcome.is_err() && at < keys.len() {
                result = result.and(self.remove(&keys[at]));
                at += 1;
            }
        }
        result
    }

    /// Removes a row; one that is not there is no error.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn remove(&self, key: &K) -> Result<(), Error> {
        // SAFETY: the sizes were compared in `new`.
        match unsafe { sys::map_delete(self.map.as_fd(), key) } {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove a row of", self.name, error))
            }
            _ => Ok(()),
        }
    }

    /// All rows. Those that programs remove meanwhile may be missing.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn rows(&self) -> Result<Vec<(K, V)>, Error> {
        self.read()
            .map_err(|error| failed("read", self.name, error))
    }

    /// All rows as [`Table::rows`], about so many at a time, so that the memory that
    /// is needed does not grow with the table. `visit` may remove what it was given.
    ///
    /// # Errors
    /// What the kernel said; the first of `visit`, after which nothing more is read.
    pub(crate) fn each_batch(
        &self,
        rows: usize,
        mut visit: impl FnMut(&[(K, V)]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut batch = Vec::with_capacity(rows);
        let mut result = Ok(());
        let take = |keys: &[u8], values: &[u8]| {
            let keys = keys.chunks_exact(size_of::<K>());
            let values = values.chunks_exact(size_of::<V>());
            batch.clear();
            // SAFETY: each has the size of its type, and any bytes are a valid row.
            batch.extend(keys.zip(values).map(|(key, value)| unsafe {
                (
                    key.as_ptr().cast::<K>().read_unaligned(),
                    value.as_ptr().cast::<V>().read_unaligned(),
                )
            }));
            result = visit(&batch);
            result.is_ok()
        };
        let sizes = (size_of::<K>(), size_of::<V>());
        // SAFETY: the sizes were compared in `new`.
        let walked = unsafe { sys::map_walk(self.map.as_fd(), sizes, rows, take) };
        match walked.map_err(|error| failed("read", self.name, error))? {
            true => result,
            false => visit(&self.rows()?),
        }
    }

    /// The row that the kernel has now.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        // SAFETY: any bytes are a valid row.
        let mut value = unsafe { std::mem::zeroed::<V>() };
        // SAFETY: the sizes were compared in `new`; any bytes are a valid row.
        match unsafe { sys::map_lookup(self.map.as_fd(), key, &mut value) } {
            Ok(()) => Ok(Some(value)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed("read a row of", self.name, error)),
        }
    }

    /// The keys that come after one, at most so many; from the first on if there is
    /// no such key.
    ///
    /// # Errors
    /// What the kernel said.
    pub(crate) fn keys_after(&self, after: Option<K>, count: usize) -> Result<Vec<K>, Error> {
        let map = self.map.as_fd();
        // SAFETY: any bytes are a valid row.
        let mut key = unsafe { std::mem::zeroed::<K>() };
        let mut keys = Vec::new();
        let mut last = after;
        while keys.len() < count {
            // SAFETY: the sizes were compared in `new`.
            let next = unsafe { sys::map_next_key(map, last.as_ref(), &mut key) };
            if !next.map_err(|error| failed("read", self.name, error))? {
                break;
            }
            keys.push(key);
            last = Some(key);
        }
        Ok(keys)
    }

    fn read(&self) -> io::Result<Vec<(K, V)>> {
        let map = self.map.as_fd();
        // SAFETY: the sizes were compared in `new`; any bytes are a valid row.
        if let Some(rows) = unsafe { sys::map_read(map)? } {
            return Ok(rows);
        }
        // SAFETY: any bytes are a valid row.
        let (mut key, mut value) = unsafe { std::mem::zeroed::<(K, V)>() };
        let mut rows = Vec::new();
        let mut last = None;
        // SAFETY: the sizes were compared in `new`; any bytes are a valid row.
        while unsafe { sys::map_next_key(map, last.as_ref(), &mut key)? } {
            // SAFETY: likewise.
            match unsafe { sys::map_lookup(map, &key, &mut value) } {
                Ok(()) => rows.push((key, value)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            last = Some(key);
        }
        Ok(rows)
    }
}

impl<K, V> AsFd for Table<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.as_fd()
    }
}

/// A table with the rows that are known to be in it: only differences are
/// written.
#[derive(Debug)]
pub(crate) struct Mirror<K, V> {
    table: Table<K, V>,
    rows: BTreeMap<K, V>,
}

impl<K: TableRow + Ord, V: TableRow + PartialEq> Mirror<K, V> {
    /// Knows of no rows until [`Mirror::read`].
    pub(crate) fn new(table: Table<K, V>) -> Self {
        Self {
            table,
            rows: BTreeMap::new(),
        }
    }

    /// Takes what is in the kernel for what is known.
    pub(crate) fn read(&mut self) -> Result<(), Error> {
        let rows = self.table.rows()?.into_iter();
        self.rows = rows.map(|(key, row)| (key, row.settled())).collect();
        Ok(())
    }

    /// The same table by another descriptor, and what the kernel has in it.
    pub(crate) fn again(&self) -> io::Result<Table<K, V>> {
        self.table.again()
    }

    pub(crate) fn rows(&self) -> &BTreeMap<K, V> {
        &self.rows
    }

    /// Writes all rows that the kernel has in another table; they are not known yet.
    pub(crate) fn put_rows_of(&self, other: &Self) -> Result<(), Error> {
        self.table.put_rows_of(&other.table)
    }

    /// What is in the kernel now, whatever is known here.
    pub(crate) fn read_rows(&self) -> Result<Vec<(K, V)>, Error> {
        self.table.rows()
    }

    /// The row as the kernel has it, with what programs noted.
    pub(crate) fn get(&self, key: &K) -> Result<Option<V>, Error> {
        self.table.get(key)
    }

    /// True if the kernel has this row, whatever is known here.
    pub(crate) fn holds(&self, key: &K, value: &V) -> Result<bool, Error> {
        Ok(self.table.get(key)?.map(TableRow::settled).as_ref() == Some(value))
    }

    /// The keys that the kernel has after one: [`Table::keys_after`].
    pub(crate) fn keys_after(&self, after: Option<K>, count: usize) -> Result<Vec<K>, Error> {
        self.table.keys_after(after, count)
    }

    /// Nothing is known of this row any more: the next one is written, whatever it
    /// is.
    pub(crate) fn forget(&mut self, key: &K) {
        self.rows.remove(key);
    }

    /// Removes a row that may not be known.
    pub(crate) fn remove_unknown(&mut self, key: &K) -> Result<(), Error> {
        self.table.remove(key)?;
        self.rows.remove(key);
        Ok(())
    }

    /// True if the row was not there, or another one.
    pub(crate) fn put(
        &mut self,
        key: K,
        value: V,
        describe: impl FnOnce() -> String,
    ) -> Result<bool, Error> {
        self.put_marked(key, value, describe, |_| {})
    }

    /// As [`Mirror::put`], with a mark that does not count as a difference: a row
    /// that has to be written is never without it.
    pub(crate) fn put_marked(
        &mut self,
        key: K,
        value: V,
        describe: impl FnOnce() -> String,
        mark: impl FnOnce(&mut V),
    ) -> Result<bool, Error> {
        if self.rows.get(&key) == Some(&value) {
            return Ok(false);
        }
        let mut marked = value;
        mark(&mut marked);
        self.table.put(&key, &marked, describe)?;
        self.rows.insert(key, value);
        Ok(true)
    }

    /// Writes what is known of a row with a mark that programs set otherwise, and
    /// that does not count as a difference. A row that is not known is no error.
    pub(crate) fn mark(&self, key: &K, mark: impl FnOnce(&mut V)) -> Result<(), Error> {
        let Some(mut value) = self.rows.get(key).copied() else {
            return Ok(());
        };
        mark(&mut value);
        self.table.put(key, &value, String::new)
    }

    /// Changes a row where it is, with what programs have noted in it. True if it
    /// was there and another one.
    pub(crate) fn change(&mut self, key: &K, change: impl FnOnce(V) -> V) -> Result<bool, Error> {
        let Some(now) = self.table.get(key)? else {
            return Ok(false);
        };
        let value = change(now);
        if value == now {
            return Ok(false);
        }
        self.table.put(key, &value, String::new)?;
        self.rows.insert(*key, value.settled());
        Ok(true)
    }

    /// True if the row was there.
    pub(crate) fn remove(&mut self, key: &K) -> Result<bool, Error> {
        if !self.rows.contains_key(key) {
            return Ok(false);
        }
        self.table.remove(key)?;
        self.rows.remove(key);
        Ok(true)
    }

    /// Name, rows, limit.
    pub(crate) fn usage(&self) -> (&'static str, u64, u64) {
        (self.table.name, self.rows.len() as u64, self.table.limit)
    }
}

impl<K, V> AsFd for Mirror<K, V> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.table.as_fd()
    }
}

fn failed(what: &str, table: &str, source: io::Error) -> Error {
    Error::Kernel {
        operation: format!("{what} table {table}"),
        source,
    }
}
