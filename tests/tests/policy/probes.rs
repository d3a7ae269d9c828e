//! Servers and clients in network namespaces, by plain sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::stage::Place;

/// For an answer that is to come; a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(30);
/// For one that is not.
const BRIEF: Duration = Duration::from_millis(200);
/// Between two datagrams: the first can be lost to a neighbour that is asked for.
const AGAIN: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Tcp,
    Udp,
    /// Associations with one stream, which sockets have as TCP's connections.
    Sctp,
}

/// A connection to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Probe {
    pub(crate) kind: Kind,
    pub(crate) client: IpAddr,
    pub(crate) server: SocketAddr,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Open,
    /// An answer that says no.
    Refused,
    Silent,
}

/// Answers TCP, UDP and, if the kernel has it, SCTP on some ports of a place until it
/// is dropped.
pub(crate) struct Servers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Servers {
    /// On every address of the place.
    pub(crate) fn start(places: &[&Place], ports: &[u16]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for place in places {
            let (mut streams, mut udp) = (Vec::new(), Vec::new());
            for port in ports {
                for any in place.any() {
                    let at = SocketAddr::new(any, *port);
                    let opened = place.netns.run(|| {
                        let tcp = listen(at, Protocol::TCP);
                        (tcp, listen_sctp(at), bound(at, Protocol::UDP))
                    });
                    let (tcp, sctp, socket) = opened.expect("the namespace");
                    for listener in [Some(tcp), sctp].into_iter().flatten() {
                        let listener =
                            listener.unwrap_or_else(|e| panic!("{} {at}: {e}", place.name));
                        listener.set_nonblocking(true).unwrap();
                        streams.push(listener);
                    }
                    let socket = socket.unwrap_or_else(|e| panic!("{} {at}: {e}", place.name));
                    socket.set_nonblocking(true).unwrap();
                    udp.push(socket.into());
                }
            }
            let stop = Arc::clone(&stop);
            threads.push(std::thread::spawn(move || serve(&streams, &udp, &stop)));
        }
        Self { stop, threads }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn listen(at: SocketAddr, protocol: Protocol) -> std::io::Result<TcpListener> {
    let socket = bound(at, protocol)?;
    socket.listen(1024)?;
    // For what these tests do with it, an SCTP socket is one as well.
    Ok(socket.into())
}

/// `None` if the kernel has no SCTP.
fn listen_sctp(at: SocketAddr) -> Option<std::io::Result<TcpListener>> {
    has_sctp().then(|| listen(at, Protocol::SCTP))
}

/// Whether the kernel has SCTP sockets.
pub(crate) fn has_sctp() -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::SCTP)).is_ok()
}

/// An IPv6 socket is for IPv6 alone: the other family has one of its own.
fn bound(at: SocketAddr, protocol: Protocol) -> std::io::Result<Socket> {
    let kind = match protocol {
        Protocol::UDP => Type::DGRAM,
        _ => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(at), kind, Some(protocol))?;
    if at.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&at.into())?;
    Ok(socket)
}

/// Echoes what comes, until told to stop.
fn serve(streams: &[TcpListener], udp: &[UdpSocket], stop: &AtomicBool) {
    let mut open: Vec<TcpStream> = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        for listener in streams {
            while let Ok((stream, _)) = listener.accept() {
                stream.set_nonblocking(true).unwrap();
                open.push(stream);
            }
        }
        open.retain_mut(|stream| match stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(n) => stream.write_all(&buffer[..n]).is_ok(),
            Err(error) => error.kind() == ErrorKind::WouldBlock,
        });
        for socket in udp {
            while let Ok((n, from)) = socket.recv_from(&mut buffer) {
                let _ = socket.send_to(&buffer[..n], from);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

impl Place {
    /// The unspecified addresses of its families.
    fn any(&self) -> Vec<IpAddr> {
        let families = [
            (true, IpAddr::from(Ipv4Addr::UNSPECIFIED)),
            (false, Ipv6Addr::UNSPECIFIED.into()),
        ];
        let has = |v4| self.addresses.iter().any(|one| one.is_ipv4() == v4);
        let any = families.into_iter().filter(|(v4, _)| has(*v4));
        any.map(|(_, any)| any).collect()
    }

    /// Tries a connection from here, with patience if it is to be open.
    pub(crate) fn reach(&self, kind: Kind, server: SocketAddr, open: bool) -> Reach {
        let patience = if open { PATIENCE } else { BRIEF };
        match kind {
            Kind::Tcp => {
                // Sockets stay in the namespace that they were made in.
                let tried = self
                    .netns
                    .run(|| TcpStream::connect_timeout(&server, patience));
                match tried.expect("the namespace") {
                    Ok(_) => Reach::Open,
                    Err(error) => said(&error),
                }
            }
            Kind::Sctp => match self.associate(server, patience) {
                Ok(_) => Reach::Open,
                Err(error) => said(&error),
            },
            Kind::Udp => self.ask(server, patience),
        }
    }

    /// Begins an association.
    pub(crate) fn associate(
        &self,
        server: SocketAddr,
        patience: Duration,
    ) -> std::io::Result<TcpStream> {
        let domain = Domain::for_address(server);
        let made = self
            .netns
            .run(|| Socket::new(domain, Type::STREAM, Some(Protocol::SCTP)));
        let socket = made.expect("the namespace")?;
        socket.connect_timeout(&server.into(), patience)?;
        Ok(socket.into())
    }

    fn ask(&self, server: SocketAddr, patience: Duration) -> Reach {
        let any: IpAddr = match server.is_ipv4() {
            true => Ipv4Addr::UNSPECIFIED.into(),
            false => Ipv6Addr::UNSPECIFIED.into(),
        };
        let bound = self.netns.run(|| UdpSocket::bind((any, 0)));
        let socket = bound.expect("the namespace").expect("a socket");
        socket.connect(server).expect("a way");
        socket.set_read_timeout(Some(AGAIN)).unwrap();
        let start = Instant::now();
        while start.elapsed() < patience {
            let sent = socket.send(b"?");
            let answered = sent.and_then(|_| socket.recv(&mut [0; 8]));
            match answered {
                Ok(_) => return Reach::Open,
                Err(error) if said(&error) == Reach::Refused => return Reach::Refused,
                Err(_) => {}
            }
        }
        Reach::Silent
    }
}

/// What an error says.
fn said(error: &std::io::Error) -> Reach {
    match error.kind() {
        ErrorKind::TimedOut | ErrorKind::WouldBlock => Reach::Silent,
        _ => Reach::Refused,
    }
}

/// Tries everything from each place to each, on each port, by its own address.
/// `open` says what is to be open.
pub(crate) fn matrix(
    clients: &[&Place],
    servers: &[&Place],
    ports: &[u16],
    kinds: &[Kind],
    open: &(impl Fn(&Probe) -> bool + Sync),
) -> Vec<(Probe, Reach)> {
    std::thread::scope(|scope| {
        let rows = clients.iter().map(|client| {
            scope.spawn(move || {
                let mut found = Vec::new();
                for probe in probes(client, servers, ports, kinds) {
                    let reach = client.reach(probe.kind, probe.server, open(&probe));
                    found.push((probe, reach));
                }
                found
            })
        });
        let rows: Vec<_> = rows.collect();
        rows.into_iter()
            .flat_map(|row| row.join().expect("a prober"))
            .collect()
    })
}

fn probes<'a>(
    client: &'a Place,
    servers: &'a [&Place],
    ports: &'a [u16],
    kinds: &'a [Kind],
) -> impl Iterator<Item = Probe> + 'a {
    servers.iter().flat_map(move |server| {
        client.addresses.iter().flat_map(move |from| {
            let like = server.addresses.iter();
            let like = like.filter(move |to| to.is_ipv4() == from.is_ipv4());
            like.flat_map(move |to| {
                ports.iter().flat_map(move |port| {
                    kinds.iter().map(move |kind| Probe {
                        kind: *kind,
                        client: *from,
                        server: SocketAddr::new(*to, *port),
                    })
                })
            })
        })
    })
}
