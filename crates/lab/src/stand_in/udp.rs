//! UDP: each datagram is answered by one.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::Serialize;
use tokio::net::UdpSocket;

use super::Identity;
use super::listen::canonical;

/// Largest payload that UDP has.
const MAX_DATAGRAM: usize = 65_535;

/// Answers each datagram with what `answer` makes of it, if anything.
pub(super) async fn serve<A>(socket: UdpSocket, answer: impl Fn(SocketAddr, Vec<u8>) -> A)
where
    A: Future<Output = Option<Vec<u8>>>,
{
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        // Errors are about earlier answers (nobody there any more): go on.
        let Ok((length, client)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(reply) = answer(canonical(client), buffer[..length].to_vec()).await {
            let _ = socket.send_to(&reply, client).await;
        }
    }
}

#[derive(Serialize)]
struct Received<'a> {
    received: &'a str,
}

/// The identity server.
pub(super) async fn identify(socket: UdpSocket, identity: Arc<Identity>) {
    let port = socket.local_addr().map_or(0, |address| address.port());
    serve(socket, |client, datagram| {
        // The socket is bound to no address: of ours, the one of the client's
        // family is what it sent to.
        let family = |ip: &&std::net::IpAddr| ip.is_ipv4() == client.is_ipv4();
        let ours = identity.addresses.iter().find(family).copied();
        let server = SocketAddr::new(ours.unwrap_or_else(|| client.ip()), port);
        let text = String::from_utf8_lossy(&datagram);
        let received = Received {
            received: text.trim_end_matches(['\r', '\n']),
        };
        let reply = identity.answer(server, client, received);
        async move { Some(reply) }
    })
    .await;
}
