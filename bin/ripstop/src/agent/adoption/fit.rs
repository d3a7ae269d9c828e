//! Whether a pod of another plugin can be adopted, by what its runtime remembers.
//! Whatever is not known to be harmless is left alone.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_host::takeover::Unfit;
use ripstop_model::Pod;

use super::cache::{Cached, Plugin};

/// Plugins that make a veth pair and routes, and nothing that outlives the link and
/// would still matter.
const MAIN: [&str; 3] = ["bridge", "ptp", "flannel"];
/// Chained after them: what they do is inside the pod, or done for capabilities that
/// are looked at by themselves, or rules that accept.
const CHAINED: [&str; 4] = ["portmap", "bandwidth", "tuning", "firewall"];
/// Capabilities that leave something on the node that is not ours to move.
const CAPABILITIES: [&str; 2] = ["portMappings", "bandwidth"];
/// Who gives addresses, and waits for nobody to renew them.
const IPAM: [&str; 2] = ["host-local", "static"];

/// Why a pod keeps the other plugin's link.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("its runtime remembers nothing of it in {0}")]
    NotRemembered(String),
    #[error("its runtime remembers addresses {0} of it")]
    OtherAddresses(String),
    #[error("address {0} is in no pod range of this node")]
    OutOfRange(IpAddr),
    #[error("it has two addresses of one family")]
    TwoOfAFamily,
    #[error("plugin {0} of its network is not known here")]
    Plugin(String),
    #[error("plugin {0} of its network has a VLAN for it")]
    Vlan(String),
    #[error(
        "plugin {0} of its network masquerades what it sends (ipMasq), by rules that would \
         still do so"
    )]
    Masquerades(String),
    #[error("its addresses are from {0}")]
    Ipam(String),
    #[error("its network does {0} for it, by rules of another plugin")]
    Capability(String),
    #[error("its namespace {path}: {error}")]
    Netns { path: String, error: std::io::Error },
    #[error(transparent)]
    Link(#[from] Unfit),
    #[error("its link shares bridge {bridge} with {other}, which cannot be adopted")]
    Shared { bridge: String, other: String },
    #[error("{0}")]
    Failed(String),
}

/// The kernel cannot be asked.
pub(super) fn kernel(error: ripstop_netlink::Error) -> Refusal {
    Refusal::Link(error.into())
}

/// The attachment of a pod among those that its runtime remembers: the one that has
/// the pod's addresses.
pub(super) fn find<'a>(
    pod: &Pod,
    cached: &'a [Cached],
    folder: &str,
) -> Result<&'a Cached, Refusal> {
    let is_its = |one: &&Cached| {
        let names = &one.pod;
        let same_uid = names.uid.as_deref().is_none_or(|uid| *uid == *pod.uid);
        names.namespace == pod.key.namespace && names.name == pod.key.name && same_uid
    };
    let mut its = cached.iter().filter(is_its).peekable();
    if its.peek().is_none() {
        return Err(Refusal::NotRemembered(folder.to_owned()));
    }
    let set = |addresses: &[IpAddr]| addresses.iter().copied().collect::<BTreeSet<_>>();
    let wanted = set(&pod.addresses);
    let mut other = BTreeSet::new();
    for one in its {
        let found = set(&one.addresses);
        if found == wanted {
            return Ok(one);
        }
        other.extend(found);
    }
    let other: Vec<_> = other.iter().map(IpAddr::to_string).collect();
    Err(Refusal::OtherAddresses(other.join(", ")))
}

/// Whether its network is of a kind that can be left behind, and its addresses ours.
pub(super) fn check(cached: &Cached, pod_cidrs: &[IpNet]) -> Result<(), Refusal> {
    for address in &cached.addresses {
        if !pod_cidrs.iter().any(|range| range.contains(address)) {
            return Err(Refusal::OutOfRange(*address));
        }
    }
    let v4 = cached.addresses.iter().filter(|one| one.is_ipv4()).count();
    if v4 > 1 || cached.addresses.len() - v4 > 1 {
        return Err(Refusal::TwoOfAFamily);
    }
    let (main, chained) = match cached.plugins.split_first() {
        Some((main, chained)) if MAIN.contains(&&*main.kind) => (main, chained),
        Some((main, _)) => return Err(Refusal::Plugin(main.kind.clone())),
        None => return Err(Refusal::Plugin("(none)".to_owned())),
    };
    check_main(main)?;
    let unknown = |plugin: &&Plugin| !CHAINED.contains(&&*plugin.kind);
    if let Some(plugin) = chained.iter().find(unknown) {
        return Err(Refusal::Plugin(plugin.kind.clone()));
    }
    let used = |name: &&String| CAPABILITIES.contains(&name.as_str());
    match cached.capabilities.iter().find(used) {
        Some(capability) => Err(Refusal::Capability(capability.clone())),
        None => Ok(()),
    }
}

fn check_main(main: &Plugin) -> Result<(), Refusal> {
    let kind = || main.kind.clone();
    let delegate = main.delegate.clone().unwrap_or_default();
    if !matches!(delegate.kind.as_str(), "" | "bridge") {
        return Err(Refusal::Plugin(delegate.kind));
    }
    if main.masquerades || delegate.masquerades {
        return Err(Refusal::Masquerades(kind()));
    }
    if main.vlan != 0 {
        return Err(Refusal::Vlan(kind()));
    }
    let of_flannel = main.kind == "flannel" && main.ipam.kind.is_empty();
    match of_flannel || IPAM.contains(&&*main.ipam.kind) {
        true => Ok(()),
        false => Err(Refusal::Ipam(main.ipam.kind.clone())),
    }
}

#[cfg(test)]
mod tests {
    use ripstop_cni_types::{Attachment, PodArgs};
    use ripstop_model::ObjectKey;

    use super::super::cache::{Delegate, Ipam};
    use super::*;

    type Change = fn(&mut Cached);

    fn cached() -> Cached {
        Cached {
            at: Attachment {
                container_id: "3f".to_owned(),
                ifname: "eth0".to_owned(),
            },
            network: "cbr0".to_owned(),
            pod: PodArgs::parse("K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web;K8S_POD_UID=u"),
            addresses: vec!["10.244.1.5".parse().unwrap()],
            netns: "/run/netns/x".into(),
            plugins: vec![plugin("bridge", "host-local")],
            capabilities: vec!["dns".to_owned()],
        }
    }

    fn plugin(kind: &str, ipam: &str) -> Plugin {
        Plugin {
            kind: kind.to_owned(),
            ipam: Ipam {
                kind: ipam.to_owned(),
            },
            ..Plugin::default()
        }
    }

    fn said(change: impl FnOnce(&mut Cached)) -> Option<String> {
        let mut one = cached();
        change(&mut one);
        let ranges = [
            "10.244.1.0/24".parse().unwrap(),
            "fd00::/64".parse().unwrap(),
        ];
        check(&one, &ranges).err().map(|error| error.to_string())
    }

    #[test]
    fn networks_that_can_be_left_behind() {
        let good: [Change; 5] = [
            |_| {},
            |one| one.addresses.push("fd00::5".parse().unwrap()),
            |one| one.plugins = vec![plugin("flannel", "")],
            |one| one.plugins = vec![plugin("ptp", "host-local"), plugin("portmap", "")],
            |one| one.plugins.push(plugin("tuning", "")),
        ];
        for (i, change) in good.into_iter().enumerate() {
            assert_eq!(said(change), None, "{i}");
        }
    }

    #[test]
    fn what_is_in_the_way_is_named() {
        let cases: [(Change, &str); 11] = [
            (
                |one| one.addresses = vec!["10.88.0.7".parse().unwrap()],
                "address 10.88.0.7 is in no pod range of this node",
            ),
            (
                |one| one.addresses.push("10.244.1.6".parse().unwrap()),
                "two addresses",
            ),
            (|one| one.plugins[0].kind = "ipvlan".into(), "plugin ipvlan"),
            (|one| one.plugins.clear(), "plugin (none)"),
            (
                |one| one.plugins.push(plugin("sbr", "")),
                "plugin sbr of its network",
            ),
            (|one| one.plugins[0].masquerades = true, "(ipMasq)"),
            (|one| one.plugins[0].vlan = 7, "VLAN"),
            (|one| one.plugins[0].ipam.kind = "dhcp".into(), "from dhcp"),
            (
                |one| one.capabilities.push("portMappings".to_owned()),
                "portMappings",
            ),
            (
                |one| {
                    one.plugins = vec![plugin("flannel", "")];
                    one.plugins[0].delegate = Some(Delegate {
                        kind: "macvlan".to_owned(),
                        masquerades: false,
                    });
                },
                "plugin macvlan",
            ),
            (
                |one| {
                    one.plugins = vec![plugin("flannel", "")];
                    one.plugins[0].delegate = Some(Delegate {
                        kind: String::new(),
                        masquerades: true,
                    });
                },
                "(ipMasq)",
            ),
        ];
        for (change, words) in cases {
            let said = said(change).expect(words);
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    #[test]
    fn a_pod_is_found_by_name_uid_and_addresses() {
        let pod = |uid: &str, address: &str| Pod {
            uid: uid.into(),
            addresses: [address.parse().unwrap()].into(),
            ..Pod::new(ObjectKey::new("shop", "web"))
        };
        let all = [cached()];
        let found = |pod: &Pod| find(pod, &all, "/cache").map_err(|error| error.to_string());
        assert_eq!(found(&pod("u", "10.244.1.5")), Ok(&all[0]));
        let nothing = Err("its runtime remembers nothing of it in /cache".to_owned());
        assert_eq!(found(&pod("v", "10.244.1.5")), nothing);
        let other = found(&pod("u", "10.244.1.6")).unwrap_err();
        assert_eq!(other, "its runtime remembers addresses 10.244.1.5 of it");
    }
}
