//! A pod's `/etc/resolv.conf`.
//! <https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy>

use std::net::IpAddr;

use k8s_openapi::api::core::v1::{PodDNSConfig, PodSpec};
use serde_json::{Value, json};

/// Limits of the file (`MaxDNSNameservers` and others in Kubernetes' validation).
const MAX_NAMESERVERS: usize = 3;
const MAX_SEARCHES: usize = 32;
const MAX_SEARCH_CHARS: usize = 2048;

/// The cluster's names, as the node is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ClusterDns {
    pub(super) domain: String,
    pub(super) servers: Vec<IpAddr>,
    /// Whether agents walk pods' search lists.
    pub(super) walked: bool,
}

/// The lines of a resolv.conf, before they are written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Resolver {
    servers: Vec<String>,
    searches: Vec<String>,
    /// Name and value.
    options: Vec<(String, Option<String>)>,
}

impl Resolver {
    /// For a pod. `node` is the text of the node's own file, which pods with
    /// policy Default get.
    pub(super) fn of_pod(
        spec: &PodSpec,
        namespace: &str,
        cluster: &ClusterDns,
        node: &str,
    ) -> Self {
        let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
        let in_cluster = match policy {
            "ClusterFirstWithHostNet" => true,
            // A hostNetwork pod with ClusterFirst falls back to Default.
            "ClusterFirst" => !spec.host_network.unwrap_or(false),
            _ => false,
        };
        let mut resolver = match (in_cluster, policy) {
            (true, _) if !cluster.servers.is_empty() => {
                Self::cluster(namespace, cluster, &Self::parse(node))
            }
            (_, "None") => Self::default(),
            _ => Self::parse(node),
        };
        if let Some(config) = &spec.dns_config {
            resolver.merge(config);
        }
        resolver.limit();
        resolver
    }

    /// As the CNI convention for the capability `dns` has it.
    pub(super) fn capability(&self) -> Value {
        let options = self.options.iter().map(|(name, value)| match value {
            Some(value) => format!("{name}:{value}"),
            None => name.clone(),
        });
        json!({
            "servers": self.servers,
            "searches": self.searches,
            "options": options.collect::<Vec<_>>(),
        })
    }

    /// The node's own search list comes after the cluster's, as kubelet has it.
    fn cluster(namespace: &str, cluster: &ClusterDns, node: &Self) -> Self {
        let domain = &cluster.domain;
        let own = if cluster.walked { "search" } else { "svc" };
        let mut searches = vec![
            format!("{namespace}.{own}.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        add_new(&mut searches, node.searches.iter());
        Self {
            servers: cluster.servers.iter().map(ToString::to_string).collect(),
            searches,
            options: vec![("ndots".to_owned(), Some("5".to_owned()))],
        }
    }

    /// resolv.conf(5); a later `search` line takes the place of an earlier one.
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace().map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.servers.extend(words.next()),
                Some("search") => resolver.searches = words.collect(),
                Some("options") => resolver.options = words.map(|word| option(&word)).collect(),
                _ => {}
            }
        }
        resolver
    }

    /// Adds what the pod itself asks for; its options win.
    fn merge(&mut self, config: &PodDNSConfig) {
        add_new(&mut self.servers, config.nameservers.iter().flatten());
        add_new(&mut self.searches, config.searches.iter().flatten());
        for wanted in config.options.iter().flatten() {
            let Some(name) = &wanted.name else { continue };
            match self.options.iter_mut().find(|(known, _)| known == name) {
                Some((_, value)) => value.clone_from(&wanted.value),
                None => self.options.push((name.clone(), wanted.value.clone())),
            }
        }
    }

    fn limit(&mut self) {
        self.servers.truncate(MAX_NAMESERVERS);
        self.searches.truncate(MAX_SEARCHES);
        let mut chars = 0;
        self.searches.retain(|search| {
            chars += search.len() + 1;
            chars <= MAX_SEARCH_CHARS + 1
        });
    }
}

fn option(word: &str) -> (String, Option<String>) {
    match word.split_once(':') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (word.to_owned(), None),
    }
}

fn add_new<'a>(all: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for item in more {
        if !all.contains(item) {
            all.push(item.clone());
        }
    }
}

impl std::fmt::Display for Resolver {
    /// In the order in which containerd writes it.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.searches.is_empty() {
            writeln!(f, "search {}", self.searches.join(" "))?;
        }
        for server in &self.servers {
            writeln!(f, "nameserver {server}")?;
        }
        if !self.options.is_empty() {
            let words: Vec<String> = self
                .options
                .iter()
                .map(|(name, value)| match value {
                    Some(value) => format!("{name}:{value}"),
                    None => name.clone(),
                })
                .collect();
            writeln!(f, "options {}", words.join(" "))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: &str = "# made by hand\nnameserver 192.0.2.1\nsearch example.com\noptions edns0\n";

    fn conf(spec: serde_json::Value) -> String {
        let cluster = ClusterDns {
            domain: "cluster.local".to_owned(),
            servers: vec!["10.96.0.10".parse().unwrap(), "fd00:96::a".parse().unwrap()],
            walked: false,
        };
        let spec = serde_json::from_value(spec).unwrap();
        Resolver::of_pod(&spec, "shop", &cluster, NODE).to_string()
    }

    const CLUSTER: &str = "search shop.svc.cluster.local svc.cluster.local cluster.local example.com\n\
                           nameserver 10.96.0.10\nnameserver fd00:96::a\noptions ndots:5\n";
    const OF_NODE: &str = "search example.com\nnameserver 192.0.2.1\noptions edns0\n";

    #[test]
    fn policies() {
        for (spec, expected) in [
            (serde_json::json!({"containers": []}), CLUSTER),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "ClusterFirst"}),
                CLUSTER,
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "ClusterFirst",
                                   "hostNetwork": true}),
                OF_NODE,
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "ClusterFirstWithHostNet",
                                   "hostNetwork": true}),
                CLUSTER,
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "Default"}),
                OF_NODE,
            ),
            (
                serde_json::json!({"containers": [], "dnsPolicy": "None"}),
                "",
            ),
        ] {
            assert_eq!(conf(spec.clone()), expected, "{spec}");
        }
    }

    #[test]
    fn the_pods_own_settings_are_merged() {
        let config = serde_json::json!({
            "nameservers": ["192.0.2.53", "10.96.0.10", "192.0.2.54"],
            "searches": ["svc.cluster.local", "my.example"],
            "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}],
        });
        assert_eq!(
            conf(serde_json::json!({"containers": [], "dnsConfig": config})),
            "search shop.svc.cluster.local svc.cluster.local cluster.local example.com my.example\n\
             nameserver 10.96.0.10\nnameserver fd00:96::a\nnameserver 192.0.2.53\n\
             options ndots:2 edns0\n"
        );
        assert_eq!(
            conf(serde_json::json!({
                "containers": [], "dnsPolicy": "None", "dnsConfig": config,
            })),
            "search svc.cluster.local my.example\n\
             nameserver 192.0.2.53\nnameserver 10.96.0.10\nnameserver 192.0.2.54\n\
             options ndots:2 edns0\n"
        );
    }
}
