use std::io;

use netlink_packet_core::NLM_F_ACK;
use netlink_sys::{
    Socket, SocketAddr,
    protocols::{NETLINK_NETFILTER, NETLINK_ROUTE},
};

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

use super::attributes::{Message, attributes, messages, text, u32_at};
use super::{Error, Request};
use crate::netns::Netns;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// The acknowledgement does not repeat the request (`NLM_F_CAPPED`).
const CAPPED: u16 = 0x100;
/// The dump was cut by a change of the table (`NLM_F_DUMP_INTR`).
const DUMP_INTERRUPTED: u16 = 0x10;
/// `NLMSGERR_ATTR_MSG`: a sentence about the error.
const ATTRIBUTE_REASON: u16 = 1;
/// The kernel fills at most this much of a datagram with a dump.
const RECEIVE: usize = 32 * 1024;
/// Requests per message to the kernel: all may be refused, and the answers have
/// to fit into the socket's receive buffer (each takes about 800 bytes of 208 KiB).
const AT_ONCE: usize = 128;
/// Times that a list is read again when it changed while it was read.
const DUMP_ATTEMPTS: usize = 8;

/// A netlink socket. It stays in the network namespace in which it was
/// opened, whichever thread uses it.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    received: Vec<u8>,
}

impl Netlink {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub fn new() -> Result<Self, Error> {
        Self::open(NETLINK_ROUTE)
    }

    /// As [`Netlink::new`], for nf_tables and conntrack.
    pub(crate) fn netfilter() -> Result<Self, Error> {
        Self::open(NETLINK_NETFILTER)
    }

    pub(crate) fn open(protocol: isize) -> Result<Self, Error> {
        let failed = |operation| move |source| Error::Socket { operation, source };
        let mut socket = Socket::new(protocol).map_err(failed("open"))?;
        socket.bind_auto().map_err(failed("bind"))?;
        socket
            .connect(&SocketAddr::new(0, 0))
            .map_err(failed("connect"))?;
        // All three are conveniences: kernels before 4.20 lack the last one and
        // send us more than we asked for, which is filtered here as well.
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        Ok(Self {
            socket,
            sequence: 0,
            received: vec![0; RECEIVE],
        })
    }

    /// A socket in `netns`; the calling thread is where it was afterwards.
    ///
    /// # Errors
    /// If the namespace cannot be entered, or as [`Netlink::new`].
    pub fn in_netns(netns: &Netns) -> Result<Self, Error> {
        netns.run(Self::new).map_err(|source| Error::Socket {
            operation: "enter network namespace",
            source,
        })?
    }

    /// Sends all requests at once; the kernel does them in this order. When one
    /// fails, the later ones are tried nevertheless: undo by what you made.
    ///
    /// # Errors
    /// The first request that the kernel refused.
    pub fn execute<R: IntoIterator<Item = Request>>(&mut self, requests: R) -> Result<(), Error> {
        let requests: Vec<Request> = requests.into_iter().collect();
        let mut refused = Ok(());
        for some in requests.chunks(AT_ONCE) {
            match self.exchange(some, |_| {}) {
                Err(error @ Error::Refused { .. }) => refused = refused.and(Err(error)),
                result => result?,
            }
        }
        refused
    }

    /// As [`Netlink::execute`]; `echo` gets what the kernel sends besides
    /// acknowledgements.
    pub(crate) fn exchange(
        &mut self,
        requests: &[Request],
        mut echo: impl FnMut(Message<'_>),
    ) -> Result<(), Error> {
        let Some(last) = requests.len().checked_sub(1) else {
            return Ok(());
        };
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(256 * requests.len());
        for (index, request) in requests.iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let acknowledge = if index == last { NLM_F_ACK } else { 0 };
            request.emit(&mut bytes, self.sequence, acknowledge);
        }
        self.send(&bytes)?;

        let mut refused = None;
        loop {
            let size = self.receive()?;
            for message in messages(&self.received[..size]) {
                // Unsigned distance: what an earlier, failed exchange left in
                // the socket is far away.
                let index = message.sequence.wrapping_sub(first) as usize;
                let Some(request) = requests.get(index) else {
                    continue;
                };
                if message.kind != NLMSG_ERROR {
                    echo(message);
                    continue;
                }
                let ignores = |errno| request.ignores(errno);
                if let Err(error) = outcome(request.operation(), ignores, message)
                    && refused.is_none()
                {
                    refused = Some(error);
                }
                if index == last {
                    return refused.map_or(Ok(()), Err);
                }
            }
        }
    }

    /// Sends a dump request and returns what `read` makes of each object.
    pub(crate) fn dump<T>(
        &mut self,
        request: &Request,
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        let emit = |bytes: &mut Vec<u8>, sequence| request.emit(bytes, sequence, 0);
        self.dump_with(request.operation(), emit, read)
    }

    /// As [`Netlink::dump`], of a request that `emit` writes.
    pub(crate) fn dump_with<T>(
        &mut self,
        operation: &str,
        emit: impl Fn(&mut Vec<u8>, u32),
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Vec<T>, Error> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(found) = self.dump_once(operation, &emit, &read)? {
                return Ok(found);
            }
        }
        Err(Error::Refused {
            operation: operation.to_owned(),
            source: io::Error::from_raw_os_error(libc::EINTR),
            reason: "it changed each time that it was read".to_owned(),
        })
    }

    /// `None` if the table changed meanwhile, so that something may be missing.
    fn dump_once<T>(
        &mut self,
        operation: &str,
        emit: impl Fn(&mut Vec<u8>, u32),
        read: impl Fn(Message<'_>) -> Option<T>,
    ) -> Result<Option<Vec<T>>, Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::with_capacity(256);
        emit(&mut bytes, self.sequence);
        self.send(&bytes)?;
        let mut found = Vec::new();
        let mut whole = true;
        loop {
            let size = self.receive()?;
            for message in messages(&self.received[..size]) {
                if message.sequence != self.sequence {
                    continue;
                }
                whole &= message.flags & DUMP_INTERRUPTED == 0;
                match message.kind {
                    NLMSG_DONE => return Ok(whole.then_some(found)),
                    NLMSG_ERROR => {
                        outcome(operation, |_| false, message)?;
                        return Ok(Some(found));
                    }
                    _ => found.extend(read(message)),
                }
            }
        }
    }

    /// Sequence numbers for `count` messages that are written elsewhere; gives
    /// the first.
    pub(crate) fn sequences(&mut self, count: u32) -> u32 {
        let first = self.sequence.wrapping_add(1);
        self.sequence = self.sequence.wrapping_add(count);
        first
    }

    /// Makes room for datagrams of up to `wanted` bytes to the kernel; gives how
    /// many it may be.
    pub(crate) fn send_buffer(&self, wanted: usize) -> Result<usize, Error> {
        /// Of a datagram, for the kernel's own use of it.
        const OVERHEAD: usize = 1024;
        // Without rights over the machine there is a limit (net.core.wmem_max).
        let _ = setsockopt(&self.socket, sockopt::SndBufForce, &wanted)
            .or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &wanted));
        let size = getsockopt(&self.socket, sockopt::SndBuf).map_err(|errno| Error::Socket {
            operation: "ask for the size of the send buffer",
            source: errno.into(),
        })?;
        Ok(size.saturating_sub(OVERHEAD).min(wanted))
    }

    /// Waits for one datagram.
    pub(crate) fn receive_datagram(&mut self) -> Result<&[u8], Error> {
        let size = self.receive()?;
        Ok(&self.received[..size])
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> Result<(), Error> {
        self.socket
            .send(bytes, 0)
            .map(drop)
            .map_err(|source| Error::Socket {
                operation: "send",
                source,
            })
    }

    /// Waits for one datagram and returns its length.
    fn receive(&mut self) -> Result<usize, Error> {
        loop {
            let mut buffer = &mut self.received[..];
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => {
                    return result.map_err(|source| Error::Socket {
                        operation: "receive",
                        source,
                    });
                }
            }
        }
    }
}

/// What an `NLMSG_ERROR` says of an operation; error number 0 is success.
pub(crate) fn outcome(
    operation: &str,
    ignores: impl Fn(i32) -> bool,
    message: Message<'_>,
) -> Result<(), Error> {
    let malformed = || Error::Malformed {
        operation: operation.to_owned(),
    };
    let number = u32_at(message.payload, 0)
        .ok_or_else(malformed)?
        .cast_signed();
    let errno = number.wrapping_neg();
    if errno == 0 || ignores(errno) {
        return Ok(());
    }
    // After the number: the request's header, the whole request if it is not
    // capped, then attributes.
    let repeated = if message.flags & CAPPED != 0 {
        16
    } else {
        u32_at(message.payload, 4).unwrap_or(16).next_multiple_of(4) as usize
    };
    let reason = message
        .payload
        .get(4 + repeated..)
        .and_then(|rest| attributes(rest).find(|(kind, _)| *kind == ATTRIBUTE_REASON))
        .map(|(_, value)| text(value))
        .unwrap_or_default();
    Err(Error::Refused {
        operation: operation.to_owned(),
        source: io::Error::from_raw_os_error(errno),
        reason,
    })
}
