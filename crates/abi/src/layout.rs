//! Where the fields of rows lie, by name: so that one version can read the tables
//! of another.

/// A field of a key or value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Stays for as long as the field means the same: one that comes to mean
    /// something else gets another name.
    pub name: &'static str,
    pub offset: usize,
    /// Bytes.
    pub size: usize,
}

/// A key or value that other versions can read.
pub trait Layout {
    /// In the order in which they lie.
    const FIELDS: &'static [Field];
}

/// Rows have no padding: a field ends where the next one begins.
pub(crate) const fn fields<const N: usize>(
    places: [(&'static str, usize); N],
    row: usize,
) -> [Field; N] {
    // By their places: a row may be declared in another order than it is named.
    let mut places = places;
    let mut at = 1;
    while at < N {
        let mut to = at;
        while to > 0 && places[to].1 < places[to - 1].1 {
            places.swap(to, to - 1);
            to -= 1;
        }
        at += 1;
    }
    let mut fields = [Field {
        name: "",
        offset: 0,
        size: 0,
    }; N];
    let mut at = 0;
    while at < N {
        let (name, offset) = places[at];
        let end = if at + 1 < N { places[at + 1].1 } else { row };
        let size = end - offset;
        fields[at] = Field { name, offset, size };
        at += 1;
    }
    fields
}

/// Names all fields of a row.
macro_rules! layout {
    ($($row:ident { $($field:tt),+ $(,)? })+) => {$(
        impl $crate::layout::Layout for $row {
            const FIELDS: &'static [$crate::layout::Field] = {
                // None is forgotten.
                const _: fn($row) = |row| { let $row { $($field: _),+ } = row; };
                &$crate::layout::fields(
                    [$((stringify!($field), core::mem::offset_of!($row, $field))),+],
                    size_of::<$row>(),
                )
            };
        }
    )+};
}
pub(crate) use layout;

/// Rows that are one number.
macro_rules! number {
    ($($number:ty),+) => {$(
        impl Layout for $number {
            const FIELDS: &'static [Field] = &[Field {
                name: stringify!($number),
                offset: 0,
                size: size_of::<$number>(),
            }];
        }
    )+};
}
number!(u32, u64);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Flow;

    #[test]
    fn fields_are_where_they_lie() {
        let field = |name| Flow::FIELDS.iter().find(|field| field.name == name);
        let ports = field("source_port").unwrap();
        assert_eq!(
            (ports.offset, ports.size),
            (core::mem::offset_of!(Flow, source_port), 2)
        );
        let sizes: usize = Flow::FIELDS.iter().map(|field| field.size).sum();
        assert_eq!(sizes, size_of::<Flow>());
    }
}
