//! Asking a server, once or again and again on one socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use socket2::{SockAddr, Socket};

use super::socket;
use crate::wire::{Answer, Attempt, Outcome, Transport};

/// The longest answer to a datagram (RFC 768).
const MAX_DATAGRAM: usize = 0x1_0000;

/// A socket on which a server can be asked.
#[derive(Debug)]
pub(super) enum Asking {
    Stream(BufReader<Socket>),
    Datagram {
        socket: UdpSocket,
        /// Whom to send to; nobody if the socket is connected.
        to: Option<SocketAddr>,
    },
}

/// Connects, asks, closes.
pub(super) fn once(attempt: &Attempt) -> Outcome {
    Asking::begin(attempt).0
}

/// One attempt after the other.
pub(super) fn many(attempt: &Attempt, count: u16) -> Vec<Outcome> {
    let port = |index| attempt.from_port.map(|first| first.wrapping_add(index));
    (0..count)
        .map(|index| {
            once(&Attempt {
                from_port: port(index),
                ..*attempt
            })
        })
        .collect()
}

impl Asking {
    /// Makes the socket and asks for the first time. The socket stays if it is
    /// worth asking again: datagram sockets always.
    pub(super) fn begin(attempt: &Attempt) -> (Outcome, Option<Self>) {
        let mut asking = match Self::connect(attempt) {
            Ok(asking) => asking,
            Err(error) => return (socket::outcome(&error, false), None),
        };
        let outcome = asking.again(attempt.bytes);
        (outcome, Some(asking))
    }

    fn connect(attempt: &Attempt) -> io::Result<Self> {
        let socket = socket::make(attempt)?;
        Ok(match attempt.transport {
            Transport::Tcp => {
                let limit = Duration::from_millis(attempt.limit_ms);
                socket.connect_timeout(&attempt.to.into(), limit)?;
                Self::Stream(BufReader::new(socket))
            }
            Transport::Sctp => {
                socket.connect(&attempt.to.into())?;
                Self::Stream(BufReader::new(socket))
            }
            Transport::UdpConnected => {
                socket.connect(&attempt.to.into())?;
                Self::Datagram {
                    socket: socket.into(),
                    to: None,
                }
            }
            Transport::UdpUnconnected => Self::Datagram {
                socket: socket.into(),
                to: Some(attempt.to),
            },
        })
    }

    /// Asks on the socket.
    pub(super) fn again(&mut self, bytes: usize) -> Outcome {
        let (result, established) = match self {
            Self::Stream(stream) => (ask_stream(stream, bytes), true),
            Self::Datagram { socket, to } => (ask_datagram(socket, *to, bytes), false),
        };
        match result {
            Ok((answer, peer)) => Outcome::Answered { answer, peer },
            Err(error) => socket::outcome(&error, established),
        }
    }
}

/// A line with the number of bytes, and those; back come the answer and as many.
fn ask_stream(stream: &mut BufReader<Socket>, bytes: usize) -> io::Result<(Answer, SocketAddr)> {
    let socket = stream.get_ref().try_clone()?;
    let sending = std::thread::spawn(move || {
        let mut message = format!("{bytes}\n").into_bytes();
        message.resize(message.len() + bytes, b'.');
        (&socket).write_all(&message)
    });
    let mut line = String::new();
    let read = stream.read_line(&mut line);
    let sent = sending.join().map_err(|_| io::ErrorKind::Other)?;
    if read? == 0 {
        sent?;
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut back = vec![0; bytes];
    stream.read_exact(&mut back)?;
    let peer = stream.get_ref().peer_addr()?;
    Ok((serde_json::from_str(&line)?, inet(&peer)?))
}

/// That many bytes in one datagram; back come the answer and as many, likewise.
fn ask_datagram(
    socket: &UdpSocket,
    to: Option<SocketAddr>,
    bytes: usize,
) -> io::Result<(Answer, SocketAddr)> {
    let mut question = b"?\n".to_vec();
    question.resize(question.len() + bytes, b'.');
    match to {
        Some(to) => socket.send_to(&question, to)?,
        None => socket.send(&question)?,
    };
    let mut buffer = vec![0; MAX_DATAGRAM];
    let (length, source) = loop {
        match socket.recv_from(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => break received?,
        }
    };
    let peer = match to {
        Some(_) => source,
        None => socket.peer_addr()?,
    };
    let mut parts = buffer[..length].splitn(2, |byte| *byte == b'\n');
    let (answer, back) = (parts.next(), parts.next());
    if back.map(<[u8]>::len) != Some(bytes) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok((serde_json::from_slice(answer.unwrap_or_default())?, peer))
}

fn inet(address: &SockAddr) -> io::Result<SocketAddr> {
    let address = address.as_socket();
    address.ok_or_else(|| io::Error::other("neither IPv4 nor IPv6"))
}
