//! A process in a pod: this test program again, told what to do line by line.
//! A process of its own because the kernel counts sockets to the cgroup of the
//! process that makes them.

use std::fmt::Display;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{
    IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket,
};
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ripstop_netlink::netns::Netns;
use socket2::{Domain, Socket, Type};

const CGROUP: &str = "RIPSTOP_TEST_CGROUP";
const NAME: &str = "RIPSTOP_TEST_NAME";
/// Longer than anything takes, so that a hang is a failure.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running one, ended when dropped.
pub(crate) struct Process {
    child: Child,
    lines: BufReader<UnixStream>,
}

impl Process {
    pub(crate) fn start(name: &str, netns: &Netns, cgroup: &Path) -> Self {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(2 * PATIENCE)).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "common::process::process_in_a_pod",
                "--exact",
                "--nocapture",
            ])
            .env(CGROUP, cgroup)
            .env(NAME, name)
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null());
        // A child is born where its parent's thread is.
        let child = netns.run(|| command.spawn()).unwrap().unwrap();
        let mut process = Self {
            child,
            lines: BufReader::new(ours),
        };
        assert_eq!(process.ask("hello"), "hello");
        process
    }

    /// One line there and one back.
    fn ask(&mut self, line: impl Display) -> String {
        writeln!(self.lines.get_mut(), "{line}").unwrap();
        let mut answer = String::new();
        self.lines
            .read_line(&mut answer)
            .unwrap_or_else(|error| panic!("{line}: {error}"));
        answer.trim_end().to_owned()
    }

    /// Answers on this port, TCP and UDP: its name and who asks.
    pub(crate) fn serve(&mut self, port: u16) {
        assert_eq!(self.ask(format_args!("serve {port}")), "ok");
    }

    /// Connects; gives what the server says and `getpeername`, or the error.
    pub(crate) fn tcp(&mut self, to: impl Display) -> String {
        self.ask(format_args!("tcp {to}"))
    }

    /// Whether nobody answers a connection: neither yes nor no.
    pub(crate) fn is_dropped(&mut self, to: impl Display) -> bool {
        self.ask(format_args!("drop {to}")) == "error: TimedOut"
    }

    /// Whether nobody answers a datagram.
    pub(crate) fn is_silent(&mut self, to: impl Display) -> bool {
        self.ask(format_args!("dropu {to}")) == "error: WouldBlock"
    }

    /// Whether nobody answers a datagram that is sent from this address.
    pub(crate) fn is_silent_from(&mut self, from: IpAddr, to: impl Display) -> bool {
        self.ask(format_args!("dropf {to} {from}")) == "error: WouldBlock"
    }

    /// Sends from an unconnected socket; gives the answer and its sender.
    pub(crate) fn udp(&mut self, to: impl Display) -> String {
        self.ask(format_args!("udp {to}"))
    }

    /// Sends from a connected socket; gives the answer, its sender and
    /// `getpeername`.
    pub(crate) fn udp_connected(&mut self, to: impl Display) -> String {
        self.ask(format_args!("udpc {to}"))
    }

    /// Sends three datagrams from one unconnected socket; gives who answered.
    pub(crate) fn udp_thrice(&mut self, to: impl Display) -> String {
        self.ask(format_args!("udp3 {to}"))
    }

    /// Sends a datagram to each of so many ports, and waits for nothing.
    pub(crate) fn flood(&mut self, to: IpAddr, ports: u16) {
        assert_eq!(self.ask(format_args!("flood {to} {ports}")), "ok");
    }

    /// Connects and keeps the connection.
    pub(crate) fn hold(&mut self, to: impl Display) -> String {
        self.ask(format_args!("hold {to}"))
    }

    /// The sockets that are made from here on send from this port; 0 is any. Several
    /// may, to different places.
    pub(crate) fn send_from(&mut self, port: u16) {
        assert_eq!(self.ask(format_args!("from {port}")), "ok");
    }

    /// Sends over the kept connection; gives what comes back.
    pub(crate) fn held(&mut self) -> String {
        self.ask("held")
    }

    /// As [`Process::udp_connected`], and keeps the socket; gives the answer.
    pub(crate) fn hold_udp(&mut self, to: impl Display) -> String {
        self.ask(format_args!("holdu {to}"))
    }

    /// Sends from the kept socket; gives the answer.
    pub(crate) fn held_udp(&mut self) -> String {
        self.ask("heldu")
    }

    /// Sends that many bytes and gets them back; gives their number.
    pub(crate) fn bulk(&mut self, to: impl Display, bytes: usize) -> String {
        self.ask(format_args!("bulk {to} {bytes}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a process does. A test only in name: without a line from
/// [`Process::start`] it does nothing.
#[test]
fn process_in_a_pod() {
    let Some(cgroup) = std::env::var_os(CGROUP) else {
        return;
    };
    let procs = Path::new(&cgroup).join("cgroup.procs");
    std::fs::write(procs, std::process::id().to_string()).unwrap();
    let stdin = io::stdin().as_fd().try_clone_to_owned().unwrap();
    let mut stream = UnixStream::from(stdin);
    let mut held = Held::default();
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let answer = act(&words, &mut held);
        let answer = answer.unwrap_or_else(|error| match error.raw_os_error() {
            Some(nix::libc::EDESTADDRREQ) => "error: disconnected".into(),
            _ => format!("error: {:?}", error.kind()),
        });
        writeln!(stream, "{answer}").unwrap();
    }
}

/// What is kept from one line to the next.
#[derive(Default)]
struct Held {
    stream: Option<TcpStream>,
    socket: Option<UdpSocket>,
    /// From which sockets send.
    port: u16,
}

fn act(words: &[&str], held: &mut Held) -> io::Result<String> {
    let to = || words[1].parse::<SocketAddr>().unwrap();
    let port = held.port;
    Ok(match words[0] {
        "from" => {
            held.port = words[1].parse().unwrap();
            "ok".into()
        }
        "serve" => {
            serve(words[1].parse().unwrap())?;
            "ok".into()
        }
        "tcp" => {
            let mut stream = connect(to(), port)?;
            let peer = stream.peer_addr()?;
            stream.shutdown(Shutdown::Write)?;
            let mut says = String::new();
            stream.read_to_string(&mut says)?;
            format!("{says} peer {peer}")
        }
        "drop" => {
            // A second try comes after one second.
            TcpStream::connect_timeout(&to(), Duration::from_secs(3))?;
            "connected".into()
        }
        "dropu" => {
            let socket = udp(to(), port)?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            exchange(&socket, Some(to()))?.0
        }
        "dropf" => {
            let from: IpAddr = words[2].parse().unwrap();
            let socket = UdpSocket::bind((from, 0))?;
            socket.set_read_timeout(Some(Duration::from_secs(1)))?;
            exchange(&socket, Some(to()))?.0
        }
        "udp" => {
            let (says, from) = exchange(&udp(to(), port)?, Some(to()))?;
            format!("{says} from {from}")
        }
        "udp3" => {
            let socket = udp(to(), port)?;
            let say = || io::Result::Ok(exchange(&socket, Some(to()))?.0);
            [say()?, say()?, say()?].join(" ")
        }
        "udpc" => {
            let socket = udp(to(), port)?;
            socket.connect(to())?;
            let (says, from) = exchange(&socket, None)?;
            format!("{says} from {from} peer {}", socket.peer_addr()?)
        }
        "flood" => {
            let to: IpAddr = words[1].parse().unwrap();
            let socket = udp(SocketAddr::new(to, 1), 0)?;
            for port in 1..=words[2].parse().unwrap() {
                // What is refused meanwhile is an error of a later one.
                let _ = socket.send_to(b"x", SocketAddr::new(to, port));
            }
            "ok".into()
        }
        "hold" => {
            let stream = held.stream.insert(connect(to(), port)?);
            stream.peer_addr()?.to_string()
        }
        "held" => {
            let stream = held.stream.as_mut().expect("a connection is held");
            stream.write_all(b"x")?;
            let mut back = [0];
            stream.read_exact(&mut back)?;
            "still there".into()
        }
        "holdu" => {
            let socket = held.socket.insert(udp(to(), port)?);
            socket.connect(to())?;
            exchange(socket, None)?.0
        }
        "heldu" => {
            let socket = held.socket.as_ref().expect("a socket is held");
            exchange(socket, None)?.0
        }
        "bulk" => bulk(to(), words[2].parse().unwrap())?.to_string(),
        other => other.into(),
    })
}

fn connect(to: SocketAddr, port: u16) -> io::Result<TcpStream> {
    let socket = bound(to, Type::STREAM, port)?;
    socket.connect_timeout(&to.into(), PATIENCE)?;
    Ok(socket.into())
}

fn udp(to: SocketAddr, port: u16) -> io::Result<UdpSocket> {
    Ok(bound(to, Type::DGRAM, port)?.into())
}

/// A socket of that port, which others may have, too.
fn bound(to: SocketAddr, kind: Type, port: u16) -> io::Result<Socket> {
    let any: IpAddr = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = Socket::new(Domain::for_address(to), kind, None)?;
    if port != 0 {
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::new(any, port).into())?;
    }
    socket.set_read_timeout(Some(PATIENCE))?;
    Ok(socket)
}

fn exchange(socket: &UdpSocket, to: Option<SocketAddr>) -> io::Result<(String, SocketAddr)> {
    match to {
        Some(to) => socket.send_to(b"x", to)?,
        None => socket.send(b"x")?,
    };
    let mut answer = [0; 256];
    let (len, from) = socket.recv_from(&mut answer)?;
    Ok((String::from_utf8_lossy(&answer[..len]).into_owned(), from))
}

/// Writes and reads at once: more than the buffers hold.
fn bulk(to: SocketAddr, bytes: usize) -> io::Result<usize> {
    let mut stream = connect(to, 0)?;
    let mut back = stream.try_clone()?;
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        back.read_to_end(&mut all).map(|_| all)
    });
    let data: Vec<u8> = (0..bytes).map(|i| (i % 251) as u8).collect();
    stream.write_all(&data)?;
    stream.shutdown(Shutdown::Write)?;
    let all = reader.join().unwrap()?;
    if all != data {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(all.len())
}

/// TCP: who it is and who asks at the end of the request if that was empty, else
/// the request back. UDP: who it is and who asks.
fn serve(port: u16) -> io::Result<()> {
    let name = std::env::var(NAME).unwrap();
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let named = name.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let named = named.clone();
            std::thread::spawn(move || answer(stream.unwrap(), &named));
        }
    });
    std::thread::spawn(move || {
        let mut request = [0; 2048];
        while let Ok((_, from)) = socket.recv_from(&mut request) {
            let _ = socket.send_to(format!("{name} sees {}", plain(from)).as_bytes(), from);
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str) -> io::Result<()> {
    let mut buffer = [0; 65536];
    let mut empty = true;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            len => stream.write_all(&buffer[..len])?,
        }
        empty = false;
    }
    if empty {
        write!(stream, "{name} sees {}", plain(stream.peer_addr()?))?;
    }
    Ok(())
}

/// Address without port, and IPv4 as such.
fn plain(address: SocketAddr) -> IpAddr {
    address.ip().to_canonical()
}
