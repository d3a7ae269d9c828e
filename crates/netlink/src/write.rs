//! Writes attributes of the netfilter families, whose numbers are in network
//! byte order.

/// "This attribute contains attributes" (`NLA_F_NESTED`).
const NESTED: u16 = 0x8000;
const HEADER: usize = 4;
/// What the 16 bits of an attribute's length can say.
pub(crate) const LONGEST: usize = u16::MAX as usize;

/// Attributes one after the other, each aligned to 4 bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.start(kind, HEADER + value.len());
        self.0.extend_from_slice(value);
        self.pad();
        self
    }

    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    pub(crate) fn u16(&mut self, kind: u16, value: u16) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// A string, with the zero byte that ends it.
    pub(crate) fn text(&mut self, kind: u16, value: &str) -> &mut Self {
        self.start(kind, HEADER + value.len() + 1);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.pad();
        self
    }

    /// An attribute of attributes.
    ///
    /// # Panics
    /// If they are longer than an attribute can be, 64 KiB.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = self.0.len();
        self.start(kind | NESTED, 0);
        fill(self);
        let length = u16::try_from(self.0.len() - at).expect("an attribute has less than 64 KiB");
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn start(&mut self, kind: u16, length: usize) {
        let length = u16::try_from(length).expect("an attribute has less than 64 KiB");
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// Appends `struct nlmsghdr`, `struct nfgenmsg` and the body.
pub(crate) fn netfilter_message(
    buffer: &mut Vec<u8>,
    kind: u16,
    flags: u16,
    sequence: u32,
    (family, resource): (u8, u16),
    body: &[u8],
) {
    let length = u32::try_from(20 + body.len()).expect("a message has less than 4 GiB");
    buffer.extend_from_slice(&length.to_ne_bytes());
    buffer.extend_from_slice(&kind.to_ne_bytes());
    buffer.extend_from_slice(&flags.to_ne_bytes());
    buffer.extend_from_slice(&sequence.to_ne_bytes());
    buffer.extend_from_slice(&0u32.to_ne_bytes());
    buffer.push(family);
    buffer.push(0);
    buffer.extend_from_slice(&resource.to_be_bytes());
    buffer.extend_from_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attributes::attributes;

    #[test]
    fn what_is_written_is_read() {
        let mut written = Attributes::default();
        written
            .u8(1, 7)
            .u32(2, 0x0102_0304)
            .text(3, "abcd")
            .nested(4, |inner| {
                inner.u16(5, 80).u64(6, 1);
            });
        assert_eq!(written.len() % 4, 0);
        let read: Vec<_> = attributes(written.as_bytes()).collect();
        assert_eq!(read[0], (1, &[7][..]));
        assert_eq!(read[1], (2, &[1, 2, 3, 4][..]));
        assert_eq!(read[2], (3, &b"abcd\0"[..]));
        let inner: Vec<_> = attributes(read[3].1).collect();
        assert_eq!(
            inner,
            [(5, &[0, 80][..]), (6, &[0, 0, 0, 0, 0, 0, 0, 1][..])]
        );
    }
}
