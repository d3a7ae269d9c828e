//! Making sockets, and what their errors mean.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::Range;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{Attempt, Outcome, Transport};

/// Ports that the kernel gives to no socket by itself (`ip_local_port_range`).
const PORTS: Range<u16> = 61_000..65_535;

/// A socket for the attempt: bound if it says from where, not yet connected.
///
/// # Errors
/// If the kernel has no such protocol, or the source cannot be had.
pub(super) fn make(attempt: &Attempt) -> io::Result<Socket> {
    let domain = Domain::for_address(attempt.to);
    let socket = match attempt.transport {
        Transport::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
        Transport::Sctp => Socket::new(domain, Type::STREAM, Some(Protocol::SCTP))?,
        Transport::UdpConnected | Transport::UdpUnconnected => datagrams(attempt, domain)?,
    };
    let limit = Some(Duration::from_millis(attempt.limit_ms));
    socket.set_read_timeout(limit)?;
    socket.set_write_timeout(limit)?;
    let is_stream = socket.r#type()? == Type::STREAM;
    if attempt.from_port.is_some() || (is_stream && attempt.from.is_some()) {
        socket.set_reuse_address(true)?;
        let address = source(attempt);
        socket.bind(&SocketAddr::new(address, attempt.from_port.unwrap_or(0)).into())?;
    }
    if attempt.from_port.is_some() && attempt.transport == Transport::Tcp {
        // The same port will be used again: no TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
}

/// From where, if that matters.
fn source(attempt: &Attempt) -> IpAddr {
    attempt.from.unwrap_or(match attempt.to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    })
}

/// A socket for datagrams, at a port that nobody has had for long unless the attempt
/// names one. Those that the kernel gives come again, and while a node takes a
/// service up, what it was told at a port before can still count (the scenario
/// `udp-before-service` is about that).
fn datagrams(attempt: &Attempt, domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    report_errors(&socket, domain)?;
    if attempt.from_port.is_some() {
        return Ok(socket);
    }
    // Several of these programs may be in one network namespace.
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| (std::process::id() * 331).into());
    for _ in 0..PORTS.len() {
        let index = NEXT.fetch_add(1, Ordering::Relaxed) % PORTS.len() as u32;
        let port = PORTS.start + index as u16;
        match socket.bind(&SocketAddr::new(source(attempt), port).into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound.map(|()| socket),
        }
    }
    Err(io::ErrorKind::AddrInUse.into())
}

/// ICMP errors also at sockets that are not connected (`IP_RECVERR`).
fn report_errors(socket: &Socket, domain: Domain) -> io::Result<()> {
    use nix::sys::socket::{setsockopt, sockopt};
    match domain {
        Domain::IPV4 => setsockopt(socket, sockopt::Ipv4RecvErr, &true)?,
        _ => setsockopt(socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(())
}

/// An error as an outcome; `established` tells a reset from a refusal.
pub(super) fn outcome(error: &io::Error, established: bool) -> Outcome {
    if error.raw_os_error() == Some(nix::libc::EDESTADDRREQ) {
        return Outcome::Reset;
    }
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Outcome::Refused,
        io::ErrorKind::ConnectionReset
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionAborted => Outcome::Reset,
        io::ErrorKind::UnexpectedEof if established => Outcome::Reset,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Outcome::Unreachable,
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Outcome::Silent,
        _ => Outcome::Failed(error.to_string()),
    }
}
