//! What a packet program decides, and why something was dropped.

use crate::Address;
use crate::table::Work;

/// The one result of a packet hook.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours, or the host's stack does it better: it routes, fragments,
    /// answers with ICMP. The packet is as it came, or translated.
    Stack,
    /// Likewise, and nobody else at this hook is to look at it.
    StackAtOnce,
    /// Into the pod behind this host-side link.
    Deliver {
        ifindex: u32,
    },
    /// Out of this link to this neighbour.
    Forward {
        ifindex: u32,
        gateway: Address,
    },
    /// Out of this link, to whichever neighbour the kernel's routes say.
    Route {
        ifindex: u32,
    },
    /// The packet has become an answer: back by the link that it came in by.
    Answer(DropReason),
    Drop(DropReason),
}

/// A verdict with a value in every word: the verifier lets nobody copy what was
/// never written, and the compiler copies what it does not need.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub struct FinalVerdict {
    /// One of the constants.
    pub kind: u32,
    /// Interface index, or the number of the reason.
    pub value: u32,
    pub gateway: Address,
    /// How the ports of an SCTP packet changed, whose checksum does not know yet.
    pub(crate) ports: u32,
}

impl FinalVerdict {
    pub const STACK: u32 = 0;
    pub const DELIVER: u32 = 1;
    pub const FORWARD: u32 = 2;
    pub const ROUTE: u32 = 3;
    pub const ANSWER: u32 = 4;
    pub const DROP: u32 = 5;
    pub const STACK_AT_ONCE: u32 = 6;

    /// In one word beside the rest: what a function of its own can return in
    /// the kernel, where results have no place on the stack.
    #[inline(always)]
    pub(crate) fn pack(self, work: &mut Work) -> u64 {
        work.destination = self.gateway;
        self.word()
    }

    #[inline(always)]
    pub(crate) fn word(&self) -> u64 {
        u64::from(self.kind) << 32 | u64::from(self.value)
    }

    #[inline(always)]
    pub(crate) const fn unpack(packed: u64, work: &Work) -> Self {
        Self {
            kind: (packed >> 32) as u32,
            value: packed as u32,
            gateway: work.destination,
            ports: 0,
        }
    }

    pub const fn verdict(self) -> Verdict {
        let (ifindex, gateway) = (self.value, self.gateway);
        match self.kind {
            Self::STACK => Verdict::Stack,
            Self::STACK_AT_ONCE => Verdict::StackAtOnce,
            Self::DELIVER => Verdict::Deliver { ifindex },
            Self::FORWARD => Verdict::Forward { ifindex, gateway },
            Self::ROUTE => Verdict::Route { ifindex },
            Self::ANSWER => Verdict::Answer(DropReason::from_index(self.value)),
            _ => Verdict::Drop(DropReason::from_index(self.value)),
        }
    }
}

impl From<Verdict> for FinalVerdict {
    #[inline(always)]
    fn from(verdict: Verdict) -> Self {
        let none = Address::default();
        let (kind, value, gateway) = match verdict {
            Verdict::Stack => (Self::STACK, 0, none),
            Verdict::StackAtOnce => (Self::STACK_AT_ONCE, 0, none),
            Verdict::Deliver { ifindex } => (Self::DELIVER, ifindex, none),
            Verdict::Forward { ifindex, gateway } => (Self::FORWARD, ifindex, gateway),
            Verdict::Route { ifindex } => (Self::ROUTE, ifindex, none),
            Verdict::Answer(reason) => (Self::ANSWER, reason as u32, none),
            Verdict::Drop(reason) => (Self::DROP, reason as u32, none),
        };
        Self {
            kind,
            value,
            gateway,
            ports: 0,
        }
    }
}

/// Why a packet or a connection went no further; each is counted.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// A service without endpoints.
    NoBackends = 0,
    /// A service's row names a backend that has no row: tables are damaged.
    BackendMissing = 1,
    /// No memory for what a socket must remember to be answered by the service.
    SocketState = 2,
    /// No memory for a translated flow.
    FlowState = 3,
    /// A packet could not be rewritten.
    Rewrite = 4,
    /// An address of a ServiceCIDR, or a port of a service, that is no service.
    NoService = 5,
    /// From outside to a service that is to be reached on the nodes of its
    /// endpoints, and none is on this one.
    NoLocalBackend = 6,
    /// From outside of the service's source ranges.
    SourceRange = 7,
    /// Every port tried for a translated flow had one already.
    PortsExhausted = 8,
    /// A part of a packet, which has no ports, to where only ports lead.
    Fragment = 9,
    /// To outside, and of a protocol that cannot be given the node's address.
    Protocol = 10,
    /// To a backend whose answers would not come by here: this node itself, or
    /// outside of the cluster, for a packet that no socket hook saw.
    BackendAway = 11,
    /// Longer than the way to the backend is wide.
    TooLong = 12,
    /// Policies deny it.
    Policy = 13,
    /// In the middle of a connection that is not known, and policies do not allow
    /// it as one of its own.
    NoConnection = 14,
    /// No memory for a connection whose answers would pass only by it.
    ConnectionsFull = 15,
    /// Headers that policies cannot see through.
    Unreadable = 16,
    /// A pod wrote an address that is not its own.
    Spoofed = 17,
    /// Of a translated flow, whose sender began as many as one pod may have.
    FlowShare = 18,
}

impl DropReason {
    pub const ALL: [Self; 19] = [
        Self::NoBackends,
        Self::BackendMissing,
        Self::SocketState,
        Self::FlowState,
        Self::Rewrite,
        Self::NoService,
        Self::NoLocalBackend,
        Self::SourceRange,
        Self::PortsExhausted,
        Self::Fragment,
        Self::Protocol,
        Self::BackendAway,
        Self::TooLong,
        Self::Policy,
        Self::NoConnection,
        Self::ConnectionsFull,
        Self::Unreadable,
        Self::Spoofed,
        Self::FlowShare,
    ];

    /// The other way of `as u32`.
    #[inline(always)]
    pub(crate) const fn from_index(index: u32) -> Self {
        match index {
            0 => Self::NoBackends,
            1 => Self::BackendMissing,
            2 => Self::SocketState,
            3 => Self::FlowState,
            5 => Self::NoService,
            6 => Self::NoLocalBackend,
            7 => Self::SourceRange,
            8 => Self::PortsExhausted,
            9 => Self::Fragment,
            10 => Self::Protocol,
            11 => Self::BackendAway,
            12 => Self::TooLong,
            13 => Self::Policy,
            14 => Self::NoConnection,
            15 => Self::ConnectionsFull,
            16 => Self::Unreadable,
            17 => Self::Spoofed,
            18 => Self::FlowShare,
            _ => Self::Rewrite,
        }
    }

    /// As metrics and `ripstop status` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackends => "no_backends",
            Self::BackendMissing => "backend_missing",
            Self::SocketState => "socket_state",
            Self::FlowState => "flow_state",
            Self::Rewrite => "rewrite",
            Self::NoService => "no_service",
            Self::NoLocalBackend => "no_local_backend",
            Self::SourceRange => "source_range",
            Self::PortsExhausted => "ports_exhausted",
            Self::Fragment => "fragment",
            Self::Protocol => "protocol",
            Self::BackendAway => "backend_away",
            Self::TooLong => "too_long",
            Self::Policy => "policy",
            Self::NoConnection => "no_connection",
            Self::ConnectionsFull => "connections_full",
            Self::Unreadable => "unreadable",
            Self::Spoofed => "spoofed",
            Self::FlowShare => "flow_share",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_its_index() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
            assert_eq!(DropReason::from_index(reason as u32), reason);
            let mut work = Work::default();
            for verdict in [
                Verdict::Stack,
                Verdict::StackAtOnce,
                Verdict::Deliver { ifindex: 7 },
                Verdict::Forward {
                    ifindex: u32::MAX,
                    gateway: Address::v4(1),
                },
                Verdict::Route { ifindex: 0 },
                Verdict::Answer(reason),
                Verdict::Drop(reason),
            ] {
                let packed = FinalVerdict::from(verdict).pack(&mut work);
                assert_eq!(FinalVerdict::unpack(packed, &work).verdict(), verdict);
            }
        }
    }
}
