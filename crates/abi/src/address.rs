//! Addresses and ports as the tables have them: in network byte order, in types
//! of their own so that they cannot be mistaken for numbers.

use core::hash::{Hash, Hasher};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::layout::layout;

/// An IPv4 or IPv6 address: sixteen bytes in network order, IPv4 as v4-mapped
/// (RFC 4291, 2.5.5.2), so that one table serves both families and an IPv6
/// socket that talks to an IPv4 peer needs no special case.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, Eq, PartialOrd, Ord)]
pub struct Address {
    words: [u32; 4],
}

layout! {
    Address { words }
}

const MAPPED: u32 = 0xffff_u32.to_be();

impl Address {
    /// From the four bytes of an IPv4 address as they lie in a packet.
    #[inline(always)]
    pub const fn v4(word: u32) -> Self {
        Self {
            words: [0, 0, MAPPED, word],
        }
    }

    /// From the sixteen bytes of an IPv6 address as they lie in a packet.
    #[inline(always)]
    pub const fn v6(words: [u32; 4]) -> Self {
        Self { words }
    }

    #[inline(always)]
    pub const fn words(&self) -> [u32; 4] {
        self.words
    }

    /// Neither a group's nor one that is only of a link: those are not for
    /// routers.
    #[inline(always)]
    pub fn is_routed(&self) -> bool {
        if self.is_v4() {
            let [first, second, ..] = self.words[3].to_ne_bytes();
            first < 224 && first != 127 && !(first == 169 && second == 254)
        } else {
            let [first, second, ..] = self.words[0].to_ne_bytes();
            first != 0xff && !(first == 0xfe && second & 0xc0 == 0x80)
        }
    }

    /// Nobody's: `0.0.0.0` or `::`.
    #[inline(always)]
    pub fn is_unspecified(&self) -> bool {
        self.words[3] == 0 && (self.is_v4() || self.words == [0; 4])
    }

    /// (An assignment may become a call.)
    #[inline(always)]
    pub(crate) fn copy_to(&self, to: &mut Self) {
        // SAFETY: two places of the same type.
        unsafe { core::ptr::copy_nonoverlapping(self, to, 1) };
    }

    /// The four bytes of an IPv4 address; meaningless if it is none.
    #[inline(always)]
    pub const fn v4_word(&self) -> u32 {
        self.words[3]
    }

    #[inline(always)]
    pub const fn is_v4(&self) -> bool {
        self.words[0] == 0 && self.words[1] == 0 && self.words[2] == MAPPED
    }
}

// By hand: comparing arrays becomes a call of `memcmp`, which the kernel side
// does not have.
impl PartialEq for Address {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (self.words, other.words);
        a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
    }
}

impl Hash for Address {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.words.hash(state);
    }
}

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        let bytes = match address {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let mut words = [0; 4];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { words }
    }
}

impl From<Address> for IpAddr {
    fn from(address: Address) -> Self {
        if address.is_v4() {
            return Ipv4Addr::from(address.words[3].to_ne_bytes()).into();
        }
        let mut bytes = [0; 16];
        for (bytes, word) in bytes.chunks_exact_mut(4).zip(address.words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        Ipv6Addr::from(bytes).into()
    }
}

/// A port in network byte order.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port(u16);

impl Port {
    #[inline(always)]
    pub const fn from_network(port: u16) -> Self {
        Self(port)
    }

    #[inline(always)]
    pub const fn from_host(port: u16) -> Self {
        Self(port.to_be())
    }

    #[inline(always)]
    pub const fn network(self) -> u16 {
        self.0
    }

    #[inline(always)]
    pub const fn host(self) -> u16 {
        u16::from_be(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back() {
        for text in [
            "0.0.0.0",
            "10.244.1.7",
            "255.255.255.255",
            "::",
            "::1",
            "fd00:96::a",
        ] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(IpAddr::from(Address::from(address)), address);
            assert_eq!(Address::from(address).is_v4(), address.is_ipv4());
        }
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let mapped: IpAddr = "::ffff:10.96.0.1".parse().unwrap();
        let plain: IpAddr = "10.96.0.1".parse().unwrap();
        assert_eq!(Address::from(mapped), Address::from(plain));
        assert_eq!(
            Address::v4(u32::from_ne_bytes([10, 96, 0, 1])),
            Address::from(plain)
        );
    }

    #[test]
    fn ports_are_in_network_order() {
        assert_eq!(Port::from_host(80).network().to_ne_bytes(), [0, 80]);
        assert_eq!(Port::from_host(8080).host(), 8080);
    }
}
