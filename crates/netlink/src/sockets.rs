//! The sockets of a network namespace, as `ss` sees and ends them
//! (net/ipv4/inet_diag.c, net/ipv4/udp_diag.c).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use crate::attributes::{Message, messages, u32_at};
use crate::{Error, Netlink};

/// `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY` of linux/sock_diag.h.
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
const UDP: u8 = 17;
const AF_INET: u8 = libc::AF_INET as u8;
const AF_INET6: u8 = libc::AF_INET6 as u8;
/// `TCP_ESTABLISHED`: of a datagram socket, that it is connected.
const CONNECTED: u32 = 1 << 1;
/// Whatever the state.
const ANY: u32 = u32::MAX;
/// `struct inet_diag_sockid`: ends and cookie.
const ID: usize = 48;
/// A connected UDP socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectedUdp {
    family: u8,
    /// As the kernel named it: no other socket has this name ever.
    id: [u8; ID],
    /// Whom it is connected to; IPv4 as such, whatever the socket's family.
    pub peer: SocketAddr,
    /// Its `SO_COOKIE`.
    pub cookie: u64,
}

/// A socket for the sockets of a network namespace.
#[derive(Debug)]
pub struct Sockets {
    netlink: Netlink,
}

impl Sockets {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the kernel no `CONFIG_INET_DIAG`.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            netlink: Netlink::open(NETLINK_SOCK_DIAG)?,
        })
    }

    /// The connected UDP sockets, of both families.
    ///
    /// # Errors
    /// If the kernel refuses: without `CONFIG_INET_UDP_DIAG` (ENOENT).
    pub fn connected_udp(&mut self) -> Result<Vec<ConnectedUdp>, Error> {
        let mut found = Vec::new();
        for family in [AF_INET, AF_INET6] {
            let body = request(family, CONNECTED, &[0; ID]);
            let sockets = self.netlink.dump_with(
                "list UDP sockets",
                |buffer, sequence| emit(buffer, BY_FAMILY, REQUEST | DUMP, sequence, &body),
                |message| read(message.payload),
            )?;
            found.extend(sockets);
        }
        Ok(found)
    }

    /// Ports that UDP sockets send from, of both families.
    ///
    /// # Errors
    /// As [`Sockets::connected_udp`].
    pub fn udp_ports(&mut self) -> Result<BTreeSet<u16>, Error> {
        let mut found = BTreeSet::new();
        for family in [AF_INET, AF_INET6] {
            let body = request(family, ANY, &[0; ID]);
            let ports = self.netlink.dump_with(
                "list UDP sockets",
                |buffer, sequence| emit(buffer, BY_FAMILY, REQUEST | DUMP, sequence, &body),
                |message| {
                    let port = message.payload.get(4..6)?.try_into().ok()?;
                    Some(u16::from_be_bytes(port))
                },
            )?;
            found.extend(ports);
        }
        Ok(found)
    }

    /// Disconnects sockets: who receives from one gets `ECONNABORTED`, who sends
    /// `EDESTADDRREQ`. Those that are gone are no error.
    ///
    /// # Errors
    /// The first that the kernel refused: without `CONFIG_INET_DIAG_DESTROY`
    /// (EOPNOTSUPP), or without CAP_NET_ADMIN.
    pub fn disconnect(&mut self, sockets: &[ConnectedUdp]) -> Result<(), Error> {
        let mut result = Ok(());
        for socket in sockets {
            let sequence = self.netlink.sequences(1);
            let mut bytes = Vec::new();
            let body = request(socket.family, CONNECTED, &socket.id);
            emit(&mut bytes, DESTROY, REQUEST | ACKNOWLEDGE, sequence, &body);
            self.netlink.send(&bytes)?;
            result = result.and(self.acknowledged(sequence)?);
        }
        result
    }

    /// What the kernel says of the request of that number.
    fn acknowledged(&mut self, sequence: u32) -> Result<Result<(), Error>, Error> {
        let ours =
            |message: &Message<'_>| message.kind == NLMSG_ERROR && message.sequence == sequence;
        loop {
            let datagram = self.netlink.receive_datagram()?;
            if let Some(message) = messages(datagram).find(ours) {
                let gone = |errno| errno == libc::ENOENT;
                return Ok(crate::socket::outcome(
                    "disconnect a UDP socket",
                    gone,
                    message,
                ));
            }
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut bytes = vec![family, UDP, 0, 0];
    bytes.extend(states.to_ne_bytes());
    bytes.extend(id);
    bytes
}

/// `struct nlmsghdr` and the body.
fn emit(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, body: &[u8]) {
    let length = (16 + body.len()) as u32;
    buffer.extend(length.to_ne_bytes());
    buffer.extend(kind.to_ne_bytes());
    buffer.extend(flags.to_ne_bytes());
    buffer.extend(sequence.to_ne_bytes());
    buffer.extend(0u32.to_ne_bytes());
    buffer.extend(body);
}

fn read(payload: &[u8]) -> Option<ConnectedUdp> {
    let family = *payload.first()?;
    let id: [u8; ID] = payload.get(4..4 + ID)?.try_into().ok()?;
    // Ports, addresses, interface, cookie.
    let port = u16::from_be_bytes([id[2], id[3]]);
    let address: IpAddr = match family {
        AF_INET => <[u8; 4]>::try_from(&id[20..24]).ok()?.into(),
        AF_INET6 => <[u8; 16]>::try_from(&id[20..36]).ok()?.into(),
        _ => return None,
    };
    let cookie = [u32_at(&id, 40)?, u32_at(&id, 44)?].map(u64::from);
    Some(ConnectedUdp {
        family,
        id,
        peer: SocketAddr::new(address.to_canonical(), port),
        cookie: cookie[0] | cookie[1] << 32,
    })
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sockets_of_both_families_are_found_with_their_cookies() {
        let mut sockets = Sockets::new().unwrap();
        for (own, peer) in [
            ("127.0.0.1:0", "127.0.0.1:9"),
            ("[::1]:0", "[::1]:9"),
            ("[::]:0", "[::ffff:127.0.0.1]:9"),
        ] {
            let socket = UdpSocket::bind(own).unwrap();
            let find = |sockets: &mut Sockets| {
                let all = sockets.connected_udp().unwrap();
                let cookie = cookie(&socket);
                all.into_iter().find(|found| found.cookie == cookie)
            };
            assert_eq!(find(&mut sockets), None);
            let peer: SocketAddr = peer.parse().unwrap();
            socket.connect(peer).unwrap();
            let found = find(&mut sockets).unwrap();
            assert_eq!(found.peer.ip(), peer.ip().to_canonical());
            assert_eq!(found.peer.port(), 9);
        }
    }

    fn cookie(socket: &UdpSocket) -> u64 {
        let mut cookie = 0_u64;
        let mut len = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the option is that long.
        let result = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut len,
            )
        };
        assert_eq!(result, 0);
        cookie
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&bytes);
        }
    }
}
