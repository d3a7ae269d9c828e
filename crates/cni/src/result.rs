use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::{Map, Value, json};

use crate::Version;

/// What ADD made, in our words; [`AddResult::to_json`] gives those of a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddResult {
    pub interfaces: Vec<Interface>,
    pub ips: Vec<Ip>,
    pub routes: Vec<Route>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    pub name: String,
    pub mac: String,
    /// Bytes; in results since 1.1.0.
    pub mtu: u32,
    /// Path of the namespace; absent for the node's own.
    pub sandbox: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ip {
    pub address: IpNet,
    pub gateway: IpAddr,
    /// Position in [`AddResult::interfaces`].
    pub interface: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub destination: IpNet,
    pub gateway: IpAddr,
}

impl AddResult {
    pub fn to_json(&self, version: Version) -> Value {
        json!({
            "cniVersion": version.as_str(),
            "interfaces":
                self.interfaces.iter().map(|i| i.to_json(version)).collect::<Vec<_>>(),
            "ips": self.ips.iter().map(|ip| ip.to_json(version)).collect::<Vec<_>>(),
            "routes": self
                .routes
                .iter()
                .map(|route| json!({"dst": route.destination, "gw": route.gateway}))
                .collect::<Vec<_>>(),
            // Names are the runtime's business: kubelet writes resolv.conf.
            "dns": {},
        })
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut object = Map::new();
        object.insert("name".to_owned(), self.name.as_str().into());
        object.insert("mac".to_owned(), self.mac.as_str().into());
        if version >= Version::V1_1_0 {
            object.insert("mtu".to_owned(), self.mtu.into());
        }
        if let Some(sandbox) = &self.sandbox {
            object.insert("sandbox".to_owned(), sandbox.as_str().into());
        }
        object.into()
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut object = json!({
            "address": self.address,
            "gateway": self.gateway,
            "interface": self.interface,
        });
        if version < Version::V1_0_0 {
            object["version"] = if self.gateway.is_ipv4() { "4" } else { "6" }.into();
        }
        object
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result() -> AddResult {
        AddResult {
            interfaces: vec![Interface {
                name: "eth0".to_owned(),
                mac: "02:00:00:00:00:01".to_owned(),
                mtu: 1500,
                sandbox: Some("/run/netns/x".to_owned()),
            }],
            ips: vec![Ip {
                address: "fd00::2/128".parse().unwrap(),
                gateway: "fe80::1".parse().unwrap(),
                interface: 0,
            }],
            routes: vec![Route {
                destination: "::/0".parse().unwrap(),
                gateway: "fe80::1".parse().unwrap(),
            }],
        }
    }

    #[test]
    fn each_version_gets_its_fields() {
        let expected_in_all = json!({"dst": "::/0", "gw": "fe80::1"});
        for version in Version::ALL {
            let json = result().to_json(version);
            assert_eq!(json["cniVersion"], version.as_str());
            assert_eq!(json["routes"][0], expected_in_all);
            assert_eq!(json["ips"][0]["address"], "fd00::2/128");
            let old = version < Version::V1_0_0;
            assert_eq!(json["ips"][0].get("version").is_some(), old, "{version}");
            let new = version >= Version::V1_1_0;
            assert_eq!(json["interfaces"][0].get("mtu").is_some(), new, "{version}");
        }
        assert_eq!(result().to_json(Version::V0_4_0)["ips"][0]["version"], "6");
    }
}
