//! Sockets at the cluster DNS addresses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::answer::{Asker, Transport, Verdict, answer};
use crate::{Forwarder, Zone};

/// Longest question over UDP; EDNS options included they have a few hundred bytes.
const QUERY_MAX: usize = 4096;
/// A connection on which nothing is asked for so long is closed (RFC 7766, 6.2.3).
const TCP_IDLE: Duration = Duration::from_secs(10);
const TCP_CONNECTIONS: usize = 256;
/// After an error of a socket, so that a lasting one does not take a CPU.
const ERROR_PAUSE: Duration = Duration::from_millis(20);

/// An address that cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cluster DNS address {address}/{protocol}: {source}")]
pub struct BindError {
    address: SocketAddr,
    protocol: &'static str,
    source: io::Error,
}

/// What has been asked so far.
#[derive(Debug, Default)]
pub struct Stats {
    pub questions: AtomicU64,
    /// Passed to upstream servers.
    pub forwarded: AtomicU64,
    /// Of these, without an answer.
    pub unanswered: AtomicU64,
}

/// Answers questions until dropped.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    sockets: Vec<(SocketAddr, std::net::UdpSocket, std::net::TcpListener)>,
}

#[derive(Debug)]
struct Shared {
    zone: Arc<Zone>,
    forwarder: Forwarder,
    connections: Semaphore,
    stats: Arc<Stats>,
}

impl Server {
    /// Takes UDP and TCP sockets at each address; an address need not be on a
    /// link yet. Port 0 takes a free one (each address its own).
    ///
    /// # Errors
    /// If somebody else serves one of the addresses. None is served then.
    pub fn bind(
        addresses: &[IpAddr],
        port: u16,
        zone: Arc<Zone>,
        upstream: Vec<SocketAddr>,
    ) -> Result<Self, BindError> {
        let mut sockets = Vec::new();
        for ip in addresses {
            let address = SocketAddr::new(*ip, port);
            let udp = socket(address, Type::DGRAM, Protocol::UDP).map_err(|source| BindError {
                address,
                protocol: "UDP",
                source,
            })?;
            let udp = std::net::UdpSocket::from(udp);
            let address = udp.local_addr().unwrap_or(address);
            let tcp = socket(address, Type::STREAM, Protocol::TCP).map_err(|source| BindError {
                address,
                protocol: "TCP",
                source,
            })?;
            sockets.push((address, udp, tcp.into()));
        }
        let shared = Shared {
            zone,
            forwarder: Forwarder::new(upstream),
            connections: Semaphore::new(TCP_CONNECTIONS),
            stats: Arc::default(),
        };
        Ok(Self {
            shared: Arc::new(shared),
            sockets,
        })
    }

    /// Where the server can be asked.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> {
        self.sockets.iter().map(|(address, ..)| *address)
    }

    pub fn stats(&self) -> Arc<Stats> {
        self.shared.stats.clone()
    }

    /// Answers for ever.
    ///
    /// # Errors
    /// If the runtime does not take the sockets.
    pub async fn run(self) -> io::Result<()> {
        let mut tasks = JoinSet::new();
        for (_, udp, tcp) in self.sockets {
            let udp = Arc::new(UdpSocket::from_std(udp)?);
            tasks.spawn(serve_udp(self.shared.clone(), udp));
            let tcp = TcpListener::from_std(tcp)?;
            tasks.spawn(serve_tcp(self.shared.clone(), tcp));
        }
        while tasks.join_next().await.is_some() {}
        Ok(())
    }
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        kind.nonblocking(),
        Some(protocol),
    )?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_freebind_v6(true)?;
            socket.set_only_v6(true)?;
        }
    }
    if kind == Type::STREAM {
        // Connections of the agent before us may still be in TIME_WAIT.
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    if kind == Type::STREAM {
        socket.listen(1024)?;
    }
    Ok(socket)
}

async fn serve_udp(shared: Arc<Shared>, socket: Arc<UdpSocket>) {
    let mut packet = vec![0; QUERY_MAX];
    let mut reply = Vec::with_capacity(QUERY_MAX);
    loop {
        let (length, client) = match socket.recv_from(&mut packet).await {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "DNS over UDP");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        match shared.decide(&packet[..length], Transport::Udp, &mut reply) {
            Verdict::Drop => {}
            // A client that is gone by now is its own affair.
            Verdict::Reply => drop(socket.send_to(&reply, client).await),
            _ => {
                let (shared, socket) = (shared.clone(), socket.clone());
                let (query, failure) = (packet[..length].to_vec(), reply.clone());
                tokio::spawn(async move {
                    let reply = shared.forward(&query, Transport::Udp, failure).await;
                    let _ = socket.send_to(&reply, client).await;
                });
            }
        }
    }
}

async fn serve_tcp(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "DNS over TCP");
                sleep(ERROR_PAUSE).await;
                continue;
            }
        };
        let shared = shared.clone();
        tokio::spawn(async move {
            // One too many is closed at once: its client asks again.
            let Ok(_permit) = shared.connections.try_acquire() else {
                return;
            };
            // Ends with the client's close, an error or a pause: all the same.
            let _ = serve_connection(&shared, stream).await;
        });
    }
}

async fn serve_connection(shared: &Shared, mut stream: TcpStream) -> io::Result<()> {
    let mut packet = Vec::new();
    let mut reply = Vec::new();
    loop {
        let length = timeout(TCP_IDLE, stream.read_u16()).await??;
        packet.resize(usize::from(length), 0);
        timeout(TCP_IDLE, stream.read_exact(&mut packet)).await??;
        match shared.decide(&packet, Transport::Tcp, &mut reply) {
            Verdict::Drop => return Ok(()),
            Verdict::Reply => {}
            _ => {
                let failure = std::mem::take(&mut reply);
                reply = shared.forward(&packet, Transport::Tcp, failure).await;
            }
        }
        let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let message = [&length.to_be_bytes()[..], &reply].concat();
        timeout(TCP_IDLE, stream.write_all(&message)).await??;
    }
}

impl Shared {
    fn decide(&self, packet: &[u8], transport: Transport, reply: &mut Vec<u8>) -> Verdict {
        self.stats.questions.fetch_add(1, Ordering::Relaxed);
        let asker = Asker {
            recursion: self.forwarder.is_available(),
            ..Asker::new(transport)
        };
        match answer(&self.zone, packet, asker, reply).verdict {
            // Nobody to ask: what is in the buffer is the answer.
            Verdict::Forward if !asker.recursion => Verdict::Reply,
            Verdict::Alias(_) | Verdict::Search(_) => Verdict::Reply,
            verdict => verdict,
        }
    }

    async fn forward(&self, query: &[u8], transport: Transport, failure: Vec<u8>) -> Vec<u8> {
        self.stats.forwarded.fetch_add(1, Ordering::Relaxed);
        match self.forwarder.resolve(query, transport).await {
            Some(reply) => reply,
            None => {
                self.stats.unanswered.fetch_add(1, Ordering::Relaxed);
                failure
            }
        }
    }
}
