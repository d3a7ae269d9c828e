//! What an outcome should have been.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};

use crate::wire::{Answer, Outcome};

/// An answer, and from whom the client thinks that it is.
#[derive(Clone, Debug)]
pub struct Answered {
    pub answer: Answer,
    pub peer: SocketAddr,
}

impl Outcome {
    /// # Errors
    /// If nobody answered.
    pub fn answered(self) -> Result<Answered> {
        match self {
            Self::Answered { answer, peer } => Ok(Answered { answer, peer }),
            other => bail!("{other:?} instead of an answer"),
        }
    }

    /// # Errors
    /// If it was not refused.
    pub fn refused(self) -> Result<()> {
        ensure!(self == Self::Refused, "{self:?} instead of a refusal");
        Ok(())
    }

    /// # Errors
    /// If it ended in any other way than without an answer or an error.
    pub fn silent(self) -> Result<()> {
        ensure!(self == Self::Silent, "{self:?} instead of silence");
        Ok(())
    }

    /// # Errors
    /// If somebody answered.
    pub fn unanswered(self) -> Result<()> {
        ensure!(
            !matches!(self, Self::Answered { .. }),
            "{self:?} although there should be nobody"
        );
        Ok(())
    }
}

impl Answered {
    /// # Errors
    /// If it is another server's.
    pub fn by(self, server: &str) -> Result<Self> {
        ensure!(
            self.answer.server == server,
            "{} answered instead of {server}",
            self.answer.server
        );
        Ok(self)
    }

    /// # Errors
    /// If it is another server's.
    pub fn by_one_of(self, servers: &[&str]) -> Result<Self> {
        ensure!(
            servers.contains(&self.answer.server.as_str()),
            "{} answered instead of one of {servers:?}",
            self.answer.server
        );
        Ok(self)
    }

    /// # Errors
    /// If it was asked at another port.
    pub fn at(self, port: u16) -> Result<Self> {
        ensure!(
            self.answer.port == port,
            "{} was asked at port {} instead of {port}",
            self.answer.server,
            self.answer.port
        );
        Ok(self)
    }

    /// # Errors
    /// If the client sees another address than the one that it asked.
    pub fn from(self, peer: SocketAddr) -> Result<Self> {
        ensure!(
            self.peer == peer,
            "the answer seems to be from {} instead of {peer}",
            self.peer
        );
        Ok(self)
    }

    /// # Errors
    /// If the server sees another client.
    pub fn seen_as(self, client: IpAddr) -> Result<Self> {
        self.seen_as_one_of(&[client])
    }

    /// # Errors
    /// If the server sees another client.
    pub fn seen_as_one_of(self, clients: &[IpAddr]) -> Result<Self> {
        let seen = self.answer.seen.ip().to_canonical();
        ensure!(
            clients.contains(&seen),
            "{} sees the client as {seen} instead of {clients:?}",
            self.answer.server
        );
        Ok(self)
    }
}
