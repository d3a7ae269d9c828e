//! Echo requests (RFC 792, RFC 4443) from a raw socket: the way to reach a pod
//! that declares no port.

use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

/// Sends one request and waits for its reply.
///
/// # Errors
/// If no reply comes within `limit`, the kernel has no way there, or sockets of
/// this kind are not allowed.
pub(super) async fn ping(address: IpAddr, limit: Duration) -> io::Result<()> {
    tokio::task::spawn_blocking(move || exchange(address, limit))
        .await
        .map_err(io::Error::other)?
}

fn exchange(address: IpAddr, limit: Duration) -> io::Result<()> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol))?;
    // Only what comes from there.
    socket.connect(&SocketAddr::new(address, 0).into())?;
    let identifier = rand::random::<u16>();
    socket.send(&request(address.is_ipv4(), identifier))?;
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 2048];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        let length = match socket.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            result => result?,
        };
        if is_reply(address.is_ipv4(), &buffer[..length], identifier) {
            return Ok(());
        }
    }
}

fn request(ipv4: bool, identifier: u16) -> [u8; 8] {
    let [high, low] = identifier.to_be_bytes();
    let kind = if ipv4 { REQUEST_V4 } else { REQUEST_V6 };
    let mut packet = [kind, 0, 0, 0, high, low, 0, 1];
    // The kernel fills in that of ICMPv6, which covers its addresses.
    if ipv4 {
        let [a, b] = checksum(&packet).to_be_bytes();
        (packet[2], packet[3]) = (a, b);
    }
    packet
}

/// Raw IPv4 sockets give the IP header as well (raw(7)), IPv6 ones do not.
fn is_reply(ipv4: bool, packet: &[u8], identifier: u16) -> bool {
    let header = match packet.first() {
        Some(first) if ipv4 => usize::from(first & 0xf) * 4,
        _ => 0,
    };
    let kind = if ipv4 { REPLY_V4 } else { REPLY_V6 };
    packet
        .get(header..header + 8)
        .is_some_and(|icmp| icmp[0] == kind && icmp[4..6] == identifier.to_be_bytes())
}

/// RFC 1071, of an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u32 = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    !(((folded & 0xffff) + (folded >> 16)) as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_to_zero() {
        let packet = request(true, 0xbeef);
        assert_eq!(checksum(&packet), 0);
        assert_eq!(request(false, 0xbeef)[..4], [128, 0, 0, 0]);
    }

    #[test]
    fn replies_are_told_apart() {
        let mut v4 = vec![0x45; 20];
        v4.extend([REPLY_V4, 0, 0, 0, 0xbe, 0xef, 0, 1]);
        assert!(is_reply(true, &v4, 0xbeef));
        assert!(!is_reply(true, &v4, 0xbee0));
        assert!(!is_reply(true, &v4[..24], 0xbeef));
        assert!(is_reply(
            false,
            &[REPLY_V6, 0, 0, 0, 0xbe, 0xef, 0, 1],
            0xbeef
        ));
        assert!(!is_reply(false, &request(false, 0xbeef), 0xbeef));
        assert!(!is_reply(true, &[], 0));
    }
}
