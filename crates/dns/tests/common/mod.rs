//! How the zones of these tests are configured.

use std::net::IpAddr;

use ripstop_dns::ZoneConfig;

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn config() -> ZoneConfig {
    ZoneConfig {
        servers: vec![ip("10.96.0.10"), ip("fd00:96::a")],
        ranges: [
            "10.244.0.0/16",
            "fd00:244::/48",
            "10.96.0.0/16",
            "fd00:96::/112",
        ]
        .map(|range| range.parse().unwrap())
        .to_vec(),
        ..ZoneConfig::default()
    }
}
