//! Rows as bytes: every field begins at a word of 4 bytes.

use std::net::IpAddr;

use ripstop_model::Protocol;
use ripstop_netlink::nftables::Family;
use ripstop_plan::{Backend, Frontend};

pub(super) fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

pub(super) fn port(port: u16) -> [u8; 4] {
    let [high, low] = port.to_be_bytes();
    [high, low, 0, 0]
}

/// Address, protocol, port.
pub(super) fn frontend(frontend: &Frontend) -> Vec<u8> {
    let mut key = address(frontend.address);
    key.extend([frontend.protocol as u8, 0, 0, 0]);
    key.extend(port(frontend.port));
    key
}

/// What maps give for a frontend, behind its port: `rules` says why.
pub(super) fn result(frontend: &Frontend, data: &[u8]) -> Vec<u8> {
    [&port(frontend.port), data].concat()
}

/// The reverse of [`result`]; `None` if nobody of ours wrote this.
pub(super) fn read_result<'d>(frontend: &Frontend, data: &'d [u8]) -> Option<&'d [u8]> {
    data.strip_prefix(&port(frontend.port))
}

/// Address, port.
pub(super) fn backend(backend: &Backend) -> Vec<u8> {
    let mut data = address(backend.address);
    data.extend(port(backend.port));
    data
}

/// A number as the kernel's registers hold it.
pub(super) fn slot(slot: u32) -> [u8; 4] {
    slot.to_ne_bytes()
}

/// Bytes of an address.
pub(super) const fn length(family: Family) -> usize {
    match family {
        Family::V4 => 4,
        Family::V6 => 16,
    }
}

pub(super) fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => None,
    }
}

fn read_port(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(..2)?.try_into().ok()?))
}

/// The frontend that a key begins with, and the rest of the key.
pub(super) fn read_frontend(family: Family, key: &[u8]) -> Option<(Frontend, &[u8])> {
    let (address, rest) = key.split_at_checked(length(family))?;
    let (protocol, rest) = rest.split_at_checked(4)?;
    let (port, rest) = rest.split_at_checked(4)?;
    let frontend = Frontend {
        address: read_address(address)?,
        protocol: match protocol[0] {
            6 => Protocol::Tcp,
            17 => Protocol::Udp,
            132 => Protocol::Sctp,
            _ => return None,
        },
        port: read_port(port)?,
    };
    Some((frontend, rest))
}

pub(super) fn read_backend(family: Family, data: &[u8]) -> Option<Backend> {
    let (address, port) = data.split_at_checked(length(family))?;
    Some(Backend {
        address: read_address(address)?,
        port: read_port(port)?,
    })
}

pub(super) fn read_slot(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_they_were_written() {
        for text in ["10.96.0.1", "fd00:96::1"] {
            let address = text.parse().unwrap();
            let family = Family::of(&address);
            let row = Frontend {
                address,
                protocol: Protocol::Udp,
                port: 53,
            };
            let mut key = frontend(&row);
            assert_eq!(key.len(), length(family) + 8);
            key.extend(slot(7));
            let (read, rest) = read_frontend(family, &key).unwrap();
            assert_eq!((read, read_slot(rest)), (row, Some(7)));
            let to = Backend { address, port: 80 };
            assert_eq!(read_backend(family, &backend(&to)), Some(to));
        }
        assert_eq!(read_frontend(Family::V4, &[0; 11]), None);
    }
}
