//! Ports that translated flows leave from: none of those that a socket of the node may
//! get. Each engine has some that the other one never gives: while one goes on with
//! what the other has begun, both begin flows, and none knows the other's of that
//! moment.

use std::ops::Range;

use ripstop_abi::{FlowPorts, Gap, TUNNEL_PORT};

/// Ports of services, unless the API server's `--service-node-port-range` says
/// otherwise. The eBPF engine leaves out the ports that have a service as a flow
/// begins; which ones get one while it goes on nobody knows.
const NODE_PORTS: Range<u32> = 30_000..32_768;

/// What a pod answers to that port of a node is taken for tunnelled.
const TUNNEL: Range<u32> = TUNNEL_PORT as u32..TUNNEL_PORT as u32 + 1;

/// Those below are for who has privileges.
const ALL: Range<u32> = 1024..65_536;

/// How many an engine has for itself at least. If fewer than twice as many are left
/// beside those of sockets, they are shared with them: two flows with the same ends are
/// then as unlikely as the ports are many.
const ENOUGH: usize = 8192;

/// First and last of those of the nftables engine, whose rules know no gaps.
pub(crate) fn of_nftables() -> (u16, u16) {
    let ports = Split::of(of_sockets()).nftables;
    (ports.start as u16, (ports.end - 1) as u16)
}

/// All, and those of them that the nftables engine never gives.
pub(crate) fn of_ebpf() -> [FlowPorts; 2] {
    let Split { all, ebpf, .. } = Split::of(of_sockets());
    [all, ebpf].map(|parts| with_gaps(&parts))
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

#[derive(Debug)]
struct Split {
    all: Vec<Range<u32>>,
    nftables: Range<u32>,
    ebpf: Vec<Range<u32>>,
}

impl Split {
    /// The largest part is the nftables engine's, but for what the other one needs.
    fn of((first, last): (u16, u16)) -> Self {
        let sockets = first.into()..u32::from(last) + 1;
        let mut all = beside(vec![TUNNEL, NODE_PORTS, sockets]);
        if count(&all) < 2 * ENOUGH {
            all = beside(vec![TUNNEL, NODE_PORTS]);
        }
        // Who wants a port that nobody gets takes one above those of sockets: they are
        // left alone where there are enough below.
        let is_low = |part: &&Range<u32>| part.end <= NODE_PORTS.start;
        let low: Vec<_> = all.iter().filter(is_low).cloned().collect();
        if count(&low) >= 2 * ENOUGH {
            all = low;
        }
        let mut ebpf = all.clone();
        let mut nftables = 0..0;
        let count = count(&all);
        if let Some(largest) = ebpf.iter_mut().max_by_key(|part| part.len()) {
            let missing = ENOUGH.saturating_sub(count - largest.len());
            let missing = missing.min(largest.len() / 2) as u32;
            nftables = largest.start + missing..largest.end;
            largest.end = nftables.start;
        }
        ebpf.retain(|part| !part.is_empty());
        Self {
            all,
            nftables,
            ebpf,
        }
    }
}

/// Parts of all ports: one more than the `others` at most.
fn beside(mut others: Vec<Range<u32>>) -> Vec<Range<u32>> {
    others.push(ALL.end..ALL.end);
    others.sort_unstable_by_key(|other| other.start);
    let mut next = ALL.start;
    let mut free = Vec::new();
    for other in others {
        if next < other.start {
            free.push(next..other.start);
        }
        next = next.max(other.end);
    }
    free
}

fn count(parts: &[Range<u32>]) -> usize {
    parts.iter().map(Range::len).sum()
}

/// Of up to four parts.
fn with_gaps(parts: &[Range<u32>]) -> FlowPorts {
    let first = parts.first().map_or(0, |part| part.start as u16);
    let mut ports = FlowPorts::without_gaps(first, count(parts) as u16);
    for (gap, around) in ports.gaps.iter_mut().zip(parts.windows(2)) {
        *gap = Gap {
            first: around[0].end as u16,
            count: (around[1].start - around[0].end) as u16,
        };
    }
    ports
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(parts: &[Range<u32>]) -> Vec<u32> {
        let ports = with_gaps(parts);
        let all: Vec<u32> = (0..ports.count.into())
            .map(|index| ports.nth(index).into())
            .collect();
        assert!(parts.iter().cloned().flatten().eq(all.iter().copied()));
        all
    }

    #[test]
    fn ports_are_not_those_of_sockets() {
        let Split {
            all,
            nftables,
            ebpf,
        } = Split::of((32_768, 60_999));
        assert_eq!(nftables, 9217..30_000);
        assert_eq!(ebpf, [1024..4789, 4790..9217]);
        assert_eq!(all, [1024..4789, 4790..30_000]);
        // A client's connections have a port each.
        assert!(ports(&all).len() > (32_768..61_000).len());
    }

    #[test]
    fn nobody_has_ports_of_others() {
        for (first, last) in [
            (32_768, 60_999),
            (1024, 40_000),
            (1024, 65_535),
            (1, 65_535),
            (1024, 2000),
            (31_000, 65_535),
            (20_000, 28_000),
            (40_000, 50_000),
            (4000, 5000),
            (65_000, 65_535),
        ] {
            let split = Split::of((first, last));
            let said = format!("{first}-{last}: {split:?}");
            let [all, mut ebpf] = [&split.all, &split.ebpf].map(|parts| ports(parts));
            let sockets = u32::from(first)..u32::from(last) + 1;
            let shares = ALL.len() < sockets.len() + NODE_PORTS.len() + 2 * ENOUGH + 1;
            for port in &all {
                assert!(ALL.contains(port), "{said}");
                assert!(
                    !TUNNEL.contains(port) && !NODE_PORTS.contains(port),
                    "{said}"
                );
                assert!(shares || !sockets.contains(port), "{port}: {said}");
            }
            assert!(split.nftables.len().min(ebpf.len()) >= ENOUGH / 2, "{said}");
            ebpf.extend(split.nftables);
            ebpf.sort_unstable();
            assert_eq!(ebpf, all, "{said}");
        }
    }
}
