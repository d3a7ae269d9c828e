//! What the suite and its clients and servers say to each other: lines of JSON.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a server says of itself and of who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Name of the server.
    pub server: String,
    /// The port at which it was asked.
    pub port: u16,
    /// The client as the server sees it.
    pub seen: SocketAddr,
}

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Answered {
        answer: Answer,
        /// The server as the client sees it: `getpeername`, or the source of
        /// the datagram that came back.
        peer: SocketAddr,
    },
    /// `ECONNREFUSED`: a reset to a SYN, or an ICMP error.
    Refused,
    /// An established connection ended without an answer; a connected datagram
    /// socket is connected no more (`EDESTADDRREQ`).
    Reset,
    /// `EHOSTUNREACH`, `ENETUNREACH`.
    Unreachable,
    /// Nothing came for as long as the attempt may take.
    Silent,
    /// Another error.
    Failed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transport {
    Tcp,
    /// One-to-one style (RFC 6458, section 4).
    Sctp,
    /// A datagram socket that is connected: the kernel drops what comes from
    /// other addresses.
    UdpConnected,
    /// A datagram socket that is not: who answers is to be seen.
    UdpUnconnected,
}

/// One attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub transport: Transport,
    pub to: SocketAddr,
    /// Address and port to come from; any of the machine's if absent.
    pub from: Option<IpAddr>,
    pub from_port: Option<u16>,
    /// Bytes that are sent and come back, beside the answer; in one datagram, if
    /// it is datagrams.
    pub bytes: usize,
    /// How long each step may take, milliseconds.
    pub limit_ms: u64,
}

/// What the suite wants of a client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ask {
    /// Connects, asks, closes.
    Once(Attempt),
    /// The same with as many source ports as `count`, from `from_port` on if
    /// there is one, one after the other.
    Many {
        attempt: Attempt,
        count: u16,
    },
    /// As [`Ask::Once`], but the socket is kept under this number.
    Open {
        attempt: Attempt,
        socket: u64,
    },
    /// Asks once more on a kept socket.
    Again {
        socket: u64,
        bytes: usize,
    },
    Close {
        socket: u64,
    },
    /// Serves from now on, in the place where the client is.
    Serve {
        name: String,
        ports: Vec<u16>,
    },
    /// `GET PATH` over HTTP/1.0.
    Http {
        to: SocketAddr,
        path: String,
        limit_ms: u64,
    },
    /// Runs a program of the machine to its end.
    Run {
        command: Vec<String>,
    },
}

/// What a client tells.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    Outcome(Outcome),
    Outcomes(Vec<Outcome>),
    Done,
    Http {
        status: u16,
        body: String,
    },
    Ran {
        code: Option<i32>,
        stdout: String,
        stderr: String,
    },
}

/// A line to a client.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    pub id: u64,
    pub ask: Ask,
}

/// A line from a client; requests are answered as they are done, in any order.
#[derive(Debug, Serialize, Deserialize)]
pub struct Reply {
    pub id: u64,
    pub told: Result<Told, String>,
}
