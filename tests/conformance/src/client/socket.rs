//! Making sockets, and what their errors mean.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{Attempt, Outcome, Transport};

/// A socket for the attempt: bound if it says from where, not yet connected.
///
/// # Errors
/// If the kernel has no such protocol, or the source cannot be had.
pub(super) fn make(attempt: &Attempt) -> io::Result<Socket> {
    let domain = Domain::for_address(attempt.to);
    let socket = match attempt.transport {
        Transport::Tcp => Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?,
        Transport::Sctp => Socket::new(domain, Type::STREAM, Some(Protocol::SCTP))?,
        Transport::UdpConnected | Transport::UdpUnconnected => {
            let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
            report_errors(&socket, domain)?;
            socket
        }
    };
    let limit = Some(Duration::from_millis(attempt.limit_ms));
    socket.set_read_timeout(limit)?;
    socket.set_write_timeout(limit)?;
    if attempt.from.is_some() || attempt.from_port.is_some() {
        socket.set_reuse_address(true)?;
        let any = match attempt.to {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let (address, port) = (attempt.from.unwrap_or(any), attempt.from_port.unwrap_or(0));
        socket.bind(&SocketAddr::new(address, port).into())?;
    }
    if attempt.from_port.is_some() && attempt.transport == Transport::Tcp {
        // The same port will be used again: no TIME_WAIT.
        socket.set_linger(Some(Duration::ZERO))?;
    }
    Ok(socket)
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
