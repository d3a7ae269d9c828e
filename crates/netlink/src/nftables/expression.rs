//! What a rule is made of.

use std::net::IpAddr;

use crate::write::Attributes;

/// `NFTA_EXPR_NAME`, `NFTA_EXPR_DATA`.
const NAME: u16 = 1;
const DATA: u16 = 2;
/// `NFTA_DATA_VALUE`, `NFTA_DATA_VERDICT`.
pub(super) const DATA_VALUE: u16 = 1;
pub(super) const DATA_VERDICT: u16 = 2;
/// `NFTA_VERDICT_CODE`, `NFTA_VERDICT_CHAIN`.
pub(super) const VERDICT_CODE: u16 = 1;
pub(super) const VERDICT_CHAIN: u16 = 2;
/// Where `immediate` and `lookup` leave a verdict (`NFT_REG_VERDICT`).
const VERDICT_REGISTER: u32 = 0;
/// `NFT_CT_SECMARK`.
const SECURITY_MARK: u32 = 4;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`: any free port, so that two clients do not
/// get the same one at once.
const FULLY_RANDOM: u32 = 1 << 4;

/// One of the 16 words, of 4 bytes each, in which a rule works. Longer values
/// take the words that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(u32);

impl Register {
    /// # Panics
    /// If there is no such word.
    pub const fn word(index: u32) -> Self {
        assert!(index < 16, "a rule has 16 words");
        // NFT_REG32_00
        Self(8 + index)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    pub fn of(address: &IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// `NFPROTO_IPV4`, `NFPROTO_IPV6`.
    pub const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    Network,
    Transport,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// Index of the interface by which the packet came, 4 bytes.
    Iif,
    /// [`Family::number`], 1 byte.
    Family,
    /// Transport protocol, 1 byte.
    Protocol,
}

/// What conntrack knows of the packet's flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// [`CONNECTION_MISSING`] and the like in the host's byte order, 4 bytes. The
    /// only one that a packet without a connection has.
    State,
    /// `IPS_*` bits in the host's byte order, 4 bytes.
    Status,
    /// 4 bytes that the connection has until it ends; 0 if nobody set them. Only
    /// where the kernel was built with `CONFIG_NF_CONNTRACK_SECMARK`.
    SecurityMark,
    /// Transport protocol, 1 byte: for an ICMP error that of what it is about.
    Protocol,
    Source(Family),
    Destination(Family),
    SourcePort,
    DestinationPort,
}

/// [`CtKey::State`] of packets that connection tracking knows no connection of,
/// or was told to leave alone (`NF_CT_STATE_INVALID_BIT`,
/// `NF_CT_STATE_UNTRACKED_BIT`).
pub const CONNECTION_MISSING: u32 = 1 << 0 | 1 << 6;

/// Of a flow: as the packet that began it was sent, or as answers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    Original,
    Reply,
}

/// Which address of the packet is looked up in the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressKind {
    Source,
    Destination,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    Equal,
    NotEqual,
    /// Byte for byte, so of numbers in network order.
    AtMost,
    AtLeast,
}

/// What becomes of elements that packets make (`enum nft_dynset_ops`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// Makes it for good, if it is not there.
    Make,
    /// Makes it, or lets it live on for the whole timeout.
    Refresh,
    Remove,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// A TCP reset.
    Reset,
    /// ICMP or ICMPv6 "port unreachable".
    PortUnreachable,
    /// ICMP or ICMPv6 "administratively prohibited".
    Prohibited,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Accept,
    Drop,
    /// Goes on with the rule, where a map has it.
    Continue,
    Return,
    Goto(String),
    Jump(String),
}

impl Verdict {
    /// `NF_*` and `NFT_*`.
    fn code(&self) -> i32 {
        match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Continue => -1,
            Self::Jump(_) => -3,
            Self::Goto(_) => -4,
            Self::Return => -5,
        }
    }

    /// The reverse of [`Self::code`].
    pub(super) fn read(code: i32, chain: Option<String>) -> Option<Self> {
        match (code, chain) {
            (0, _) => Some(Self::Drop),
            (1, _) => Some(Self::Accept),
            (-1, _) => Some(Self::Continue),
            (-3, Some(chain)) => Some(Self::Jump(chain)),
            (-4, Some(chain)) => Some(Self::Goto(chain)),
            (-5, _) => Some(Self::Return),
            _ => None,
        }
    }

    pub(super) fn write(&self, to: &mut Attributes) {
        to.nested(DATA_VERDICT, |verdict| {
            verdict.u32(VERDICT_CODE, self.code().cast_unsigned());
            if let Self::Goto(chain) | Self::Jump(chain) = self {
                verdict.text(VERDICT_CHAIN, chain);
            }
        });
    }
}

/// One step of a rule. A step that finds nothing, or compares false, ends the
/// rule, and the next one is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Payload {
        header: Header,
        offset: u32,
        length: u32,
        to: Register,
    },
    Meta {
        key: MetaKey,
        to: Register,
    },
    Ct {
        key: CtKey,
        direction: Option<Direction>,
        to: Register,
    },
    /// Sets the connection's [`CtKey::SecurityMark`].
    SetSecurityMark {
        from: Register,
    },
    /// The route type (`RTN_*`) of an address, 4 bytes in the host's byte order.
    RouteType {
        of: AddressKind,
        to: Register,
    },
    /// The longest TCP segment that fits both ways of the packet's routes, 2 bytes in
    /// the host's byte order.
    LongestSegment {
        to: Register,
    },
    /// 2 bytes from the host's byte order to the network's.
    ToNetwork {
        value: Register,
    },
    /// How long segments may be that the other side sends, in a packet that says
    /// so, from 2 bytes in the network's byte order. Never longer than before.
    SetLongestSegment {
        from: Register,
    },
    Immediate {
        value: Vec<u8>,
        to: Register,
    },
    Verdict(Verdict),
    Compare {
        value: Register,
        how: Compare,
        with: Vec<u8>,
    },
    /// `value = value & mask`.
    Mask {
        value: Register,
        mask: Vec<u8>,
    },
    /// Is the key in the set?
    Contains {
        set: String,
        key: Register,
        not: bool,
    },
    /// The key's data in the map.
    Lookup {
        map: String,
        key: Register,
        to: Register,
    },
    /// The key's verdict in the map.
    VerdictMap {
        map: String,
        key: Register,
    },
    /// A number below `modulus`.
    Random {
        modulus: u32,
        to: Register,
    },
    /// Jenkins' hash of the value, modulo `modulus`.
    Hash {
        value: Register,
        length: u32,
        modulus: u32,
        seed: u32,
        to: Register,
    },
    /// Makes, refreshes or removes an element of a dynamic set or map. A full one
    /// ends the rule.
    Dynamic {
        set: String,
        how: Update,
        key: Register,
        /// In maps.
        data: Option<Register>,
        timeout_ms: u64,
    },
    /// Goes on if there are too many of a key: each may come `per_second` times, and
    /// `burst` times more after it did not. Makes or refreshes an element of a
    /// dynamic set that remembers it; a full one ends the rule.
    TooMany {
        set: String,
        key: Register,
        timeout_ms: u64,
        per_second: u64,
        burst: u32,
    },
    /// The packet's destination, and that of all that follow in its flow.
    Dnat {
        family: Family,
        address: Register,
        port: Register,
    },
    /// The packet's source; a free port, from the first to the last of these
    /// registers.
    Snat {
        family: Family,
        address: Register,
        ports: [Register; 2],
    },
    /// The packet's source port: as it is if that is one of these and nobody has it,
    /// else a free one.
    OwnPort {
        family: Family,
        ports: [Register; 2],
    },
    /// As `Snat`, to the address of the interface by which it leaves.
    Masquerade {
        ports: [Register; 2],
    },
    Reject(Refusal),
    /// Connection tracking leaves the packet alone; before it, at a priority below
    /// -200.
    LeaveUntracked,
    Counter,
}

impl Expression {
    fn name(&self) -> &'static str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } => "meta",
            Self::Ct { .. } | Self::SetSecurityMark { .. } => "ct",
            Self::RouteType { .. } => "fib",
            Self::LongestSegment { .. } => "rt",
            Self::ToNetwork { .. } => "byteorder",
            Self::SetLongestSegment { .. } => "exthdr",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Compare { .. } => "cmp",
            Self::Mask { .. } => "bitwise",
            Self::Contains { .. } | Self::Lookup { .. } | Self::VerdictMap { .. } => "lookup",
            Self::Random { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Dynamic { .. } | Self::TooMany { .. } => "dynset",
            Self::Dnat { .. } | Self::Snat { .. } | Self::OwnPort { .. } => "nat",
            Self::Masquerade { .. } => "masq",
            Self::Reject(_) => "reject",
            Self::LeaveUntracked => "notrack",
            Self::Counter => "counter",
        }
    }

    /// `NFTA_EXPR_NAME` and `NFTA_EXPR_DATA`.
    pub(super) fn write(&self, to: &mut Attributes) {
        to.text(NAME, self.name())
            .nested(DATA, |to| self.write_data(to));
    }

    /// Attribute numbers are those of `enum nft_*_attributes`.
    fn write_data(&self, data: &mut Attributes) {
        match self {
            Self::Payload {
                header,
                offset,
                length,
                to,
            } => {
                let base = match header {
                    Header::Network => 1,
                    Header::Transport => 2,
                };
                data.u32(1, to.0)
                    .u32(2, base)
                    .u32(3, *offset)
                    .u32(4, *length);
            }
            Self::Meta { key, to } => {
                let key = match key {
                    MetaKey::Iif => 4,
                    MetaKey::Family => 15,
                    MetaKey::Protocol => 16,
                };
                data.u32(1, to.0).u32(2, key);
            }
            Self::Ct { key, direction, to } => {
                let key = match key {
                    CtKey::State => 0,
                    CtKey::Status => 2,
                    CtKey::SecurityMark => SECURITY_MARK,
                    CtKey::Protocol => 10,
                    CtKey::SourcePort => 11,
                    CtKey::DestinationPort => 12,
                    CtKey::Source(Family::V4) => 19,
                    CtKey::Destination(Family::V4) => 20,
                    CtKey::Source(Family::V6) => 21,
                    CtKey::Destination(Family::V6) => 22,
                };
                data.u32(1, to.0).u32(2, key);
                match direction {
                    Some(Direction::Original) => {
                        data.u8(3, 0);
                    }
                    Some(Direction::Reply) => {
                        data.u8(3, 1);
                    }
                    None => {}
                }
            }
            Self::SetSecurityMark { from } => {
                data.u32(2, SECURITY_MARK).u32(4, from.0);
            }
            Self::RouteType { of, to } => {
                let flag = match of {
                    AddressKind::Source => 1,
                    AddressKind::Destination => 2,
                };
                // NFT_FIB_RESULT_ADDRTYPE
                data.u32(1, to.0).u32(2, 3).u32(3, flag);
            }
            Self::LongestSegment { to } => {
                // NFT_RT_TCPMSS
                data.u32(1, to.0).u32(2, 3);
            }
            Self::ToNetwork { value } => {
                // NFT_BYTEORDER_HTON
                data.u32(1, value.0)
                    .u32(2, value.0)
                    .u32(3, 1)
                    .u32(4, 2)
                    .u32(5, 2);
            }
            Self::SetLongestSegment { from } => {
                // TCPOPT_MSS, behind its kind and length; NFT_EXTHDR_OP_TCPOPT
                data.u8(2, 2).u32(3, 2).u32(4, 2).u32(6, 1).u32(7, from.0);
            }
            Self::Immediate { value, to } => {
                data.u32(1, to.0).nested(2, |data| {
                    data.bytes(DATA_VALUE, value);
                });
            }
            Self::Verdict(verdict) => {
                data.u32(1, VERDICT_REGISTER)
                    .nested(2, |data| verdict.write(data));
            }
            Self::Compare { value, how, with } => {
                let how = match how {
                    Compare::Equal => 0,
                    Compare::NotEqual => 1,
                    Compare::AtMost => 3,
                    Compare::AtLeast => 5,
                };
                data.u32(1, value.0).u32(2, how).nested(3, |data| {
                    data.bytes(DATA_VALUE, with);
                });
            }
            Self::Mask { value, mask } => {
                let zero = vec![0; mask.len()];
                let length = u32::try_from(mask.len()).unwrap_or(u32::MAX);
                data.u32(1, value.0)
                    .u32(2, value.0)
                    .u32(3, length)
                    .nested(4, |data| {
                        data.bytes(DATA_VALUE, mask);
                    })
                    .nested(5, |data| {
                        data.bytes(DATA_VALUE, &zero);
                    });
            }
            Self::Contains { set, key, not } => {
                data.text(1, set).u32(2, key.0).u32(5, u32::from(*not));
            }
            Self::Lookup { map, key, to } => {
                data.text(1, map).u32(2, key.0).u32(3, to.0);
            }
            Self::VerdictMap { map, key } => {
                data.text(1, map).u32(2, key.0).u32(3, VERDICT_REGISTER);
            }
            Self::Random { modulus, to } => {
                // NFT_NG_RANDOM
                data.u32(1, to.0).u32(2, *modulus).u32(3, 1);
            }
            Self::Hash {
                value,
                length,
                modulus,
                seed,
                to,
            } => {
                // NFT_HASH_JENKINS
                data.u32(1, value.0)
                    .u32(2, to.0)
                    .u32(3, *length)
                    .u32(4, *modulus)
                    .u32(5, *seed)
                    .u32(7, 0);
            }
            Self::Dynamic {
                set,
                how,
                key,
                data: value,
                timeout_ms,
            } => {
                let operation = match how {
                    Update::Make => 0,
                    Update::Refresh => 1,
                    Update::Remove => 2,
                };
                data.text(1, set).u32(3, operation).u32(4, key.0);
                if let Some(value) = value {
                    data.u32(5, value.0);
                }
                if *how == Update::Refresh {
                    data.u64(6, *timeout_ms);
                }
            }
            Self::TooMany {
                set,
                key,
                timeout_ms,
                per_second,
                burst,
            } => {
                // NFT_DYNSET_OP_UPDATE
                data.text(1, set)
                    .u32(3, 1)
                    .u32(4, key.0)
                    .u64(6, *timeout_ms)
                    .nested(7, |to| {
                        // A second; NFT_LIMIT_PKTS; NFT_LIMIT_F_INV
                        to.text(NAME, "limit").nested(DATA, |limit| {
                            limit
                                .u64(1, *per_second)
                                .u64(2, 1)
                                .u32(3, *burst)
                                .u32(4, 0)
                                .u32(5, 1);
                        });
                    });
            }
            Self::Dnat {
                family,
                address,
                port,
            } => {
                // NFT_NAT_DNAT
                data.u32(1, 1)
                    .u32(2, family.number().into())
                    .u32(3, address.0)
                    .u32(5, port.0);
            }
            Self::Snat {
                family,
                address,
                ports: [first, last],
            } => {
                // NFT_NAT_SNAT
                data.u32(1, 0)
                    .u32(2, family.number().into())
                    .u32(3, address.0)
                    .u32(5, first.0)
                    .u32(6, last.0)
                    .u32(7, FULLY_RANDOM);
            }
            Self::OwnPort {
                family,
                ports: [first, last],
            } => {
                // NFT_NAT_SNAT
                data.u32(1, 0)
                    .u32(2, family.number().into())
                    .u32(5, first.0)
                    .u32(6, last.0);
            }
            Self::Masquerade {
                ports: [first, last],
            } => {
                data.u32(1, FULLY_RANDOM).u32(2, first.0).u32(3, last.0);
            }
            Self::Reject(Refusal::Reset) => {
                data.u32(1, 1).u8(2, 0);
            }
            // NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_PORT_UNREACH
            Self::Reject(Refusal::PortUnreachable) => {
                data.u32(1, 2).u8(2, 1);
            }
            // NFT_REJECT_ICMPX_ADMIN_PROHIBITED
            Self::Reject(Refusal::Prohibited) => {
                data.u32(1, 2).u8(2, 3);
            }
            Self::LeaveUntracked | Self::Counter => {}
        }
    }
}
