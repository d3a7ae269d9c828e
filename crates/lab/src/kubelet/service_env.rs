//! Services as environment variables.
//! <https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables>

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Service, ServicePort};

/// Variables of the services that a pod of `namespace` is told about: its own
/// namespace's if `links` (`enableServiceLinks`), and the API's in any case.
pub(super) fn variables<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    namespace: &str,
    links: bool,
) -> BTreeMap<String, String> {
    let mut chosen = BTreeMap::new();
    for service in services {
        let (Some(name), Some(from)) = (&service.metadata.name, &service.metadata.namespace) else {
            continue;
        };
        if from == "default" && name == "kubernetes" {
            // A service of the pod's own namespace with that name wins.
            chosen.entry(name).or_insert(service);
        } else if from == namespace && links {
            chosen.insert(name, service);
        }
    }
    let mut variables = BTreeMap::new();
    for (name, service) in chosen {
        add(&mut variables, &env_name(name), service);
    }
    variables
}

/// `redis-master` becomes `REDIS_MASTER`.
fn env_name(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

fn add(variables: &mut BTreeMap<String, String>, prefix: &str, service: &Service) {
    let Some(spec) = &service.spec else { return };
    let Some(ip) = spec
        .cluster_ip
        .as_deref()
        .filter(|ip| !ip.is_empty() && *ip != "None")
    else {
        return;
    };
    let ports = spec.ports.as_deref().unwrap_or_default();
    let mut set = |suffix: &str, value: String| {
        variables.insert(format!("{prefix}_{suffix}"), value);
    };
    set("SERVICE_HOST", ip.to_owned());
    if let Some(first) = ports.first() {
        set("SERVICE_PORT", first.port.to_string());
        // The form that Docker's container links had.
        set("PORT", url(ip, first));
    }
    for port in ports {
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            set(
                &format!("SERVICE_PORT_{}", env_name(name)),
                port.port.to_string(),
            );
        }
        let link = format!("PORT_{}_{}", port.port, protocol(port));
        set(&link, url(ip, port));
        set(&format!("{link}_PROTO"), protocol(port).to_lowercase());
        set(&format!("{link}_PORT"), port.port.to_string());
        set(&format!("{link}_ADDR"), ip.to_owned());
    }
}

fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

fn url(ip: &str, port: &ServicePort) -> String {
    let host = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    format!("{}://{host}:{}", protocol(port).to_lowercase(), port.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(namespace: &str, name: &str, ip: &str, ports: serde_json::Value) -> Service {
        serde_json::from_value(serde_json::json!({
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"clusterIP": ip, "ports": ports},
        }))
        .unwrap()
    }

    fn lines(variables: &BTreeMap<String, String>) -> Vec<String> {
        variables
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn every_form() {
        let services = [service(
            "shop",
            "redis-master",
            "10.96.0.11",
            serde_json::json!([
                {"name": "db-port", "port": 6379},
                {"name": "stats", "port": 53, "protocol": "UDP"},
            ]),
        )];
        assert_eq!(
            lines(&variables(&services, "shop", true)),
            [
                "REDIS_MASTER_PORT=tcp://10.96.0.11:6379",
                "REDIS_MASTER_PORT_53_UDP=udp://10.96.0.11:53",
                "REDIS_MASTER_PORT_53_UDP_ADDR=10.96.0.11",
                "REDIS_MASTER_PORT_53_UDP_PORT=53",
                "REDIS_MASTER_PORT_53_UDP_PROTO=udp",
                "REDIS_MASTER_PORT_6379_TCP=tcp://10.96.0.11:6379",
                "REDIS_MASTER_PORT_6379_TCP_ADDR=10.96.0.11",
                "REDIS_MASTER_PORT_6379_TCP_PORT=6379",
                "REDIS_MASTER_PORT_6379_TCP_PROTO=tcp",
                "REDIS_MASTER_SERVICE_HOST=10.96.0.11",
                "REDIS_MASTER_SERVICE_PORT=6379",
                "REDIS_MASTER_SERVICE_PORT_DB_PORT=6379",
                "REDIS_MASTER_SERVICE_PORT_STATS=53",
            ]
        );
    }

    #[test]
    fn ipv6_is_bracketed_in_urls_only() {
        let services = [service(
            "a",
            "web",
            "fd00:96::7",
            serde_json::json!([{"port": 80}]),
        )];
        let variables = variables(&services, "a", true);
        assert_eq!(variables["WEB_SERVICE_HOST"], "fd00:96::7");
        assert_eq!(variables["WEB_PORT"], "tcp://[fd00:96::7]:80");
        assert_eq!(variables["WEB_PORT_80_TCP_ADDR"], "fd00:96::7");
    }

    #[test]
    fn which_services() {
        let port = serde_json::json!([{"port": 443}]);
        let services = [
            service("default", "kubernetes", "10.96.0.1", port.clone()),
            service("default", "other", "10.96.0.2", port.clone()),
            service("a", "mine", "10.96.0.3", port.clone()),
            service("a", "headless", "None", port.clone()),
            service("a", "external", "", port.clone()),
            service("b", "theirs", "10.96.0.4", port),
        ];
        let hosts = |namespace, links| {
            let mut variables = variables(&services, namespace, links);
            variables.retain(|name, _| name.ends_with("_SERVICE_HOST"));
            variables.into_keys().collect::<Vec<_>>()
        };
        assert_eq!(
            hosts("a", true),
            ["KUBERNETES_SERVICE_HOST", "MINE_SERVICE_HOST"]
        );
        assert_eq!(hosts("a", false), ["KUBERNETES_SERVICE_HOST"]);
        assert_eq!(
            hosts("default", true),
            ["KUBERNETES_SERVICE_HOST", "OTHER_SERVICE_HOST"]
        );
    }

    #[test]
    fn the_pods_own_kubernetes_service_wins() {
        let port = serde_json::json!([{"port": 443}]);
        for order in [[0, 1], [1, 0]] {
            let both = [
                service("default", "kubernetes", "10.96.0.1", port.clone()),
                service("a", "kubernetes", "10.96.0.9", port.clone()),
            ];
            let services = order.map(|i| both[i].clone());
            let variables = variables(&services, "a", true);
            assert_eq!(variables["KUBERNETES_SERVICE_HOST"], "10.96.0.9");
        }
    }
}
