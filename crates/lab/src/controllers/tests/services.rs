//! Endpoints of services.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{Endpoints, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use super::Cluster;
use super::cluster::template;

fn service(cluster: &Cluster, spec: &str) {
    cluster.apply::<Service>(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: default, name: web, labels: {{team: a}}}}, \
         spec: {{{spec}}}}}"
    ));
}

const PLAIN: &str = "selector: {app: web}, ipFamilies: [IPv4], clusterIP: 10.96.0.100, \
                     ports: [{name: http, port: 80, targetPort: http}]";

fn replicas(cluster: &Cluster, replicas: i32) {
    cluster.apply::<ReplicaSet>(&format!(
        "{{apiVersion: apps/v1, kind: ReplicaSet, metadata: {{namespace: default, name: web}}, \
         spec: {{replicas: {replicas}, selector: {{matchLabels: {{app: web}}}}, template: {}}}}}",
        template("web", "one")
    ));
}

fn endpoints(slices: &[EndpointSlice]) -> impl Iterator<Item = &Endpoint> {
    slices
        .iter()
        .flat_map(|slice| slice.endpoints.iter().flatten())
}

/// (ready, serving, terminating)
fn conditions(slices: &[EndpointSlice]) -> Vec<(bool, bool, bool)> {
    let mut all: Vec<(bool, bool, bool)> = endpoints(slices)
        .map(|endpoint| {
            let conditions = endpoint.conditions.as_ref().unwrap();
            let is = |condition: Option<bool>| condition.unwrap();
            (
                is(conditions.ready),
                is(conditions.serving),
                is(conditions.terminating),
            )
        })
        .collect();
    all.sort_unstable();
    all
}

#[test]
fn slices_follow_readiness_and_termination() {
    let mut cluster = Cluster::new(2);
    service(&cluster, PLAIN);
    cluster.settle();
    let empty = cluster.slices("web");
    assert_eq!((empty.len(), endpoints(&empty).count()), (1, 0));

    cluster.behaviour.never_ready.insert("web-".to_owned());
    replicas(&cluster, 2);
    cluster.settle();
    assert_eq!(
        conditions(&cluster.slices("web")),
        [(false, false, false); 2]
    );
    cluster.behaviour.never_ready.clear();
    cluster.settle();
    let slices = cluster.slices("web");
    assert_eq!(conditions(&slices), [(true, true, false); 2]);
    assert_eq!(slices.len(), 1);
    let slice = &slices[0];
    assert_eq!(slice.address_type, "IPv4");
    let port = &slice.ports.as_ref().unwrap()[0];
    assert_eq!(
        (port.name.as_deref(), port.port),
        (Some("http"), Some(8080))
    );
    let labels = slice.metadata.labels.as_ref().unwrap();
    assert_eq!(
        labels["endpointslice.kubernetes.io/managed-by"],
        "endpointslice-controller.k8s.io"
    );
    assert_eq!(labels["team"], "a");
    let owner = &slice.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.kind.as_str(), owner.name.as_str()),
        ("Service", "web")
    );
    for endpoint in slice.endpoints.as_ref().unwrap() {
        let target = endpoint.target_ref.as_ref().unwrap();
        let pod: Pod = cluster.get(target.name.as_ref().unwrap());
        assert_eq!(pod.metadata.uid, target.uid);
        assert_eq!(pod.spec.unwrap().node_name, endpoint.node_name);
        assert_eq!(
            pod.status.unwrap().pod_ip.as_ref(),
            endpoint.addresses.first()
        );
    }

    cluster.behaviour.lingers = true;
    let victim = cluster.pod_names("web-")[0].clone();
    cluster.delete::<Pod>(&victim);
    cluster.settle();
    assert_eq!(
        conditions(&cluster.slices("web")),
        [
            (false, true, true),
            (true, true, false),
            (true, true, false)
        ],
        "the one that ends still serves, its replacement is there"
    );
    cluster.behaviour.lingers = false;
    cluster.settle();
    assert_eq!(conditions(&cluster.slices("web")), [(true, true, false); 2]);

    cluster.delete::<Service>("web");
    cluster.settle();
    assert!(cluster.slices("web").is_empty());
}

#[test]
fn both_families_have_slices() {
    let mut cluster = Cluster::new(1);
    replicas(&cluster, 1);
    service(
        &cluster,
        "selector: {app: web}, ipFamilyPolicy: PreferDualStack, ipFamilies: [IPv6, IPv4], \
         clusterIP: None, ports: [{port: 80}]",
    );
    cluster.settle();
    let by_family: BTreeMap<String, Vec<String>> = cluster
        .slices("web")
        .into_iter()
        .map(|slice| {
            let addresses = slice
                .endpoints
                .into_iter()
                .flatten()
                .flat_map(|one| one.addresses);
            (slice.address_type, addresses.collect())
        })
        .collect();
    assert_eq!(by_family["IPv4"].len(), 1);
    assert!(by_family["IPv6"][0].starts_with("fd00:244::"));
    let labels = cluster.slices("web")[0].metadata.labels.clone().unwrap();
    assert!(labels.contains_key("service.kubernetes.io/headless"));
}

#[test]
fn unready_pods_can_be_published() {
    let mut cluster = Cluster::new(1);
    cluster.behaviour.never_ready.insert("web-".to_owned());
    replicas(&cluster, 1);
    service(
        &cluster,
        &format!("{PLAIN}, publishNotReadyAddresses: true"),
    );
    cluster.settle();
    assert_eq!(conditions(&cluster.slices("web")), [(true, false, false)]);
    let endpoints: Endpoints = cluster.get("web");
    assert_eq!(
        endpoints.subsets.unwrap()[0]
            .addresses
            .as_ref()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn zones_come_from_nodes_and_may_be_hints() {
    let mut cluster = Cluster::new(1);
    replicas(&cluster, 1);
    service(
        &cluster,
        &format!("{PLAIN}, trafficDistribution: PreferClose"),
    );
    cluster.settle();
    cluster
        .client
        .modify::<Node>(None, "node1", |node| {
            let labels = node.metadata.labels.get_or_insert_default();
            labels.insert("topology.kubernetes.io/zone".to_owned(), "east".to_owned());
        })
        .unwrap();
    cluster.settle();
    let slices = cluster.slices("web");
    let endpoint = endpoints(&slices).next().unwrap();
    assert_eq!(endpoint.zone.as_deref(), Some("east"));
    let hints = endpoint.hints.as_ref().unwrap().for_zones.as_ref().unwrap();
    assert_eq!(hints[0].name, "east");
}

#[test]
fn named_ports_are_resolved_pod_by_pod() {
    let mut cluster = Cluster::new(1);
    for (name, port) in [("a", 8080), ("b", 9090)] {
        cluster.apply::<Pod>(&format!(
            "{{apiVersion: v1, kind: Pod, metadata: {{namespace: default, name: {name}, labels: {{app: web}}}}, \
             spec: {{hostname: {name}, subdomain: web, containers: [{{name: c, image: one, \
             ports: [{{name: http, containerPort: {port}}}]}}]}}}}"
        ));
    }
    service(&cluster, PLAIN);
    cluster.settle();
    let mut ports: Vec<(i32, String)> = cluster
        .slices("web")
        .into_iter()
        .map(|slice| {
            let hostname = slice.endpoints.unwrap()[0].hostname.clone().unwrap();
            (slice.ports.unwrap()[0].port.unwrap(), hostname)
        })
        .collect();
    ports.sort();
    assert_eq!(ports, [(8080, "a".to_owned()), (9090, "b".to_owned())]);
}

#[test]
fn many_endpoints_are_split_and_the_old_form_has_them_all() {
    let mut cluster = Cluster::new(5);
    service(&cluster, PLAIN);
    replicas(&cluster, 230);
    cluster.settle();
    let slices = cluster.slices("web");
    let mut sizes: Vec<usize> = slices
        .iter()
        .map(|slice| slice.endpoints.as_ref().unwrap().len())
        .collect();
    sizes.sort_unstable();
    assert_eq!(sizes.iter().sum::<usize>(), 230);
    assert!(sizes.iter().all(|size| *size <= 100), "{sizes:?}");
    let endpoints: Endpoints = cluster.get("web");
    assert_eq!(
        endpoints.subsets.unwrap()[0]
            .addresses
            .as_ref()
            .unwrap()
            .len(),
        230
    );
}

#[test]
fn the_old_form_follows_and_goes_with_its_service() {
    let mut cluster = Cluster::new(1);
    service(&cluster, PLAIN);
    cluster.settle();
    assert_eq!(
        cluster.get::<Endpoints>("web").subsets.unwrap_or_default(),
        []
    );
    cluster.behaviour.never_ready.insert("web-".to_owned());
    replicas(&cluster, 1);
    cluster.settle();
    let subset = cluster.get::<Endpoints>("web").subsets.unwrap().remove(0);
    assert_eq!(subset.addresses, None);
    assert_eq!(subset.not_ready_addresses.unwrap().len(), 1);
    cluster.behaviour.never_ready.clear();
    cluster.settle();
    let subset = cluster.get::<Endpoints>("web").subsets.unwrap().remove(0);
    assert_eq!(
        (subset.addresses.unwrap().len(), subset.not_ready_addresses),
        (1, None)
    );
    cluster.delete::<Service>("web");
    cluster.settle();
    assert!(
        cluster
            .client
            .get::<Endpoints>(Some("default"), "web")
            .is_none()
    );
}

#[test]
fn hand_written_endpoints_are_mirrored() {
    let mut cluster = Cluster::new(1);
    service(
        &cluster,
        "ipFamilies: [IPv4], clusterIP: 10.96.0.100, ports: [{port: 80}]",
    );
    cluster.apply::<Endpoints>(
        "{apiVersion: v1, kind: Endpoints, metadata: {namespace: default, name: web}, subsets: [\
         {addresses: [{ip: 192.0.2.1}, {ip: '2001:db8::1'}], notReadyAddresses: [{ip: 192.0.2.2}], \
         ports: [{port: 8080}]}]}",
    );
    cluster.settle();
    let mut seen: Vec<(String, bool)> = endpoints(&cluster.slices("web"))
        .map(|one| {
            (
                one.addresses[0].clone(),
                one.conditions.as_ref().unwrap().ready.unwrap(),
            )
        })
        .collect();
    seen.sort();
    let expected = [
        ("192.0.2.1", true),
        ("192.0.2.2", false),
        ("2001:db8::1", true),
    ];
    assert_eq!(seen, expected.map(|(ip, ready)| (ip.to_owned(), ready)));
    cluster.delete::<Endpoints>("web");
    cluster.settle();
    assert!(cluster.slices("web").is_empty());
}
