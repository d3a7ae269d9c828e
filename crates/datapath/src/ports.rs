//! Ports that translated flows leave from. Each engine has its own, and neither
//! those that a socket of the node may get: while one goes on with what the other
//! has begun, both begin flows, and none knows the other's of that moment.

use ripstop_abi::TUNNEL_PORT;

/// Which part of the ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Lower,
    Upper,
}

impl Half {
    pub(crate) const NFTABLES: Self = Self::Lower;
    pub(crate) const EBPF: Self = Self::Upper;

    const fn of(self, (first, count): (u32, u32)) -> (u32, u32) {
        let half = count / 2;
        match self {
            Self::Lower => (first, half),
            Self::Upper => (first + half, count - half),
        }
    }
}

/// First and number of the ports from which an engine's translated flows leave:
/// its half of the largest part of those that the kernel does not give to sockets
/// by itself, nor the API server to services.
pub(crate) fn of_flows(half: Half) -> (u32, u32) {
    half.of(free())
}

/// Ports of services, unless the API server's `--service-node-port-range` says
/// otherwise. The eBPF engine leaves out the ports that have a service as a flow
/// begins; which ones get one while it goes on nobody knows.
const NODE_PORTS: (u32, u32) = (30_000, 32_767);

fn free() -> (u32, u32) {
    let (first, last) = of_sockets();
    beside(first.into(), last.into())
}

/// First and last of the ports that the kernel gives to sockets by itself.
pub(crate) fn of_sockets() -> (u16, u16) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let mut words = range.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => (first, last),
        // The kernel's default.
        _ => (32_768, 60_999),
    }
}

/// If all are given to sockets, they are shared. Two flows with the same ends are
/// then as unlikely as the ports are many.
fn beside(first: u32, last: u32) -> (u32, u32) {
    match largest_beside([NODE_PORTS, (first, last)]) {
        (_, 0) => largest_beside([NODE_PORTS]),
        found => found,
    }
}

/// Without those below 1024, which are for who has privileges, and without the
/// tunnel's: what a pod answers to that port of a node is taken for tunnelled.
fn largest_beside<const N: usize>(mut others: [(u32, u32); N]) -> (u32, u32) {
    const LOWEST: u32 = TUNNEL_PORT as u32 + 1;
    const END: u32 = 65_536;
    others.sort_unstable();
    let (mut next, mut largest) = (LOWEST, (LOWEST, 0));
    for (first, last) in others.into_iter().chain([(END, END)]) {
        let count = first.saturating_sub(next);
        if count > largest.1 {
            largest = (next, count);
        }
        next = next.max(last + 1);
    }
    largest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_sockets() {
        assert_eq!(beside(32_768, 60_999), (4790, 25_210));
        assert_eq!(beside(1024, 40_000), (40_001, 25_535));
        assert_eq!(beside(1024, 65_535), (32_768, 32_768));
        assert_eq!(beside(1, 65_535), (32_768, 32_768));
        assert_eq!(beside(1024, 2000), (32_768, 32_768));
        assert_eq!(beside(31_000, 65_535), (4790, 25_210));
        assert_eq!(beside(20_000, 31_000), (32_768, 32_768));
    }

    #[test]
    fn ports_of_tunnels_and_services_are_no_flow_s() {
        for (first, last) in [(32_768, 60_999), (1, 65_535), (1024, 2000), (4000, 5000)] {
            let (lowest, count) = beside(first, last);
            for port in [u32::from(TUNNEL_PORT), NODE_PORTS.0, NODE_PORTS.1] {
                assert!(!(lowest..lowest + count).contains(&port), "{first}");
            }
            assert!(lowest + count <= 65_536 && count > 0);
        }
    }

    #[test]
    fn no_port_is_of_both_engines() {
        assert_eq!(Half::NFTABLES.of((1024, 31_745)), (1024, 15_872));
        assert_eq!(Half::EBPF.of((1024, 31_745)), (16_896, 15_873));
    }
}
