//! What a packet program decides, and why something was dropped.

use crate::Address;

/// The one result of a packet hook.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not ours, or the host's stack does it better: it routes, fragments,
    /// answers with ICMP. The packet is as it came, unless it was translated.
    Stack,
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
    Drop(DropReason),
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
    /// No memory for a flow through a host port.
    FlowState = 3,
    /// A packet could not be rewritten.
    Rewrite = 4,
}

impl DropReason {
    pub const ALL: [Self; 5] = [
        Self::NoBackends,
        Self::BackendMissing,
        Self::SocketState,
        Self::FlowState,
        Self::Rewrite,
    ];

    /// As metrics and `ripstop status` name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoBackends => "no_backends",
            Self::BackendMissing => "backend_missing",
            Self::SocketState => "socket_state",
            Self::FlowState => "flow_state",
            Self::Rewrite => "rewrite",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::DropReason;

    #[test]
    fn a_reason_is_its_index() {
        for (index, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
