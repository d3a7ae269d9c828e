//! Sockets at the cluster DNS addresses.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use socket2::{Domain, Protocol, Socket, Type};

/// Questions that wait while no server runs: some thousands.
const RECEIVE_BUFFER: usize = 4 << 20;
const BACKLOG: i32 = 1024;

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cluster DNS address {address}/{protocol}: {source}")]
pub struct BindError {
    address: SocketAddr,
    protocol: &'static str,
    source: io::Error,
}

/// A UDP and a TCP socket at each address. Open in several processes, they stay
/// when one of these ends, and so does what has arrived at them.
#[derive(Debug)]
pub struct Sockets(pub(crate) Vec<Pair>);

#[derive(Debug)]
pub(crate) struct Pair {
    pub(crate) address: SocketAddr,
    pub(crate) udp: UdpSocket,
    pub(crate) tcp: TcpListener,
}

impl Sockets {
    /// Takes sockets at each address; an address need not be on a link yet. Port
    /// 0 takes a free one (each address its own).
    ///
    /// # Errors
    /// If somebody else serves one of the addresses. None is taken then.
    pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Self, BindError> {
        let mut pairs = Vec::new();
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            let error = |protocol| {
                move |source| BindError {
                    address,
                    protocol,
                    source,
                }
            };
            let udp = UdpSocket::from(open(address, Type::DGRAM).map_err(error("UDP"))?);
            let address = udp.local_addr().unwrap_or(address);
            let tcp = open(address, Type::STREAM).map_err(error("TCP"))?.into();
            pairs.push(Pair { address, udp, tcp });
        }
        Ok(Self(pairs))
    }

    /// Takes over sockets of [`Sockets::files`], of another process perhaps.
    /// `None` if they are not those of these addresses and this port.
    pub fn from_files(files: Vec<OwnedFd>, addresses: &[IpAddr], port: u16) -> Option<Self> {
        let mut pairs = Vec::new();
        let mut files = files.into_iter();
        for ip in addresses {
            let udp = UdpSocket::from(files.next()?);
            let tcp = TcpListener::from(files.next()?);
            let address = SocketAddr::new(*ip, port);
            let same = |local: io::Result<SocketAddr>| local.is_ok_and(|local| local == address);
            if !same(udp.local_addr()) || !same(tcp.local_addr()) {
                return None;
            }
            pairs.push(Pair { address, udp, tcp });
        }
        files.next().is_none().then_some(Self(pairs))
    }

    /// For a process that keeps them.
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        self.0
            .iter()
            .flat_map(|pair| [pair.udp.as_fd(), pair.tcp.as_fd()])
            .collect()
    }

    /// Where questions can be asked.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|pair| pair.address)
    }
}

fn open(address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let protocol = match kind {
        Type::STREAM => Protocol::TCP,
        _ => Protocol::UDP,
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            socket.set_only_v6(true)?;
        }
    }
    if kind == Type::STREAM {
        // Connections of an agent before us may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
    } else {
        // Beyond the system's limit for those who may; else what it allows.
        let forced = nix::sys::socket::setsockopt(
            &socket,
            nix::sys::socket::sockopt::RcvBufForce,
            &RECEIVE_BUFFER,
        );
        if forced.is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(BACKLOG)?;
    }
    Ok(socket)
}
