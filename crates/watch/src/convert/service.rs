//! Service.

use std::net::IpAddr;

use k8s_openapi::api::core::v1 as core;
use ripstop_model::{
    ObjectKey, ObjectKind, ObjectRef, Reason, Service, ServiceKind, ServicePort, TrafficPolicy,
};

use super::{Converted, Reader, has_own_proxy, key, listed};
use crate::objects::{ServiceObject, ServiceStatus};

/// Seconds of `sessionAffinityConfig.clientIP.timeoutSeconds` where it is absent.
const AFFINITY_DEFAULT: u32 = 10_800;
/// One day, the longest that the API allows.
const AFFINITY_MAX: u32 = 86_400;

/// A service as far as the network needs it.
pub fn service(object: &ServiceObject) -> Converted<Service> {
    let key = key(&object.metadata);
    let mut read = Reader::new(ObjectRef::new(ObjectKind::Service, key.clone()));
    let status = object.status.as_ref();
    let spec = match &object.spec {
        Some(spec) => read.spec(key, spec, status),
        None => Service::new(key),
    };
    read.give(Service {
        proxied: !has_own_proxy(&object.metadata),
        ..spec
    })
}

impl Reader {
    fn spec(
        &mut self,
        key: ObjectKey,
        spec: &core::ServiceSpec,
        status: Option<&ServiceStatus>,
    ) -> Service {
        let alias = || ServiceKind::ExternalName(spec.external_name.clone().unwrap_or_default());
        let kinds = [
            ("ClusterIP", ServiceKind::ClusterIp),
            ("NodePort", ServiceKind::NodePort),
            ("LoadBalancer", ServiceKind::LoadBalancer),
            ("ExternalName", alias()),
        ];
        let text = spec.type_.as_deref();
        let kind = self.choice("spec.type", text, ServiceKind::ClusterIp, kinds);
        let external = matches!(kind, ServiceKind::ExternalName(_));
        let addresses = listed(spec.cluster_ips.as_ref(), spec.cluster_ip.as_ref());
        let headless = !external && addresses.first().is_some_and(|a| a == "None");
        let cluster_ips = match headless || external {
            true => Vec::new(),
            false => self.addresses("spec.clusterIPs", addresses),
        };
        let ports = spec.ports.iter().flatten().enumerate();
        let ports = ports.filter_map(|(i, port)| self.service_port(i, port));
        let ports = ports.collect();
        let external_ips = spec.external_ips.as_deref().unwrap_or_default();
        let load_balancer = kind == ServiceKind::LoadBalancer;
        let internal = spec.internal_traffic_policy.as_deref();
        let external = spec.external_traffic_policy.as_deref();
        Service {
            kind,
            cluster_ips,
            headless,
            ports,
            publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
            external_ips: self.addresses("spec.externalIPs", external_ips),
            load_balancer_ips: match load_balancer {
                true => self.ingress(status),
                false => Vec::new(),
            },
            load_balancer_source_ranges: match load_balancer {
                true => self.source_ranges(spec),
                false => Vec::new(),
            },
            affinity: self.affinity(spec),
            internal_policy: self.policy("spec.internalTrafficPolicy", internal),
            external_policy: self.policy("spec.externalTrafficPolicy", external),
            // Zero while none has been allocated.
            health_check_node_port: spec
                .health_check_node_port
                .filter(|number| *number != 0)
                .and_then(|number| self.port(|| "spec.healthCheckNodePort".to_owned(), number)),
            ..Service::new(key)
        }
    }

    fn service_port(&mut self, i: usize, port: &core::ServicePort) -> Option<ServicePort> {
        let at = |field: &str| format!("spec.ports[{i}].{field}");
        Some(ServicePort {
            name: port.name.clone().unwrap_or_default(),
            protocol: self.protocol(|| at("protocol"), port.protocol.as_deref())?,
            port: self.port(|| at("port"), port.port)?,
            // Zero while none has been allocated.
            node_port: port
                .node_port
                .filter(|number| *number != 0)
                .and_then(|number| self.port(|| at("nodePort"), number)),
            app_protocol: port.app_protocol.clone(),
        })
    }

    fn addresses(&mut self, field: &str, texts: &[String]) -> Vec<IpAddr> {
        let texts = texts.iter().enumerate();
        texts
            .filter_map(|(i, text)| self.address(|| format!("{field}[{i}]"), text))
            .collect()
    }

    /// Addresses of the load balancer that are for us to answer: those of
    /// `ipMode: Proxy` are its own business (KEP-1860).
    fn ingress(&mut self, status: Option<&ServiceStatus>) -> Vec<IpAddr> {
        let ingress = status
            .and_then(|status| status.load_balancer.as_ref())
            .and_then(|balancer| balancer.ingress.as_deref())
            .unwrap_or_default();
        let mut addresses = Vec::new();
        for (i, entry) in ingress.iter().enumerate() {
            if entry.ip_mode.as_deref() == Some("Proxy") {
                continue;
            }
            let Some(text) = entry.ip.as_deref().filter(|text| !text.is_empty()) else {
                continue;
            };
            let field = || format!("status.loadBalancer.ingress[{i}].ip");
            addresses.extend(self.address(field, text));
        }
        addresses
    }

    /// A range that makes no sense lets nobody in, also when it is the only one.
    fn source_ranges(&mut self, spec: &core::ServiceSpec) -> Vec<ipnet::IpNet> {
        let field = "spec.loadBalancerSourceRanges";
        let texts = spec
            .load_balancer_source_ranges
            .as_deref()
            .unwrap_or_default();
        let ranges: Vec<_> = texts
            .iter()
            .enumerate()
            .filter_map(|(i, text)| self.range(|| format!("{field}[{i}]"), text))
            .collect();
        match ranges.is_empty() && !texts.is_empty() {
            true => vec![NOBODY],
            false => ranges,
        }
    }

    fn affinity(&mut self, spec: &core::ServiceSpec) -> Option<u32> {
        let kinds = [("None", false), ("ClientIP", true)];
        let text = spec.session_affinity.as_deref();
        if !self.choice("spec.sessionAffinity", text, false, kinds) {
            return None;
        }
        let config = spec.session_affinity_config.as_ref();
        let given = config
            .and_then(|config| config.client_ip.as_ref())
            .and_then(|client| client.timeout_seconds);
        let Some(seconds) = given else {
            return Some(AFFINITY_DEFAULT);
        };
        let valid = u32::try_from(seconds)
            .ok()
            .filter(|seconds| (1..=AFFINITY_MAX).contains(seconds));
        if valid.is_none() {
            self.note(
                Reason::InvalidField,
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                &format!(
                    "{seconds} is not between 1 and {AFFINITY_MAX}; {AFFINITY_DEFAULT} is taken"
                ),
            );
        }
        Some(valid.unwrap_or(AFFINITY_DEFAULT))
    }

    fn policy(&mut self, field: &str, text: Option<&str>) -> TrafficPolicy {
        let text = text.filter(|text| !text.is_empty());
        let policies = [
            ("Cluster", TrafficPolicy::Cluster),
            ("Local", TrafficPolicy::Local),
        ];
        self.choice(field, text, TrafficPolicy::Cluster, policies)
    }
}

/// No packet comes from the unspecified address.
const NOBODY: ipnet::IpNet = ipnet::IpNet::V4(ipnet::Ipv4Net::new_assert(
    std::net::Ipv4Addr::UNSPECIFIED,
    32,
));
