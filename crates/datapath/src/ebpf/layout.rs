//! The tables of a version described for others, which may be older or newer: a
//! line for each, with its fields, pinned beside them.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::os::fd::AsFd;

use aya_obj::generated::bpf_map_type;
use ripstop_abi::Field;

use super::config::Limits;
use super::maps::{all, form};
use super::pins::Pins;
use super::sys::{self, MapShape};
use crate::Error;

/// Pin of the description.
const LAYOUT: &str = "layout";

/// Bytes of a description, with room for tables to come.
const ROOM: u32 = 32 * 1024;

/// A field as another version described it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OldField {
    pub(crate) name: String,
    pub(crate) offset: usize,
    pub(crate) size: usize,
}

/// Keys and values of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OldForm {
    pub(crate) key: Vec<OldField>,
    pub(crate) value: Vec<OldField>,
}

/// What this version pins: `NAME ROWS FIELD:BYTES ... -> FIELD:BYTES ...`.
pub(crate) fn describe() -> String {
    let mut text = String::new();
    for name in all() {
        // Of any size: the kernel knows.
        let form = form(name, &Limits::default());
        let _ = writeln!(text, "{name}{} ->{}", fields(form.key), fields(form.value));
    }
    text
}

fn fields(fields: &[Field]) -> String {
    let one = |field: &Field| format!(" {}:{}", field.name, field.size);
    fields.iter().map(one).collect()
}

/// The other way of [`describe`]. Lines that make no sense are left out: what is
/// not known cannot be read.
pub(crate) fn parse(text: &str) -> BTreeMap<String, OldForm> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<(String, OldForm)> {
    let (key, value) = line.split_once(" ->")?;
    let mut key = key.split_whitespace();
    let name = key.next()?.to_owned();
    let key = parse_fields(key)?;
    let value = parse_fields(value.split_whitespace())?;
    Some((name, OldForm { key, value }))
}

fn parse_fields<'t>(words: impl Iterator<Item = &'t str>) -> Option<Vec<OldField>> {
    let mut offset = 0;
    let field = |word: &str| {
        let (name, size) = word.split_once(':')?;
        let size = size.parse::<u16>().ok()?.into();
        let name = name.to_owned();
        let field = OldField { name, offset, size };
        offset += size;
        Some(field)
    };
    words.map(field).collect()
}

/// The pinned description; `None` if there is none.
pub(crate) fn read(pins: &Pins) -> Result<Option<String>, Error> {
    let Some(map) = pins.get(LAYOUT)? else {
        return Ok(None);
    };
    let Ok(shape) = sys::map_shape(map.as_fd()) else {
        return Ok(None);
    };
    if (shape.kind, shape.key_size) != (SHAPE.kind, SHAPE.key_size) {
        return Ok(None);
    }
    let mut bytes = vec![0; shape.value_size as usize];
    // SAFETY: a key of four bytes, and a value as long as the shape says.
    let read = unsafe { sys::map_get_bytes(map.as_fd(), &[0; 4], &mut bytes) };
    let end = bytes.iter().position(|byte| *byte == 0);
    bytes.truncate(end.unwrap_or(bytes.len()));
    Ok(read.ok().and_then(|()| String::from_utf8(bytes).ok()))
}

/// Pins a description, in the place of any other.
pub(crate) fn write(pins: &Pins, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Kernel {
        operation: "write the description of the tables".into(),
        source,
    };
    let map = sys::map_create(LAYOUT, &SHAPE, None).map_err(failed)?;
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(ROOM as usize, 0);
    // SAFETY: the sizes are those of the shape.
    unsafe { sys::map_put_bytes(map.as_fd(), &[0; 4], &bytes) }.map_err(failed)?;
    pins.put(LAYOUT, map)
}

const SHAPE: MapShape = MapShape {
    kind: bpf_map_type::BPF_MAP_TYPE_ARRAY as u32,
    key_size: 4,
    value_size: ROOM,
    max_entries: 1,
    flags: 0,
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_described_is_read_again() {
        let text = describe();
        assert!(text.len() < ROOM as usize / 2, "{} bytes", text.len());
        let forms = parse(&text);
        for name in all() {
            let form = form(name, &Limits::default());
            let read = &forms[name];
            let same = |old: &[OldField], new: &[Field]| {
                let old = old.iter().map(|f| (f.name.as_str(), f.offset, f.size));
                old.eq(new.iter().map(|f| (f.name, f.offset, f.size)))
            };
            assert!(
                same(&read.key, form.key) && same(&read.value, form.value),
                "{name}"
            );
            let bytes: usize = form.key.iter().map(|field| field.size).sum();
            assert_eq!(bytes, form.shape.key_size as usize, "{name}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        let forms = parse("flows a:4 -> b:8\nflaws a:x -> b:8\n\nno arrow\n");
        assert_eq!(forms.keys().collect::<Vec<_>>(), ["flows"]);
    }
}
