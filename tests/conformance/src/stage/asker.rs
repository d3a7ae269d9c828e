//! Connections from one place.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};

use crate::cluster::eventually;
use crate::place::Client;
use crate::wire::{Ask, Attempt, Outcome, Told, Transport};

/// How long something that should work may take; no measurement.
const LIMIT_MS: u64 = 5_000;
/// How long to wait for what should not come.
const SILENCE_MS: u64 = 1_000;

/// The client of a place. The methods ask for one outcome each.
#[derive(Clone, Debug)]
pub struct Asker {
    client: Arc<Client>,
    from: Option<IpAddr>,
    from_port: Option<u16>,
    limit_ms: u64,
}

impl Asker {
    pub fn new(client: Arc<Client>) -> Self {
        Self {
            client,
            from: None,
            from_port: None,
            limit_ms: LIMIT_MS,
        }
    }

    /// The same from this address.
    pub fn from(&self, address: IpAddr) -> Self {
        Self {
            from: Some(address),
            ..self.clone()
        }
    }

    /// The same from this port.
    pub fn from_port(&self, port: u16) -> Self {
        Self {
            from_port: Some(port),
            ..self.clone()
        }
    }

    /// The same for attempts that should get no answer at all.
    pub fn expecting_silence(&self) -> Self {
        Self {
            limit_ms: SILENCE_MS,
            ..self.clone()
        }
    }

    fn attempt(&self, transport: Transport, to: SocketAddr, bytes: usize) -> Attempt {
        Attempt {
            transport,
            to,
            from: self.from,
            from_port: self.from_port,
            bytes,
            limit_ms: self.limit_ms,
        }
    }

    /// # Errors
    /// If the client is no more.
    pub fn once(&self, transport: Transport, to: SocketAddr) -> Result<Outcome> {
        self.bulk(transport, to, 0)
    }

    /// # Errors
    /// If the client is no more.
    pub fn tcp(&self, to: SocketAddr) -> Result<Outcome> {
        self.once(Transport::Tcp, to)
    }

    /// A datagram from a socket that is not connected.
    ///
    /// # Errors
    /// If the client is no more.
    pub fn udp(&self, to: SocketAddr) -> Result<Outcome> {
        self.once(Transport::UdpUnconnected, to)
    }

    /// With so many bytes there and back.
    ///
    /// # Errors
    /// If the client is no more.
    pub fn bulk(&self, transport: Transport, to: SocketAddr, bytes: usize) -> Result<Outcome> {
        match self
            .client
            .ask(Ask::Once(self.attempt(transport, to, bytes)))?
        {
            Told::Outcome(outcome) => Ok(outcome),
            other => bail!("{other:?}"),
        }
    }

    /// So many connections, one after the other.
    ///
    /// # Errors
    /// If the client is no more.
    pub fn many(&self, transport: Transport, to: SocketAddr, count: u16) -> Result<Vec<Outcome>> {
        let attempt = self.attempt(transport, to, 0);
        match self.client.ask(Ask::Many { attempt, count })? {
            Told::Outcomes(outcomes) => Ok(outcomes),
            other => bail!("{other:?}"),
        }
    }

    /// Who answered so many connections.
    ///
    /// # Errors
    /// If one of them was not answered.
    pub fn answerers(
        &self,
        transport: Transport,
        to: SocketAddr,
        count: u16,
    ) -> Result<Vec<String>> {
        let outcomes = self.many(transport, to, count)?.into_iter();
        let outcomes = outcomes.enumerate();
        outcomes
            .map(|(index, outcome)| {
                let answered = outcome.answered();
                let answered = answered.with_context(|| format!("connection {}", index + 1))?;
                Ok(answered.answer.server)
            })
            .collect()
    }

    /// A socket that stays, and the outcome of its first question.
    ///
    /// # Errors
    /// If the client is no more.
    pub fn open(&self, transport: Transport, to: SocketAddr) -> Result<(Socket, Outcome)> {
        let socket = Socket {
            client: Arc::clone(&self.client),
            number: self.client.number(),
        };
        let attempt = self.attempt(transport, to, 0);
        let ask = Ask::Open {
            attempt,
            socket: socket.number,
        };
        match self.client.ask(ask)? {
            Told::Outcome(outcome) => Ok((socket, outcome)),
            other => bail!("{other:?}"),
        }
    }

    /// Status and body of `GET`.
    ///
    /// # Errors
    /// If there is no answer.
    pub fn http(&self, to: SocketAddr, path: &str) -> Result<(u16, String)> {
        let ask = Ask::Http {
            to,
            path: path.to_owned(),
            limit_ms: self.limit_ms,
        };
        match self.client.ask(ask)? {
            Told::Http { status, body } => Ok((status, body)),
            other => bail!("{other:?}"),
        }
    }

    /// What a program prints there.
    ///
    /// # Errors
    /// If it fails.
    pub fn run(&self, command: &[&str]) -> Result<String> {
        let ask = Ask::Run {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
        };
        match self.client.ask(ask)? {
            Told::Ran {
                code: Some(0),
                stdout,
                ..
            } => Ok(stdout),
            Told::Ran { stdout, stderr, .. } => bail!("{command:?}: {stdout}{stderr}"),
            other => bail!("{other:?}"),
        }
    }
}

/// Waits until attempts are refused. Datagrams more than once: kernels limit how
/// many ICMP errors they send to one address (`icmp_ratelimit`).
///
/// # Errors
/// If they are not.
pub fn refused(client: &Asker, transport: Transport, to: SocketAddr) -> Result<()> {
    let client = match transport {
        Transport::Tcp | Transport::Sctp => client.clone(),
        // Asked again soon.
        Transport::UdpConnected | Transport::UdpUnconnected => client.expecting_silence(),
    };
    eventually("a refusal", || client.once(transport, to)?.refused())
        .with_context(|| format!("{transport:?} to {to}"))
}

/// A socket that stays. Dropped, it is closed.
#[derive(Debug)]
pub struct Socket {
    client: Arc<Client>,
    number: u64,
}

impl Socket {
    /// Asks once more.
    ///
    /// # Errors
    /// If the client is no more.
    pub fn again(&self) -> Result<Outcome> {
        let ask = Ask::Again {
            socket: self.number,
            bytes: 0,
        };
        match self.client.ask(ask)? {
            Told::Outcome(outcome) => Ok(outcome),
            other => bail!("{other:?}"),
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The client may be no more.
        let _ = self.client.ask(Ask::Close {
            socket: self.number,
        });
    }
}
