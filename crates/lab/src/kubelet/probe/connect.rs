//! Connections from the node's network.

use std::io;
use std::net::SocketAddr;

use ripstop_netlink::netns::Netns;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

/// Connects from inside `node`: a socket stays in the namespace in which it was
/// made, whichever thread uses it.
pub(super) async fn connect(node: &Netns, to: SocketAddr) -> io::Result<TcpStream> {
    let socket =
        node.run(|| Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP)))??;
    socket.set_nonblocking(true)?;
    TcpSocket::from_std_stream(socket.into()).connect(to).await
}

/// In the words of kubelet's Go.
pub(super) fn describe(to: SocketAddr, error: &io::Error) -> String {
    let cause = match error.kind() {
        io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        io::ErrorKind::TimedOut => "i/o timeout".to_owned(),
        _ => error.to_string(),
    };
    format!("dial tcp {to}: {cause}")
}
