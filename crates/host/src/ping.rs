//! Who answers: ICMP echo (RFC 792, RFC 4443 section 4) to many addresses at once.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, recvmsg, sendto,
    socket,
};

const ECHO_V4: u8 = 8;
const ECHO_REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Header of an echo: kind, code, sum, identifier, number.
const HEADER: usize = 8;

/// Asks each address once and waits for as long as `patience`, all together. How
/// long each took to answer; those that did not are not in it.
///
/// # Errors
/// Without CAP_NET_RAW. An address that cannot be sent to does not answer.
pub fn ping(addresses: &[IpAddr], patience: Duration) -> io::Result<HashMap<IpAddr, Duration>> {
    let mut answers = HashMap::new();
    let start = Instant::now();
    let mut asked = Vec::new();
    for v4 in [true, false] {
        let of_family: Vec<IpAddr> = addresses
            .iter()
            .filter(|address| address.is_ipv4() == v4)
            .copied()
            .collect();
        if of_family.is_empty() {
            continue;
        }
        let socket = Echo::open(v4)?;
        for address in &of_family {
            socket.ask(*address);
        }
        asked.push((socket, of_family.len()));
    }
    for (socket, mut waiting) in asked {
        while waiting > 0 {
            let left = patience.saturating_sub(start.elapsed());
            match socket.answer(left)? {
                Some(from)
                    if addresses.contains(&from)
                        && answers.insert(from, start.elapsed()).is_none() =>
                {
                    waiting -= 1;
                }
                Some(_) => {}
                None if left.is_zero() => break,
                None => {}
            }
        }
    }
    Ok(answers)
}

struct Echo {
    socket: OwnedFd,
    v4: bool,
    /// Tells our answers from those of other programs: every raw socket gets all.
    identifier: [u8; 2],
}

impl Echo {
    fn open(v4: bool) -> io::Result<Self> {
        let (family, protocol) = match v4 {
            true => (AddressFamily::Inet, SockProtocol::Icmp),
            false => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(family, SockType::Raw, flags, protocol)?;
        // Two asking at once have different sockets.
        let number = std::process::id() ^ (socket.as_raw_fd().cast_unsigned() << 8);
        let [.., a, b] = number.to_be_bytes();
        Ok(Self {
            socket,
            v4,
            identifier: [a, b],
        })
    }

    fn ask(&self, address: IpAddr) {
        let message = message(self.v4, self.identifier);
        let to = SockaddrStorage::from(SocketAddr::new(address, 0));
        if let Err(error) = sendto(self.socket.as_raw_fd(), &message, &to, MsgFlags::empty()) {
            tracing::debug!(%address, %error, "no echo can be sent");
        }
    }

    /// Who answered, if a message that comes within `patience` is an answer to us.
    fn answer(&self, patience: Duration) -> io::Result<Option<IpAddr>> {
        let millis = u16::try_from(patience.as_millis().max(1)).unwrap_or(u16::MAX);
        let mut waiting = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waiting, PollTimeout::from(millis)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut bytes = [0; 256];
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let fd = self.socket.as_raw_fd();
        let (from, length) =
            match recvmsg::<SockaddrStorage>(fd, &mut parts, None, MsgFlags::empty()) {
                Ok(received) => (received.address, received.bytes),
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(error) => return Err(error.into()),
            };
        let from = from.and_then(|from| {
            let v4 = from.as_sockaddr_in().map(|from| from.ip().into());
            v4.or_else(|| from.as_sockaddr_in6().map(|from| from.ip().into()))
        });
        let ours = is_answer(self.v4, &bytes[..length], self.identifier);
        Ok(from.filter(|_| ours))
    }
}

fn message(v4: bool, identifier: [u8; 2]) -> [u8; HEADER] {
    let kind = if v4 { ECHO_V4 } else { ECHO_V6 };
    let mut message = [kind, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    if v4 {
        // Of ICMPv6 the kernel makes the sum: it covers addresses.
        let sum: u32 = message
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// IPv4 comes with its header, IPv6 without.
fn is_answer(v4: bool, bytes: &[u8], identifier: [u8; 2]) -> bool {
    let (skip, kind) = match (v4, bytes.first()) {
        (true, Some(first)) => (usize::from(first & 0xf) * 4, ECHO_REPLY_V4),
        (false, Some(_)) => (0, ECHO_REPLY_V6),
        (_, None) => return false,
    };
    bytes
        .get(skip..skip + HEADER)
        .is_some_and(|echo| echo[0] == kind && echo[4..6] == identifier)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_told_from_other_messages() {
        let mut reply = [0x45; 28];
        reply[20..].copy_from_slice(&[0, 0, 0, 0, 1, 2, 0, 1]);
        assert!(is_answer(true, &reply, [1, 2]));
        assert!(!is_answer(true, &reply, [1, 3]));
        assert!(!is_answer(true, &reply[..27], [1, 2]));
        reply[20] = ECHO_V4;
        assert!(!is_answer(true, &reply, [1, 2]));
        assert!(is_answer(false, &[129, 0, 0, 0, 1, 2, 0, 1], [1, 2]));
        assert!(!is_answer(false, &[], [1, 2]));
    }

    #[test]
    fn the_sum_of_an_echo_is_right() {
        let bytes = message(true, [0xab, 0xcd]);
        let sum: u32 = bytes
            .chunks(2)
            .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn loopback_answers() {
        let addresses: [IpAddr; 2] = ["127.0.0.1", "127.0.0.2"].map(|text| text.parse().unwrap());
        let answers = match ping(&addresses, Duration::from_secs(5)) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("skipped: no CAP_NET_RAW");
                return;
            }
            answers => answers.unwrap(),
        };
        assert_eq!(answers.len(), 2);
    }
}
