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
/// its half of the larger part of those that the kernel does not give to sockets
/// by itself.
pub(crate) fn of_flows(half: Half) -> (u32, u32) {
    half.of(free())
}

fn free() -> (u32, u32) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let mut words = range.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => beside(first, last),
        // The kernel's default.
        _ => beside(32_768, 60_999),
    }
}

/// Without those below 1024, which are for who has privileges, and without the
/// tunnel's: what a pod answers to that port of a node is taken for tunnelled.
fn beside(first: u32, last: u32) -> (u32, u32) {
    const LOWEST: u32 = TUNNEL_PORT as u32 + 1;
    const HIGHEST: u32 = 65_535;
    let below = (LOWEST, first.saturating_sub(LOWEST));
    let after = LOWEST.max(last + 1);
    let above = (after, (HIGHEST + 1).saturating_sub(after));
    let larger = if below.1 >= above.1 { below } else { above };
    match larger.1 {
        // All are given to sockets: then they are shared. Two flows with the
        // same ends are as unlikely as the ports are many.
        0 => (LOWEST, HIGHEST - LOWEST + 1),
        _ => larger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_not_those_of_sockets() {
        assert_eq!(beside(32_768, 60_999), (4790, 27_978));
        assert_eq!(beside(1024, 40_000), (40_001, 25_535));
        assert_eq!(beside(1024, 65_535), (4790, 60_746));
        assert_eq!(beside(1, 65_535), (4790, 60_746));
        assert_eq!(beside(1024, 2000), (4790, 60_746));
    }

    #[test]
    fn the_tunnel_s_port_is_no_flow_s() {
        for (first, last) in [(32_768, 60_999), (1, 65_535), (1024, 2000), (4000, 5000)] {
            let (lowest, count) = beside(first, last);
            let port = u32::from(TUNNEL_PORT);
            assert!(!(lowest..lowest + count).contains(&port), "{first}");
            assert!(lowest + count <= 65_536 && count > 0);
        }
    }

    #[test]
    fn no_port_is_of_both_engines() {
        assert_eq!(Half::NFTABLES.of((1024, 31_745)), (1024, 15_872));
        assert_eq!(Half::EBPF.of((1024, 31_745)), (16_896, 15_873));
    }
}
