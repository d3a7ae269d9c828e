//! The agent's DNS server: what it is told, and its threads.

use ripstop_dns::ZoneConfig;

use super::Args;

/// How this node answers the cluster's names.
pub(super) fn zone_config(args: &Args) -> ZoneConfig {
    ZoneConfig {
        domain: args.cluster_domain.clone(),
        servers: args.cluster_dns.clone(),
        ranges: [&args.cluster_cidr[..], &args.service_cidr[..]].concat(),
        ..ZoneConfig::default()
    }
}
