//! Names outside the cluster: asked for at the upstream servers.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::Transport;
use crate::query::{HEADER, Query};

/// Resolvers wait 5 s: two servers are tried before they give up.
const SERVER_TIMEOUT: Duration = Duration::from_secs(2);
/// Questions under way at one time; each costs a socket.
const CONCURRENT: usize = 512;
/// Bit of a reply that does not fit UDP, in the third byte.
const TRUNCATED: u8 = 0x02;

/// Asks upstream servers, one after the other.
#[derive(Debug)]
pub struct Forwarder {
    servers: Vec<SocketAddr>,
    permits: Semaphore,
}

impl Forwarder {
    pub fn new(servers: Vec<SocketAddr>) -> Self {
        Self {
            servers,
            permits: Semaphore::new(CONCURRENT),
        }
    }

    /// Whether there is anybody to ask.
    pub fn is_available(&self) -> bool {
        !self.servers.is_empty()
    }

    /// The first server's reply to a query, under the query's own id. `None` if
    /// none answers in time, or too many questions wait already.
    pub async fn resolve(&self, query: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let question = Query::parse(query).ok()?.question();
        let _permit = self.permits.try_acquire().ok()?;
        for server in &self.servers {
            let asked = ask(*server, query, question, transport);
            if let Ok(Ok(mut reply)) = timeout(SERVER_TIMEOUT, asked).await {
                reply[..2].copy_from_slice(&query[..2]);
                return Some(reply);
            }
        }
        None
    }
}

/// Over UDP, and again over TCP if the reply did not fit and the client could
/// take more. A client on UDP gets the truncated reply and comes back on TCP.
async fn ask(
    server: SocketAddr,
    query: &[u8],
    question: &[u8],
    transport: Transport,
) -> io::Result<Vec<u8>> {
    // An id of our own and a fresh source port: a forger has to guess both.
    let mut query = query.to_vec();
    query[..2].copy_from_slice(&rand::random::<[u8; 2]>());
    let reply = ask_udp(server, &query, question).await?;
    if reply[2] & TRUNCATED != 0 && transport == Transport::Tcp {
        return ask_tcp(server, &query, question).await;
    }
    Ok(reply)
}

async fn ask_udp(server: SocketAddr, query: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut reply = vec![0; 4096];
    loop {
        let length = socket.recv(&mut reply).await?;
        // Anything else may be forged, or late: the right one may still come.
        if is_reply(&reply[..length], query, question) {
            reply.truncate(length);
            return Ok(reply);
        }
    }
}

async fn ask_tcp(server: SocketAddr, query: &[u8], question: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(query.len()).map_err(io::Error::other)?;
    let message = [&length.to_be_bytes()[..], query].concat();
    stream.write_all(&message).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    match is_reply(&reply, query, question) {
        true => Ok(reply),
        false => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Whether `reply` answers this very question. Servers may change the case of
/// letters, in either direction.
fn is_reply(reply: &[u8], query: &[u8], question: &[u8]) -> bool {
    let Some(echoed) = reply.get(HEADER..HEADER + question.len()) else {
        return false;
    };
    reply[..2] == query[..2] && reply[2] & 0x80 != 0 && echoed.eq_ignore_ascii_case(question)
}
