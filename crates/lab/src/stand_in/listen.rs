//! Sockets for both address families at once.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

/// A port that cannot be listened on, in the words that Go servers use: people
/// search for them.
#[derive(Debug, thiserror::Error)]
#[error("listen {protocol} :{port}: {}", cause(source))]
pub(super) struct ListenError {
    protocol: &'static str,
    port: u16,
    source: io::Error,
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "bind: address already in use (the containers of a pod share \
                                     its ports; with hostNetwork, those of the node)"
            .to_owned(),
        _ => error.to_string(),
    }
}

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;

pub(super) fn tcp(port: u16) -> Result<TcpListener, ListenError> {
    bound(Type::STREAM, port)
        .and_then(|socket| {
            socket.listen(BACKLOG)?;
            TcpListener::from_std(socket.into())
        })
        .map_err(|source| ListenError {
            protocol: "tcp",
            port,
            source,
        })
}

pub(super) fn udp(port: u16) -> Result<UdpSocket, ListenError> {
    bound(Type::DGRAM, port)
        .and_then(|socket| UdpSocket::from_std(socket.into()))
        .map_err(|source| ListenError {
            protocol: "udp",
            port,
            source,
        })
}

fn bound(kind: Type, port: u16) -> io::Result<Socket> {
    match bind(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into(), kind) {
        // A machine without IPv6.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::EAFNOSUPPORT | libc::EADDRNOTAVAIL)
            ) =>
        {
            bind(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into(), kind)
        }
        result => result,
    }
}

fn bind(domain: Domain, address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(domain, kind, None)?;
    if domain == Domain::IPV6 {
        socket.set_only_v6(false)?;
    }
    if kind == Type::STREAM {
        // Connections of the container's last run may still linger. For UDP the
        // same option would let two containers share a port.
        socket.set_reuse_address(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// The address as its own family: a dual-stack socket gives IPv4 mapped.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
