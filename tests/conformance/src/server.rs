//! The server: says on each port who it is and who asked.
//!
//! Streams: a line with a number and that many bytes are answered by a line of
//! JSON and that many bytes, as often as the client wants. Datagrams: each is
//! answered by one, with the line of JSON in the place of its first line.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::thread;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::signal::unix::{SignalKind, signal};

use crate::wire::Answer;

/// Flags of `ripstop-conformance serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What the server calls itself.
    #[arg(long)]
    name: String,
    /// Ports of streams.
    #[arg(long, value_delimiter = ',')]
    tcp: Vec<u16>,
    /// Ports of datagrams.
    #[arg(long, value_delimiter = ',')]
    udp: Vec<u16>,
    /// Goes on when it is told to end, until it is killed.
    #[arg(long)]
    stubborn: bool,
}

/// Serves until it is told to end.
///
/// # Errors
/// If a port cannot be had.
pub fn run(args: &Args) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        // The first process of a container has no default action for signals.
        let mut end = signal(SignalKind::terminate())?;
        listen(&args.name, &args.tcp, &args.udp)?;
        loop {
            end.recv().await;
            if !args.stubborn {
                return Ok(());
            }
        }
    })
}

/// Serves in threads of its own from now on.
///
/// # Errors
/// If a port cannot be had.
pub fn listen(name: &str, tcp: &[u16], udp: &[u16]) -> Result<()> {
    for address in addresses() {
        for port in tcp {
            let port = *port;
            accept(name, Protocol::TCP, SocketAddr::new(address, port))
                .with_context(|| format!("{address} port {port}/TCP"))?;
            // Where the kernel has it.
            match accept(name, Protocol::SCTP, SocketAddr::new(address, port)) {
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) if error.raw_os_error() == Some(libc::EPROTONOSUPPORT) => {}
                other => other.with_context(|| format!("{address} port {port}/SCTP"))?,
            }
        }
        for port in udp {
            echo(name, SocketAddr::new(address, *port))
                .with_context(|| format!("{address} port {port}/UDP"))?;
        }
    }
    Ok(())
}

/// Wildcards of the families that this machine has.
fn addresses() -> Vec<IpAddr> {
    let v6 = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    let v6 = v6.then_some(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED)]
        .into_iter()
        .chain(v6)
        .collect()
}

fn bound(protocol: Protocol, address: SocketAddr) -> io::Result<Socket> {
    let kind = match protocol {
        Protocol::UDP => Type::DGRAM,
        _ => Type::STREAM,
    };
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    if protocol != Protocol::UDP {
        socket.set_reuse_address(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn accept(name: &str, protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    let listener = bound(protocol, address)?;
    listener.listen(1024)?;
    let name = name.to_owned();
    thread::spawn(move || {
        while let Ok((socket, client)) = listener.accept() {
            let Some(seen) = client.as_socket() else {
                continue;
            };
            let answer = Answer {
                server: name.clone(),
                port: address.port(),
                seen,
            };
            // The client sees what goes wrong.
            thread::spawn(move || converse(socket, &answer));
        }
    });
    Ok(())
}

fn converse(socket: Socket, answer: &Answer) -> io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 0 {
        let bytes = line.trim().parse().map_err(io::Error::other)?;
        let mut message = vec![0; bytes];
        reader.read_exact(&mut message)?;
        let mut text = serde_json::to_vec(answer)?;
        text.push(b'\n');
        text.extend(message);
        (&socket).write_all(&text)?;
        line.clear();
    }
    Ok(())
}

/// Answers come from the address that was asked, on machines with several.
fn echo(name: &str, address: SocketAddr) -> io::Result<()> {
    let socket = bound(Protocol::UDP, address)?;
    match address {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?,
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?,
    }
    let (name, port) = (name.to_owned(), address.port());
    thread::spawn(move || {
        let mut question = vec![0; 0x1_0000];
        loop {
            // An error is an ICMP message to an earlier answer.
            let Ok((length, seen, asked)) = receive(&socket, &mut question) else {
                continue;
            };
            let answer = Answer {
                server: name.clone(),
                port,
                seen,
            };
            if let Ok(mut text) = serde_json::to_vec(&answer) {
                let question = &question[..length];
                let first_line = question.iter().position(|byte| *byte == b'\n');
                text.extend(&question[first_line.unwrap_or(length)..]);
                let _ = send(&socket, &text, seen, &asked);
            }
        }
    });
    Ok(())
}

/// How many bytes were asked, by whom and at which address.
fn receive(
    socket: &Socket,
    question: &mut [u8],
) -> nix::Result<(usize, SocketAddr, ControlMessageOwned)> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo);
    let mut parts = [io::IoSliceMut::new(question)];
    let message = recvmsg::<SockaddrStorage>(
        socket.as_raw_fd(),
        &mut parts,
        Some(&mut space),
        MsgFlags::empty(),
    )?;
    let address = message.address.ok_or(Errno::EINVAL)?;
    let seen = match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
        (Some(v4), _) => SocketAddr::V4((*v4).into()),
        (_, Some(v6)) => SocketAddr::V6((*v6).into()),
        _ => return Err(Errno::EAFNOSUPPORT),
    };
    let asked = message.cmsgs()?.next().ok_or(Errno::EINVAL)?;
    Ok((message.bytes, seen, asked))
}

fn send(
    socket: &Socket,
    text: &[u8],
    to: SocketAddr,
    from: &ControlMessageOwned,
) -> nix::Result<()> {
    let parts = [io::IoSlice::new(text)];
    let to = SockaddrStorage::from(to);
    // Whichever interface the route says.
    let (mut v4, mut v6);
    let from = match from {
        ControlMessageOwned::Ipv4PacketInfo(info) => {
            v4 = *info;
            v4.ipi_ifindex = 0;
            // What the kernel takes as source.
            v4.ipi_spec_dst = v4.ipi_addr;
            ControlMessage::Ipv4PacketInfo(&v4)
        }
        ControlMessageOwned::Ipv6PacketInfo(info) => {
            v6 = *info;
            v6.ipi6_ifindex = 0;
            ControlMessage::Ipv6PacketInfo(&v6)
        }
        _ => return Err(Errno::EINVAL),
    };
    let flags = MsgFlags::empty();
    sendmsg(socket.as_raw_fd(), &parts, &[from], flags, Some(&to)).map(drop)
}
