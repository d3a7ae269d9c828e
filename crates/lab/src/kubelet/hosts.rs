//! A pod's name, and its `/etc/hosts`.
//! <https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods/>

use std::fmt::Write;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Pod;

/// Longest host name that the kernel keeps, by Kubernetes' rule for labels.
const MAX_HOSTNAME: usize = 63;

/// What a pod is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PodName {
    pub(super) hostname: String,
    /// `SUBDOMAIN.NAMESPACE.svc.DOMAIN`, for pods with a subdomain.
    pub(super) domain: Option<String>,
    /// What the kernel says, and `HOSTNAME`.
    pub(super) uts: String,
}

/// Names the pod; on the node's own network it has the node's name.
pub(super) fn name(pod: &Pod, cluster_domain: &str, node: &str) -> PodName {
    let spec = pod.spec.as_ref();
    let given = spec
        .and_then(|s| s.hostname.as_deref())
        .filter(|name| !name.is_empty());
    let own = given.or(pod.metadata.name.as_deref()).unwrap_or_default();
    let cut: String = own.chars().take(MAX_HOSTNAME).collect();
    let hostname = cut.trim_end_matches(['-', '.']).to_owned();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let domain = spec
        .and_then(|s| s.subdomain.as_deref())
        .filter(|subdomain| !subdomain.is_empty())
        .map(|subdomain| format!("{subdomain}.{namespace}.svc.{cluster_domain}"));
    let as_fqdn = spec.and_then(|s| s.set_hostname_as_fqdn).unwrap_or(false);
    let uts = match &domain {
        _ if spec.and_then(|s| s.host_network).unwrap_or(false) => node.to_owned(),
        Some(domain) if as_fqdn => format!("{hostname}.{domain}"),
        _ => hostname.clone(),
    };
    PodName {
        hostname,
        domain,
        uts,
    }
}

/// The file. `node` is the text of the node's own, which pods on its network
/// get.
pub(super) fn hosts(pod: &Pod, name: &PodName, ips: &[IpAddr], node: &str) -> String {
    let spec = pod.spec.as_ref();
    let mut text = if spec.and_then(|s| s.host_network).unwrap_or(false) {
        format!("# Kubernetes-managed hosts file (host network).\n{node}")
    } else {
        own(name, ips)
    };
    let aliases = spec
        .and_then(|s| s.host_aliases.as_deref())
        .unwrap_or_default();
    if !aliases.is_empty() {
        text.push_str("\n# Entries added by HostAliases.\n");
    }
    for alias in aliases {
        let names = alias.hostnames.as_deref().unwrap_or_default().join("\t");
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}\t{names}", alias.ip);
    }
    text
}

fn own(name: &PodName, ips: &[IpAddr]) -> String {
    let mut text = "# Kubernetes-managed hosts file.\n\
                    127.0.0.1\tlocalhost\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n\
                    fe00::0\tip6-localnet\n\
                    fe00::0\tip6-mcastprefix\n\
                    fe00::1\tip6-allnodes\n\
                    fe00::2\tip6-allrouters\n"
        .to_owned();
    let hostname = &name.hostname;
    for ip in ips {
        let _ = match &name.domain {
            Some(domain) => writeln!(text, "{ip}\t{hostname}.{domain}\t{hostname}"),
            None => writeln!(text, "{ip}\t{hostname}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, spec: serde_json::Value) -> Pod {
        serde_json::from_value(serde_json::json!({
            "metadata": {"name": name, "namespace": "shop"}, "spec": spec,
        }))
        .unwrap()
    }

    const HEAD: &str = "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n\
                        ::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
                        fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\n\
                        fe00::2\tip6-allrouters\n";

    fn file(pod: &Pod) -> (PodName, String) {
        let name = name(pod, "cluster.local", "node1");
        let ips = [
            "10.244.1.7".parse().unwrap(),
            "fd00:244:0:1::7".parse().unwrap(),
        ];
        let text = hosts(pod, &name, &ips, "127.0.0.1\tnode1\n");
        (name, text)
    }

    #[test]
    fn addresses_and_names() {
        let (_, text) = file(&pod("web-1", serde_json::json!({"containers": []})));
        assert_eq!(
            text,
            format!("{HEAD}10.244.1.7\tweb-1\nfd00:244:0:1::7\tweb-1\n")
        );

        let spec = serde_json::json!({"containers": [], "hostname": "db", "subdomain": "peers"});
        let (name, text) = file(&pod("web-1", spec));
        let fqdn = "db.peers.shop.svc.cluster.local";
        assert_eq!(
            text,
            format!("{HEAD}10.244.1.7\t{fqdn}\tdb\nfd00:244:0:1::7\t{fqdn}\tdb\n")
        );
        assert_eq!(name.uts, "db");
    }

    #[test]
    fn aliases_come_last() {
        let spec = serde_json::json!({"containers": [], "hostNetwork": true, "hostAliases": [
            {"ip": "192.0.2.1", "hostnames": ["a", "b"]}, {"ip": "192.0.2.2", "hostnames": ["c"]},
        ]});
        let (name, text) = file(&pod("web-1", spec));
        assert_eq!(
            text,
            "# Kubernetes-managed hosts file (host network).\n127.0.0.1\tnode1\n\n\
             # Entries added by HostAliases.\n192.0.2.1\ta\tb\n192.0.2.2\tc\n"
        );
        assert_eq!(name.uts, "node1");
    }

    #[test]
    fn names_of_the_kernel() {
        let long = format!("{}-x", "a".repeat(62));
        assert_eq!(
            file(&pod(&long, serde_json::json!({"containers": []})))
                .0
                .uts,
            "a".repeat(62)
        );
        let spec = serde_json::json!({
            "containers": [], "subdomain": "peers", "setHostnameAsFQDN": true,
        });
        assert_eq!(
            file(&pod("w", spec)).0.uts,
            "w.peers.shop.svc.cluster.local"
        );
    }
}
