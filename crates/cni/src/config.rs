use std::net::IpAddr;

use serde::Deserialize;
use serde_json::Value;

use crate::{Code, Error, Version};

/// The network configuration that a plugin gets on its standard input, as far
/// as it concerns us. Other keys are allowed by the specification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub version: Version,
    /// Name of the network.
    pub name: String,
    /// The `portMappings` capability: ports of the node that lead to the pod.
    pub port_mappings: Vec<PortMapping>,
    /// The `dns` capability: the search list of the pod's resolv.conf.
    pub dns_search: Vec<String>,
    /// `cni.dev/valid-attachments`, for GC; `None` if the key is absent.
    pub valid_attachments: Option<Vec<Attachment>>,
}

/// One entry of `runtimeConfig.portMappings`. containerd writes the names of its
/// Go fields, which plugins in Go do not tell from those of the conventions
/// (<https://github.com/containerd/go-cni/blob/main/types.go>).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    #[serde(alias = "HostPort")]
    pub host_port: u16,
    #[serde(alias = "ContainerPort")]
    pub container_port: u16,
    /// `tcp` or `udp`, in any case.
    #[serde(default = "tcp", alias = "Protocol")]
    pub protocol: String,
    /// Absent, empty or unspecified: every address of the node.
    #[serde(default, rename = "hostIP", alias = "HostIP")]
    host_ip: String,
}

fn tcp() -> String {
    "tcp".to_owned()
}

/// What GC must leave.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
pub struct Attachment {
    #[serde(rename = "containerID")]
    pub container_id: String,
    pub ifname: String,
}

#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    name: String,
    #[serde(rename = "runtimeConfig", default)]
    runtime: RawRuntime,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct RawRuntime {
    port_mappings: Option<Vec<PortMapping>>,
    bandwidth: Option<Value>,
    dns: Option<RawDns>,
}

/// Lists that nobody filled are null in Go's JSON.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawDns {
    #[serde(alias = "Searches")]
    searches: Option<Vec<String>>,
}

impl Config {
    /// Reads a configuration; `version` is what [`Config::version_of`] gave.
    ///
    /// # Errors
    /// Code 7 naming the field, 2 for a capability that we do not have.
    pub fn read(value: &Value, version: Version) -> Result<Self, Error> {
        let raw = Raw::deserialize(value).map_err(|error| {
            Error::new(
                Code::InvalidConfig,
                format!("network configuration: {error}"),
            )
        })?;
        if raw.name.is_empty() {
            return Err(Error::new(
                Code::InvalidConfig,
                "network configuration has no name",
            ));
        }
        if limits_bandwidth(raw.runtime.bandwidth.as_ref()) {
            return Err(Error::new(
                Code::UnsupportedField,
                "runtimeConfig.bandwidth: this plugin does not limit bandwidth; \
                 take \"bandwidth\" out of its capabilities",
            ));
        }
        let mappings = raw.runtime.port_mappings.unwrap_or_default();
        for mapping in &mappings {
            mapping.host_ip()?;
        }
        let dns = raw.runtime.dns.unwrap_or_default();
        Ok(Self {
            version,
            name: raw.name,
            // kubelet writes 0 for ports that are declared without a host port.
            port_mappings: mappings
                .into_iter()
                .filter(|mapping| mapping.host_port != 0)
                .collect(),
            dns_search: dns.searches.unwrap_or_default(),
            valid_attachments: raw.valid_attachments,
        })
    }

    /// The version that a configuration asks for.
    ///
    /// # Errors
    /// Code 6 if it is no object, 7 without `cniVersion`, 1 for another version.
    pub fn version_of(value: &Value) -> Result<Version, Error> {
        let object = value.as_object().ok_or_else(|| {
            Error::new(
                Code::Decode,
                "the network configuration is not a JSON object",
            )
        })?;
        object
            .get("cniVersion")
            .and_then(Value::as_str)
            .ok_or_else(|| {
                Error::new(
                    Code::InvalidConfig,
                    "network configuration: cniVersion is missing",
                )
            })?
            .parse()
    }
}

impl PortMapping {
    /// The node's address, or `None` for each of them.
    ///
    /// # Errors
    /// Code 7 if it is no address.
    pub fn host_ip(&self) -> Result<Option<IpAddr>, Error> {
        if self.host_ip.is_empty() {
            return Ok(None);
        }
        let address: IpAddr = self.host_ip.parse().map_err(|_| {
            Error::new(
                Code::InvalidConfig,
                format!(
                    "runtimeConfig.portMappings: hostIP {:?} of host port {} is no IP address",
                    self.host_ip, self.host_port
                ),
            )
        })?;
        Ok((!address.is_unspecified()).then_some(address))
    }
}

/// Kubelet's bandwidth object has zeros, or is empty, for pods without limits.
fn limits_bandwidth(bandwidth: Option<&Value>) -> bool {
    bandwidth
        .and_then(Value::as_object)
        .is_some_and(|limits| limits.values().any(|limit| limit.as_u64() != Some(0)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(value: &Value) -> Result<Config, Error> {
        Config::read(value, Config::version_of(value)?)
    }

    #[test]
    fn a_full_configuration() {
        let config = read(&json!({
            "cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni", "socket": "/x",
            "ipMasq": true,
            "runtimeConfig": {
                "portMappings": [
                    {"hostPort": 8080, "containerPort": 80, "protocol": "TCP", "hostIP": "192.0.2.1"},
                    {"hostPort": 53, "containerPort": 5353, "protocol": "udp", "hostIP": "0.0.0.0"},
                    {"hostPort": 0, "containerPort": 9},
                ],
                "bandwidth": {"ingressRate": 0, "egressRate": 0},
            },
            "cni.dev/valid-attachments": [{"containerID": "a", "ifname": "eth0"}],
        }))
        .unwrap();
        assert_eq!(config.version, Version::V1_1_0);
        let ports: Vec<_> = config
            .port_mappings
            .iter()
            .map(|m| (m.host_port, m.host_ip().unwrap()))
            .collect();
        assert_eq!(
            ports,
            [(8080, Some("192.0.2.1".parse().unwrap())), (53, None)]
        );
        let attachment = Attachment {
            container_id: "a".to_owned(),
            ifname: "eth0".to_owned(),
        };
        assert_eq!(config.valid_attachments, Some(vec![attachment]));
    }

    #[test]
    fn a_configuration_as_containerd_writes_it() {
        let config = read(&json!({
            "cniVersion": "1.0.0", "name": "ripstop", "type": "ripstop-cni",
            "runtimeConfig": {
                "portMappings": [
                    {"HostPort": 8080, "ContainerPort": 80, "Protocol": "udp", "HostIP": "fd00::1"},
                ],
                "dns": {"Servers": ["10.96.0.10"], "Searches": ["a.search.cluster.local"],
                        "Options": null},
            },
        }))
        .unwrap();
        let [mapping] = config.port_mappings.as_slice() else {
            panic!("{config:?}");
        };
        assert_eq!((mapping.host_port, mapping.container_port), (8080, 80));
        assert_eq!(mapping.protocol, "udp");
        assert_eq!(mapping.host_ip().unwrap(), Some("fd00::1".parse().unwrap()));
        assert_eq!(config.dns_search, ["a.search.cluster.local"]);
        let empty = read(&json!({
            "cniVersion": "1.0.0", "name": "ripstop", "type": "ripstop-cni",
            "runtimeConfig": {"portMappings": null, "dns": {"Searches": null}},
        }))
        .unwrap();
        assert!(empty.port_mappings.is_empty() && empty.dns_search.is_empty());
    }

    #[test]
    fn bad_configurations_name_what_is_wrong() {
        let cases = [
            (json!([]), Code::Decode, "not a JSON object"),
            (
                json!({"name": "n"}),
                Code::InvalidConfig,
                "cniVersion is missing",
            ),
            (
                json!({"cniVersion": "9.0.0", "name": "n"}),
                Code::IncompatibleVersion,
                "9.0.0",
            ),
            (
                json!({"cniVersion": "1.1.0"}),
                Code::InvalidConfig,
                "has no name",
            ),
            (
                json!({"cniVersion": "1.1.0", "name": "n",
                       "runtimeConfig": {"portMappings": [{"hostPort": 70000, "containerPort": 1}]}}),
                Code::InvalidConfig,
                "70000",
            ),
            (
                json!({"cniVersion": "1.1.0", "name": "n",
                       "runtimeConfig": {"portMappings": [
                           {"hostPort": 80, "containerPort": 80, "hostIP": "here"}]}}),
                Code::InvalidConfig,
                "hostIP \"here\" of host port 80",
            ),
            (
                json!({"cniVersion": "1.1.0", "name": "n",
                       "runtimeConfig": {"bandwidth": {"ingressRate": 1000}}}),
                Code::UnsupportedField,
                "bandwidth",
            ),
        ];
        for (value, code, words) in cases {
            let error = read(&value).unwrap_err();
            assert_eq!(error.code, code, "{value}: {error}");
            assert!(error.msg.contains(words), "{value}: {error}");
        }
    }
}
