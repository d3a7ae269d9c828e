//! Maps.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use aya_obj::generated::bpf_cmd;

use super::{bpf, bpf_fd, info, object_name, pointer, pointer_mut};

/// How a map is made, and how one that exists must be to be adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MapShape {
    pub(crate) kind: u32,
    pub(crate) key_size: u32,
    pub(crate) value_size: u32,
    pub(crate) max_entries: u32,
    pub(crate) flags: u32,
}

/// Type information for a map that needs some: key and value by their numbers
/// in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapTypes<'a> {
    pub(crate) btf: BorrowedFd<'a>,
    pub(crate) key: u32,
    pub(crate) value: u32,
}

pub(crate) fn map_create(
    name: &str,
    shape: &MapShape,
    types: Option<MapTypes<'_>>,
) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        shape: [u32; 5],
        inner_map_fd: u32,
        numa_node: u32,
        name: [u8; 16],
        ifindex: u32,
        btf: [u32; 3],
    }
    let MapShape {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    } = *shape;
    bpf_fd(
        bpf_cmd::BPF_MAP_CREATE,
        &mut Attributes {
            shape: [kind, key_size, value_size, max_entries, flags],
            inner_map_fd: 0,
            numa_node: 0,
            name: object_name(name),
            ifindex: 0,
            btf: types.map_or([0; 3], |t| [t.btf.as_raw_fd() as u32, t.key, t.value]),
        },
    )
}

#[repr(C)]
struct Element {
    map: u32,
    pad: u32,
    key: u64,
    value: u64,
    flags: u64,
}

impl Element {
    fn new(map: BorrowedFd<'_>, key: u64, value: u64) -> Self {
        Self {
            map: map.as_raw_fd() as u32,
            pad: 0,
            key,
            value,
            flags: 0,
        }
    }
}

/// # Safety
/// `K` and `V` have the map's key and value sizes (per-CPU maps: one `V` is
/// the values of all CPUs), and any bytes are a valid `V`.
pub(crate) unsafe fn map_lookup<K, V: ?Sized>(
    map: BorrowedFd<'_>,
    key: &K,
    value: &mut V,
) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_LOOKUP_ELEM,
        &mut Element::new(map, pointer(key), pointer_mut(value)),
    )
    .map(drop)
}

/// # Safety
/// As for [`map_lookup`].
pub(crate) unsafe fn map_update<K, V>(map: BorrowedFd<'_>, key: &K, value: &V) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut Element::new(map, pointer(key), pointer(value)),
    )
    .map(drop)
}

#[repr(C)]
struct Batch {
    in_batch: u64,
    out_batch: u64,
    keys: u64,
    values: u64,
    count: u32,
    map: u32,
    element_flags: u64,
    flags: u64,
}

impl Batch {
    fn new(map: BorrowedFd<'_>, keys: u64, values: u64, count: usize) -> Self {
        Self {
            in_batch: 0,
            out_batch: 0,
            keys,
            values,
            count: count as u32,
            map: map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        }
    }

    /// Of `all` rows, how many were done.
    fn done(&self, all: usize, result: &io::Result<()>) -> usize {
        match result {
            Ok(()) => all,
            // The kernel leaves the number as it is where it does not even begin.
            Err(_) if self.count as usize == all => 0,
            Err(_) => self.count as usize,
        }
    }
}

/// Writes rows in their order; how many were written before one was refused.
///
/// # Safety
/// As for [`map_lookup`]; as many values as keys.
pub(crate) unsafe fn map_update_batch<K, V>(
    map: BorrowedFd<'_>,
    keys: &[K],
    values: &[V],
) -> (usize, io::Result<()>) {
    let mut batch = Batch::new(map, pointer(keys), pointer(values), keys.len());
    let result = bpf(bpf_cmd::BPF_MAP_UPDATE_BATCH, &mut batch).map(drop);
    (batch.done(keys.len(), &result), result)
}

/// Removes rows in their order; how many were removed before one was refused.
///
/// # Safety
/// As for [`map_lookup`].
pub(crate) unsafe fn map_delete_batch<K>(
    map: BorrowedFd<'_>,
    keys: &[K],
) -> (usize, io::Result<()>) {
    let mut batch = Batch::new(map, pointer(keys), 0, keys.len());
    let result = bpf(bpf_cmd::BPF_MAP_DELETE_BATCH, &mut batch).map(drop);
    (batch.done(keys.len(), &result), result)
}

/// Rows as bytes.
#[derive(Debug, Default)]
pub(crate) struct ByteRows {
    sizes: (usize, usize),
    keys: Vec<u8>,
    values: Vec<u8>,
}

impl ByteRows {
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let keys = self.keys.chunks_exact(self.sizes.0);
        keys.zip(self.values.chunks_exact(self.sizes.1))
    }
}

/// All rows, many at a time; `None` if this kind of map cannot do that. A key by
/// key walk begins anew when the row it stands on goes, which a busy table never
/// ends.
///
/// # Safety
/// As for [`map_lookup`]; any bytes are a valid `K`.
pub(crate) unsafe fn map_read<K: Copy, V: Copy>(
    map: BorrowedFd<'_>,
) -> io::Result<Option<Vec<(K, V)>>> {
    // SAFETY: by the caller.
    let rows = unsafe { map_read_bytes(map, size_of::<K>(), size_of::<V>())? };
    let row = |(key, value): (&[u8], &[u8])| {
        // SAFETY: each has the size of its type, and any bytes are valid.
        unsafe {
            (
                key.as_ptr().cast::<K>().read_unaligned(),
                value.as_ptr().cast::<V>().read_unaligned(),
            )
        }
    };
    Ok(rows.map(|rows| rows.iter().map(row).collect()))
}

/// As [`map_read`], for who knows the sizes alone.
///
/// # Safety
/// The sizes are those of the map's keys and values, which are not per CPU.
pub(crate) unsafe fn map_read_bytes(
    map: BorrowedFd<'_>,
    key_size: usize,
    value_size: usize,
) -> io::Result<Option<ByteRows>> {
    let mut rows = ByteRows {
        sizes: (key_size, value_size),
        ..ByteRows::default()
    };
    let add = |keys: &[u8], values: &[u8]| {
        rows.keys.extend_from_slice(keys);
        rows.values.extend_from_slice(values);
        true
    };
    // SAFETY: by the caller.
    let can = unsafe { map_walk(map, (key_size, value_size), 4096, add)? };
    Ok(can.then_some(rows))
}

/// Keys and values of all rows, about `room` at a time, for as long as `visit` wants
/// more. False if this kind of map cannot do that; then `visit` was not called.
///
/// # Safety
/// As for [`map_read_bytes`].
pub(crate) unsafe fn map_walk(
    map: BorrowedFd<'_>,
    (key_size, value_size): (usize, usize),
    mut room: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> bool,
) -> io::Result<bool> {
    /// Of a map without batches: the kernel's own number, which is no POSIX error.
    const ENOTSUPP: i32 = 524;
    /// The place that a walk has come to: a number, or a key.
    type Position = [u64; 8];
    if key_size > size_of::<Position>() {
        return Ok(false);
    }
    let (mut keys, mut values) = (vec![0_u8; room * key_size], vec![0_u8; room * value_size]);
    let (mut position, mut begun) = (Position::default(), false);
    loop {
        let mut next = position;
        let mut batch = Batch::new(
            map,
            pointer_mut(keys.as_mut_slice()),
            pointer_mut(values.as_mut_slice()),
            room,
        );
        batch.in_batch = if begun { pointer(&position) } else { 0 };
        batch.out_batch = pointer_mut(&mut next);
        let result = bpf(bpf_cmd::BPF_MAP_LOOKUP_BATCH, &mut batch).map(drop);
        let code = result.as_ref().err().and_then(io::Error::raw_os_error);
        match code {
            // More rows in one bucket than there is room.
            Some(libc::ENOSPC) => {
                room *= 2;
                keys.resize(room * key_size, 0);
                values.resize(room * value_size, 0);
                continue;
            }
            Some(ENOTSUPP | libc::EOPNOTSUPP | libc::EINVAL) if !begun => return Ok(false),
            Some(libc::ENOENT) | None => {}
            Some(_) => return result.map(|()| false),
        }
        let count = (batch.count as usize).min(room);
        let more = visit(&keys[..count * key_size], &values[..count * value_size]);
        if code.is_some() || !more {
            return Ok(true);
        }
        (position, begun) = (next, true);
    }
}

/// Writes a row.
///
/// # Safety
/// Both are as long as the map's keys and values.
pub(crate) unsafe fn map_put_bytes(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &[u8],
) -> io::Result<()> {
    let mut element = Element::new(map, pointer(key), pointer(value));
    bpf(bpf_cmd::BPF_MAP_UPDATE_ELEM, &mut element).map(drop)
}

/// The value of a row.
///
/// # Safety
/// As for [`map_put_bytes`].
pub(crate) unsafe fn map_get_bytes(
    map: BorrowedFd<'_>,
    key: &[u8],
    value: &mut [u8],
) -> io::Result<()> {
    let mut element = Element::new(map, pointer(key), pointer_mut(value));
    bpf(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &mut element).map(drop)
}

/// # Safety
/// `data` is as long as a value of the map.
pub(crate) unsafe fn map_update_bytes(
    map: BorrowedFd<'_>,
    key: u32,
    data: &[u8],
) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_UPDATE_ELEM,
        &mut Element::new(map, pointer(&key), pointer(data)),
    )
    .map(drop)
}

/// # Safety
/// As for [`map_lookup`].
pub(crate) unsafe fn map_delete<K>(map: BorrowedFd<'_>, key: &K) -> io::Result<()> {
    bpf(
        bpf_cmd::BPF_MAP_DELETE_ELEM,
        &mut Element::new(map, pointer(key), 0),
    )
    .map(drop)
}

/// The key after `key`, or the first.
///
/// # Safety
/// As for [`map_lookup`]; any bytes are a valid `K`.
pub(crate) unsafe fn map_next_key<K: Copy>(
    map: BorrowedFd<'_>,
    key: Option<&K>,
    next: &mut K,
) -> io::Result<bool> {
    let mut element = Element::new(map, key.map_or(0, pointer), pointer_mut(next));
    match bpf(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &mut element) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// No more writes from user space: the verifier may then take the values for
/// constants.
pub(crate) fn map_freeze(map: BorrowedFd<'_>) -> io::Result<()> {
    bpf(bpf_cmd::BPF_MAP_FREEZE, &mut [map.as_raw_fd() as u32]).map(drop)
}

/// Type information with its header.
/// <https://docs.kernel.org/bpf/btf.html>
pub(crate) fn btf(types: &[u32], strings: &[u8]) -> Vec<u8> {
    let types_len = size_of_val(types) as u32;
    let mut btf = Vec::new();
    btf.extend(0xeb9f_u16.to_ne_bytes());
    btf.extend([1, 0]); // version, flags
    for word in [24, 0, types_len, types_len, strings.len() as u32]
        .iter()
        .chain(types)
    {
        btf.extend(word.to_ne_bytes());
    }
    btf.extend(strings);
    btf
}

pub(crate) fn btf_load(btf: &[u8]) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Attributes {
        btf: u64,
        log: u64,
        size: u32,
        log_size: u32,
        log_level: u32,
        pad: u32,
    }
    bpf_fd(
        bpf_cmd::BPF_BTF_LOAD,
        &mut Attributes {
            btf: pointer(btf),
            log: 0,
            size: btf.len() as u32,
            log_size: 0,
            log_level: 0,
            pad: 0,
        },
    )
}

pub(crate) fn map_shape(map: BorrowedFd<'_>) -> io::Result<MapShape> {
    // SAFETY: type, id and the sizes are the information's first words.
    let [kind, _id, key_size, value_size, max_entries, flags] = unsafe { info::<[u32; 6]>(map)? };
    Ok(MapShape {
        kind,
        key_size,
        value_size,
        max_entries,
        flags,
    })
}
