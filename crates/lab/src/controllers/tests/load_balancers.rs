//! Addresses of services of type LoadBalancer; the pools are 172.30.255.0/30, which
//! has two addresses, and fd00:30:ff::/112.

use k8s_openapi::api::core::v1::{Event, Service};

use super::Cluster;

fn balancer(cluster: &Cluster, name: &str, more: &str) {
    cluster.apply::<Service>(&format!(
        "{{apiVersion: v1, kind: Service, metadata: {{namespace: default, name: {name}}}, \
         spec: {{type: LoadBalancer, ports: [{{port: 80}}]{more}}}}}"
    ));
}

fn addresses(cluster: &Cluster, name: &str) -> Vec<String> {
    let service: Service = cluster.get(name);
    let balancer = service.status.unwrap_or_default().load_balancer;
    let ingress = balancer.unwrap_or_default().ingress.unwrap_or_default();
    let address = |entry: k8s_openapi::api::core::v1::LoadBalancerIngress| {
        assert_eq!(entry.ip_mode.as_deref(), Some("VIP"));
        assert_eq!(entry.ports.unwrap()[0].port, 80);
        entry.ip.unwrap()
    };
    ingress.into_iter().map(address).collect()
}

#[test]
fn addresses_come_from_the_pool_and_go_back() {
    let mut cluster = Cluster::new(1);
    balancer(&cluster, "a", "");
    balancer(&cluster, "b", ", ipFamilyPolicy: RequireDualStack");
    cluster.settle();
    assert_eq!(addresses(&cluster, "a"), ["172.30.255.1"]);
    assert_eq!(addresses(&cluster, "b"), ["172.30.255.2", "fd00:30:ff::1"]);

    balancer(&cluster, "c", "");
    cluster.settle();
    assert!(addresses(&cluster, "c").is_empty());
    let events = cluster.client.list::<Event>(Some("default"));
    let said = events
        .iter()
        .find(|event| event.involved_object.name.as_deref() == Some("c"));
    assert_eq!(
        said.unwrap().message.as_deref(),
        Some("no address is left in the lab's pool 172.30.255.0/30")
    );

    cluster.modify::<Service>("a", |service| {
        service.spec.as_mut().unwrap().type_ = Some("ClusterIP".to_owned());
    });
    cluster.settle();
    assert!(addresses(&cluster, "a").is_empty());
    assert_eq!(addresses(&cluster, "c"), ["172.30.255.1"]);
    cluster.delete::<Service>("b");
    balancer(&cluster, "d", "");
    cluster.settle();
    assert_eq!(addresses(&cluster, "d"), ["172.30.255.2"]);
}

#[test]
fn wishes() {
    let mut cluster = Cluster::new(1);
    balancer(&cluster, "asked", ", loadBalancerIP: 172.30.255.2");
    balancer(&cluster, "twice", ", loadBalancerIP: 172.30.255.2");
    balancer(&cluster, "far", ", loadBalancerIP: 192.0.2.1");
    balancer(&cluster, "theirs", ", loadBalancerClass: example.com/other");
    balancer(&cluster, "ours", ", loadBalancerClass: ripstop.dev/lab");
    cluster.settle();
    assert_eq!(addresses(&cluster, "asked"), ["172.30.255.2"]);
    assert!(addresses(&cluster, "twice").is_empty());
    assert!(addresses(&cluster, "far").is_empty());
    assert!(addresses(&cluster, "theirs").is_empty());
    assert_eq!(addresses(&cluster, "ours"), ["172.30.255.1"]);
    // What another controller gave stays.
    cluster
        .client
        .modify_status::<Service>(Some("default"), "theirs", |service| {
            let status = "{loadBalancer: {ingress: [{ip: 192.0.2.9, ipMode: VIP, ports: \
                          [{port: 80, protocol: TCP}]}]}}";
            service.status = Some(serde_saphyr::from_str(status).unwrap());
        })
        .unwrap();
    cluster.settle();
    assert_eq!(addresses(&cluster, "theirs"), ["192.0.2.9"]);
}
