//! The kernel's table of connections (net/netfilter/nf_conntrack_netlink.c).

use std::net::{IpAddr, SocketAddr};

use crate::attributes::{attributes, messages};
use crate::write::Attributes;
use crate::{Error, Netlink};

/// `NFNL_SUBSYS_CTNETLINK`, and its `IPCTNL_MSG_CT_*`.
const NEW: u16 = 1 << 8;
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;
const GET_COUNTERS: u16 = 1 << 8 | 4;
const GET_SIZE: u16 = 1 << 8 | 5;
const REQUEST: u16 = 0x1;
const ACKNOWLEDGE: u16 = 0x4;
const CREATE: u16 = 0x400 | 0x200;
const DUMP: u16 = 0x300;
const NLMSG_ERROR: u16 = 2;
/// `enum ctattr_type`.
const ORIGINAL: u16 = 1;
const REPLY: u16 = 2;
const STATUS: u16 = 3;
const PROTOCOL_STATE: u16 = 4;
const SOURCE_NAT: u16 = 6;
const TIMEOUT: u16 = 7;
const DESTINATION_NAT: u16 = 13;
/// `IPS_*`.
const SEEN_REPLY: u32 = 1 << 1;
const ASSURED: u32 = 1 << 2;
const CONFIRMED: u32 = 1 << 3;
const TCP: u8 = 6;
/// `TCP_CONNTRACK_FIN_WAIT`; after it come those in which a side has closed.
const FIN_WAIT: u8 = 4;
/// `TCP_CONNTRACK_TIME_WAIT`; after it comes `TCP_CONNTRACK_CLOSE`.
const TIME_WAIT: u8 = 7;
/// `TCP_CONNTRACK_ESTABLISHED`.
const ESTABLISHED: u8 = 3;
/// `IP_CT_TCP_FLAG_BE_LIBERAL` as flag and mask: the windows of a connection
/// that began elsewhere are not known.
const LIBERAL: [u8; 2] = [0x8, 0x8];
/// Requests per message to the kernel.
const AT_ONCE: usize = 128;
/// Seconds for which a flow that was handed over may be silent: TCP as
/// nf_conntrack_tcp_timeout_established, others as
/// nf_conntrack_udp_timeout_stream.
const TCP_PATIENCE: u32 = 432_000;
const PATIENCE: u32 = 120;

/// One direction of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// As in the IP header.
    pub protocol: u8,
    pub source: SocketAddr,
    pub destination: SocketAddr,
}

/// A connection: as the packets of who began it come, and as answers come.
/// Without address translation one is the other turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    pub original: Tuple,
    pub reply: Tuple,
    /// TCP of which a side has closed, or both.
    pub is_closing: bool,
    /// TCP that both sides have closed; its number is remembered for a while.
    pub is_over: bool,
}

impl Connection {
    /// Its destination or source is not what who began it sees.
    pub fn is_translated(&self) -> bool {
        self.original.source != self.reply.destination
            || self.original.destination != self.reply.source
    }
}

/// What connection tracking counted in its network namespace, of everybody's
/// packets, since the namespace was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets of new connections for which there was no room.
    pub full: u64,
    /// Packets of new connections that others were quicker than.
    pub clashed: u64,
    /// Connections without an answer yet that were forgotten to make room.
    pub evicted: u64,
}

/// How full the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    pub connections: u64,
    /// Of the network namespace; `None` if the kernel does not say (before 4.18).
    pub limit: Option<u64>,
}

/// A socket for the connections of a network namespace.
#[derive(Debug)]
pub struct Conntrack {
    netlink: Netlink,
}

impl Conntrack {
    /// A socket in the calling thread's network namespace.
    ///
    /// # Errors
    /// If the process has no descriptors left, or the kernel has no netfilter.
    pub fn new() -> Result<Self, Error> {
        Ok(Self {
            netlink: Netlink::netfilter()?,
        })
    }

    /// The connections that carry ports, of both families, that `keep` likes.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn list(&mut self, keep: impl Fn(&Connection) -> bool) -> Result<Vec<Connection>, Error> {
        self.netlink.dump_with(
            "list connections",
            |buffer, sequence| emit(buffer, GET, REQUEST | DUMP, sequence, 0, &[]),
            |message| {
                let connection = read(message.payload, None)?;
                keep(&connection).then_some(connection)
            },
        )
    }

    /// As [`Self::list`], and those without ports: theirs are 0.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn list_all(
        &mut self,
        keep: impl Fn(&Connection) -> bool,
    ) -> Result<Vec<Connection>, Error> {
        self.netlink.dump_with(
            "list connections",
            |buffer, sequence| emit(buffer, GET, REQUEST | DUMP, sequence, 0, &[]),
            |message| {
                let connection = read(message.payload, Some(0))?;
                keep(&connection).then_some(connection)
            },
        )
    }

    /// The sum over all processors.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&mut self) -> Result<Counters, Error> {
        let counted = self.netlink.dump_with(
            "count connections that failed",
            |buffer, sequence| emit(buffer, GET_COUNTERS, REQUEST | DUMP, sequence, 0, &[]),
            |message| Some(read_counters(message.payload)),
        )?;
        Ok(counted
            .iter()
            .fold(Counters::default(), |sum, one| Counters {
                full: sum.full + one.full,
                clashed: sum.clashed + one.clashed,
                evicted: sum.evicted + one.evicted,
            }))
    }

    /// How full the table is.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn size(&mut self) -> Result<Size, Error> {
        const OPERATION: &str = "count connections";
        let sequence = self.netlink.sequences(1);
        let mut bytes = Vec::new();
        emit(&mut bytes, GET_SIZE, REQUEST, sequence, 0, &[]);
        self.netlink.send(&bytes)?;
        loop {
            for message in messages(self.netlink.receive_datagram()?) {
                if message.sequence != sequence {
                    continue;
                }
                if message.kind == NLMSG_ERROR {
                    crate::socket::outcome(OPERATION, |_| false, message)?;
                }
                return read_size(message.payload).ok_or_else(|| Error::Malformed {
                    operation: OPERATION.to_owned(),
                });
            }
        }
    }

    /// Forgets connections; those that are gone are no error.
    ///
    /// # Errors
    /// The first that the kernel refused.
    pub fn delete(&mut self, connections: &[Connection]) -> Result<(), Error> {
        self.execute(
            connections,
            "forget connection",
            libc::ENOENT,
            |connection| {
                let mut body = Attributes::default();
                tuple(&mut body, ORIGINAL, &connection.original);
                (DELETE, 0, body)
            },
        )
    }

    /// Makes connections that go on, with their translation; those that the
    /// kernel knows already stay as they are.
    ///
    /// # Errors
    /// The first that the kernel refused.
    pub fn create(&mut self, connections: &[Connection]) -> Result<(), Error> {
        self.execute(
            connections,
            "take over connection",
            libc::EEXIST,
            |connection| (NEW, CREATE, established(connection)),
        )
    }

    fn execute(
        &mut self,
        connections: &[Connection],
        what: &str,
        ignored: i32,
        request: impl Fn(&Connection) -> (u16, u16, Attributes),
    ) -> Result<(), Error> {
        let mut result = Ok(());
        for some in connections.chunks(AT_ONCE) {
            let count = u32::try_from(some.len()).unwrap_or(u32::MAX);
            let first = self.netlink.sequences(count);
            let mut bytes = Vec::new();
            for (sequence, connection) in (first..).zip(some) {
                let (kind, flags, body) = request(connection);
                let flags = REQUEST | ACKNOWLEDGE | flags;
                let family = family(&connection.original.source.ip());
                emit(&mut bytes, kind, flags, sequence, family, body.as_bytes());
            }
            self.netlink.send(&bytes)?;
            let mut answers = 0;
            while answers < count {
                for message in messages(self.netlink.receive_datagram()?) {
                    let index = message.sequence.wrapping_sub(first);
                    if message.kind != NLMSG_ERROR || index >= count {
                        continue;
                    }
                    answers += 1;
                    let of = &some[index as usize].original;
                    let operation = format!("{what} {} -> {}", of.source, of.destination);
                    let outcome =
                        crate::socket::outcome(&operation, |errno| errno == ignored, message);
                    result = result.and(outcome);
                }
            }
        }
        result
    }
}

fn family(address: &IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

/// `struct nlmsghdr`, `struct nfgenmsg` and the body.
fn emit(buffer: &mut Vec<u8>, kind: u16, flags: u16, sequence: u32, family: u8, body: &[u8]) {
    crate::write::netfilter_message(buffer, kind, flags, sequence, (family, 0), body);
}

fn tuple(to: &mut Attributes, kind: u16, tuple: &Tuple) {
    to.nested(kind, |to| {
        to.nested(1, |ip| match (tuple.source.ip(), tuple.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                ip.bytes(1, &source.octets())
                    .bytes(2, &destination.octets());
            }
            (source, destination) => {
                let octets = |ip| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                ip.bytes(3, &octets(source)).bytes(4, &octets(destination));
            }
        });
        to.nested(2, |ports| {
            ports
                .u8(1, tuple.protocol)
                .u16(2, tuple.source.port())
                .u16(3, tuple.destination.port());
        });
    });
}

/// A connection as the kernel would have it had it seen its beginning.
fn established(connection: &Connection) -> Attributes {
    let Connection {
        original, reply, ..
    } = connection;
    let mut body = Attributes::default();
    tuple(&mut body, ORIGINAL, original);
    // Without translation: the kernel turns the answer from the NAT ranges.
    let untranslated = Tuple {
        protocol: original.protocol,
        source: original.destination,
        destination: original.source,
    };
    tuple(&mut body, REPLY, &untranslated);
    body.u32(STATUS, SEEN_REPLY | ASSURED | CONFIRMED);
    let is_tcp = original.protocol == TCP;
    body.u32(TIMEOUT, if is_tcp { TCP_PATIENCE } else { PATIENCE });
    if is_tcp {
        body.nested(PROTOCOL_STATE, |state| {
            // CTA_PROTOINFO_TCP
            state.nested(1, |tcp| {
                tcp.u8(1, ESTABLISHED).bytes(4, &LIBERAL).bytes(5, &LIBERAL);
            });
        });
    }
    if original.source != reply.destination {
        range(&mut body, SOURCE_NAT, reply.destination);
    }
    if original.destination != reply.source {
        range(&mut body, DESTINATION_NAT, reply.source);
    }
    body
}

/// Exactly this address and port (`enum ctattr_nat`, `ctattr_protonat`).
fn range(to: &mut Attributes, kind: u16, end: SocketAddr) {
    to.nested(kind, |nat| {
        match end.ip() {
            IpAddr::V4(v4) => nat.bytes(1, &v4.octets()).bytes(2, &v4.octets()),
            IpAddr::V6(v6) => nat.bytes(4, &v6.octets()).bytes(5, &v6.octets()),
        };
        nat.nested(3, |ports| {
            ports.u16(1, end.port()).u16(2, end.port());
        });
    });
}

/// Attributes that are numbers, behind `struct nfgenmsg`.
fn numbers(payload: &[u8]) -> impl Iterator<Item = (u16, u64)> {
    let rest = payload.get(4..).unwrap_or_default();
    attributes(rest).filter_map(|(kind, value)| {
        let number = <[u8; 4]>::try_from(value).ok()?;
        Some((kind, u32::from_be_bytes(number).into()))
    })
}

/// Of one processor (`enum ctattr_stats_cpu`).
fn read_counters(payload: &[u8]) -> Counters {
    let mut counters = Counters::default();
    for (kind, number) in numbers(payload) {
        match kind {
            9 => counters.clashed = number,
            10 => counters.full = number,
            11 => counters.evicted = number,
            _ => {}
        }
    }
    // The kernel counts those among what it dropped, too (`nf_ct_resolve_clash`).
    counters.full = counters.full.saturating_sub(counters.clashed);
    counters
}

/// `enum ctattr_stats_global`.
fn read_size(payload: &[u8]) -> Option<Size> {
    let of = |wanted| numbers(payload).find(|(kind, _)| *kind == wanted);
    Some(Size {
        connections: of(1)?.1,
        limit: of(2).map(|(_, limit)| limit),
    })
}

/// `port`: what stands for ports that there are none of.
fn read(payload: &[u8], port: Option<u16>) -> Option<Connection> {
    let (mut original, mut reply, mut state) = (None, None, 0);
    // struct nfgenmsg
    for (kind, value) in attributes(payload.get(4..)?) {
        match kind {
            ORIGINAL => original = read_tuple(value, port),
            REPLY => reply = read_tuple(value, port),
            PROTOCOL_STATE => {
                let tcp = attributes(value).find(|(kind, _)| *kind == 1);
                let of = |tcp| attributes(tcp).find(|(kind, _)| *kind == 1);
                let told = tcp.and_then(|(_, tcp)| of(tcp));
                state = told.map_or(0, |(_, state)| state.first().copied().unwrap_or(0));
            }
            _ => {}
        }
    }
    Some(Connection {
        original: original?,
        reply: reply?,
        is_closing: state >= FIN_WAIT,
        is_over: state >= TIME_WAIT,
    })
}

fn read_tuple(bytes: &[u8], port: Option<u16>) -> Option<Tuple> {
    let (mut protocol, mut addresses, mut ports) = (None, [None; 2], [port; 2]);
    for (kind, value) in attributes(bytes) {
        for (inner, value) in attributes(value) {
            match (kind, inner) {
                (1, 1 | 3) => addresses[0] = crate::attributes::address(value),
                (1, 2 | 4) => addresses[1] = crate::attributes::address(value),
                (2, 1) => protocol = value.first().copied(),
                (2, 2 | 3) => {
                    let port = <[u8; 2]>::try_from(value).ok()?;
                    ports[usize::from(inner) - 2] = Some(u16::from_be_bytes(port));
                }
                _ => {}
            }
        }
    }
    Some(Tuple {
        protocol: protocol?,
        source: SocketAddr::new(addresses[0]?, ports[0]?),
        destination: SocketAddr::new(addresses[1]?, ports[1]?),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn connection(client: &str, frontend: &str, backend: &str) -> Connection {
        let [client, frontend, backend] = [client, frontend, backend].map(|s| s.parse().unwrap());
        Connection {
            original: Tuple {
                protocol: TCP,
                source: client,
                destination: frontend,
            },
            reply: Tuple {
                protocol: TCP,
                source: backend,
                destination: client,
            },
            is_closing: false,
            is_over: false,
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let v4 = connection("10.0.0.1:1000", "10.96.0.1:80", "10.244.0.2:8080");
        let v6 = connection("[fd00::1]:1000", "[fd00:96::1]:80", "[fd00:244::2]:8080");
        for connection in [v4, v6] {
            let mut body = Attributes::default();
            tuple(&mut body, ORIGINAL, &connection.original);
            tuple(&mut body, REPLY, &connection.reply);
            let payload = [&[0; 4], body.as_bytes()].concat();
            assert_eq!(read(&payload, None), Some(connection));
            assert!(connection.is_translated());
        }
    }

    #[test]
    fn counters_are_read_by_their_numbers() {
        let mut body = Attributes::default();
        body.u32(2, 5).u32(9, 1).u32(10, 2).u32(11, 3).u32(12, 9);
        let payload = [&[0; 4], body.as_bytes()].concat();
        let expect = Counters {
            full: 1,
            clashed: 1,
            evicted: 3,
        };
        assert_eq!(read_counters(&payload), expect);
        let mut body = Attributes::default();
        body.u32(1, 7);
        let read = |body: &Attributes| read_size(&[&[0; 4], body.as_bytes()].concat());
        let expect = |limit| {
            Some(Size {
                connections: 7,
                limit,
            })
        };
        assert_eq!(read(&body), expect(None));
        body.u32(2, 262_144);
        assert_eq!(read(&body), expect(Some(262_144)));
        assert_eq!(read(&Attributes::default()), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = read(&bytes, None);
            let _ = read_counters(&bytes);
            let _ = read_size(&bytes);
        }
    }
}
