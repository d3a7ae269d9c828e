//! Ports that translated flows leave from, of either engine: a flow that one
//! engine has begun and the other goes on with has no port that a socket of the
//! node may get meanwhile.

/// First and number of the ports from which translated flows leave: the larger
/// part of those that the kernel does not give to sockets by itself.
pub(crate) fn of_flows() -> (u32, u32) {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = range.unwrap_or_default();
    let mut words = range.split_whitespace().map(str::parse::<u32>);
    match (words.next(), words.next()) {
        (Some(Ok(first)), Some(Ok(last))) => beside(first, last),
        // The kernel's default.
        _ => beside(32_768, 60_999),
    }
}

/// Without those below 1024, which are for who has privileges.
fn beside(first: u32, last: u32) -> (u32, u32) {
    const LOWEST: u32 = 1024;
    const HIGHEST: u32 = 65_535;
    let below = (LOWEST, first.saturating_sub(LOWEST));
    let above = (last + 1, HIGHEST.saturating_sub(last));
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
        assert_eq!(beside(32_768, 60_999), (1024, 31_744));
        assert_eq!(beside(1024, 40_000), (40_001, 25_535));
        assert_eq!(beside(1024, 65_535), (1024, 64_512));
        assert_eq!(beside(1, 65_535), (1024, 64_512));
    }
}
