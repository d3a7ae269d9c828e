//! Host ports: what a pod asks for, and who has them.

use ripstop_cni_types::{Code, Config, Error};
use ripstop_model::{HostPort, LocalPod, Protocol};

use super::describe;

/// The host ports of a configuration.
///
/// # Errors
/// Code 7 for an unknown protocol, port 0 inside the pod, or a port named twice.
pub(super) fn read(config: &Config) -> Result<Vec<HostPort>, Error> {
    let mut ports: Vec<HostPort> = Vec::new();
    for mapping in &config.port_mappings {
        let bad = |problem: String| {
            Error::new(
                Code::InvalidConfig,
                format!(
                    "runtimeConfig.portMappings: host port {}: {problem}",
                    mapping.host_port
                ),
            )
        };
        let protocol = match mapping.protocol.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "sctp" => Protocol::Sctp,
            _ => {
                let protocol = &mapping.protocol;
                return Err(bad(format!(
                    "protocol {protocol:?} is not tcp, udp or sctp"
                )));
            }
        };
        if mapping.container_port == 0 {
            return Err(bad("containerPort must not be 0".to_owned()));
        }
        let port = HostPort {
            host_ip: mapping.host_ip()?,
            host_port: mapping.host_port,
            container_port: mapping.container_port,
            protocol,
        };
        if ports.contains(&port) {
            continue;
        }
        if ports.iter().any(|other| overlap(other, &port)) {
            return Err(bad("is named twice with different ends".to_owned()));
        }
        ports.push(port);
    }
    Ok(ports)
}

/// Refuses ports that one of `others` has.
///
/// # Errors
/// Code 102 naming the port and the pod.
pub(super) fn check_free<'a>(
    wanted: &[HostPort],
    others: impl IntoIterator<Item = &'a LocalPod>,
) -> Result<(), Error> {
    for other in others {
        for taken in &other.host_ports {
            if let Some(port) = wanted.iter().find(|port| overlap(port, taken)) {
                return Err(Error::new(
                    Code::HostPortTaken,
                    format!(
                        "host port {}/{} is used by pod {}",
                        port.host_port,
                        port.protocol,
                        describe(other)
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// One of them on every address overlaps any other of that port.
fn overlap(one: &HostPort, other: &HostPort) -> bool {
    let same_address = match (one.host_ip, other.host_ip) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    };
    same_address && one.host_port == other.host_port && one.protocol == other.protocol
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(host_ip: Option<&str>, host_port: u16, protocol: Protocol) -> HostPort {
        let host_ip = host_ip.map(|ip| ip.parse().unwrap());
        HostPort {
            host_ip,
            host_port,
            container_port: 80,
            protocol,
        }
    }

    #[test]
    fn ports_overlap_by_address_port_and_protocol() {
        use Protocol::{Tcp, Udp};
        let here = port(Some("192.0.2.1"), 80, Tcp);
        let cases = [
            (port(Some("192.0.2.1"), 80, Tcp), true),
            (port(None, 80, Tcp), true),
            (port(Some("192.0.2.2"), 80, Tcp), false),
            (port(Some("2001:db8::1"), 80, Tcp), false),
            (port(None, 80, Udp), false),
            (port(None, 81, Tcp), false),
        ];
        for (other, expected) in cases {
            assert_eq!(overlap(&here, &other), expected, "{other:?}");
            assert_eq!(overlap(&other, &here), expected, "{other:?}");
        }
    }
}
