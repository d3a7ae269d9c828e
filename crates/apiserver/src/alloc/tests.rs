use super::*;

fn allocator(ranges: &[&str]) -> Allocator {
    Allocator::new(&ClusterConfig {
        service_cidrs: ranges.iter().map(|range| range.parse().unwrap()).collect(),
        ..ClusterConfig::default()
    })
}

const V4: &str = "10.96.0.0/16";
const V6: &str = "fd00:96::/112";

fn service(name: &str, spec: Value) -> Value {
    let mut spec = spec;
    if spec["type"].is_null() {
        spec["type"] = json!("ClusterIP");
    }
    if let (Some(one), true) = (spec["clusterIP"].as_str(), spec["clusterIPs"].is_null()) {
        spec["clusterIPs"] = json!([one]);
    }
    json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec})
}

/// Completes and stores; the completed spec, or the message.
fn add(allocator: &mut Allocator, name: &str, spec: Value) -> Result<Value, String> {
    let mut object = service(name, spec);
    allocator
        .complete(&mut object)
        .map_err(|status| status.message)?;
    allocator.stored(None, Some(&object));
    Ok(object["spec"].take())
}

#[test]
fn addresses_are_unique_and_come_back_late() {
    let mut all = allocator(&["10.0.0.0/27"]);
    // 30 hosts, 15 of them for those who ask by number.
    let mut seen = std::collections::BTreeSet::new();
    for index in 0..30 {
        let spec = add(&mut all, &format!("s{index}"), json!({})).unwrap();
        assert!(seen.insert(spec["clusterIP"].as_str().unwrap().to_owned()));
        assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
        assert_eq!(spec["ipFamilyPolicy"], "SingleStack");
    }
    assert!(!seen.contains("10.0.0.0") && !seen.contains("10.0.0.31"));
    let error = add(&mut all, "more", json!({})).unwrap_err();
    assert!(error.contains("range 10.0.0.0/27 is full"), "{error}");
    let gone = service("s3", json!({"clusterIP": "10.0.0.19"}));
    all.stored(Some(&gone), None);
    assert_eq!(
        add(&mut all, "again", json!({})).unwrap()["clusterIP"],
        "10.0.0.19"
    );
}

#[test]
fn addresses_that_are_asked_for() {
    let mut all = allocator(&[V4]);
    let dns = json!({"clusterIP": "10.96.0.10"});
    assert_eq!(
        add(&mut all, "dns", dns.clone()).unwrap()["clusterIPs"],
        json!(["10.96.0.10"])
    );
    // The same service again, as an update does.
    assert!(add(&mut all, "dns", dns.clone()).is_ok());
    assert_eq!(
        add(&mut all, "other", dns).unwrap_err(),
        "Service \"other\" is invalid: spec.clusterIPs: Invalid value: [\"10.96.0.10\"]: failed to \
         allocate IP 10.96.0.10: provided IP is already allocated"
    );
    let error = add(&mut all, "far", json!({"clusterIP": "1.2.3.4"})).unwrap_err();
    assert!(error.contains("is not in the valid range. The range of valid IPs is 10.96.0.0/16"));
    assert!(add(&mut all, "network", json!({"clusterIP": "10.96.0.0"})).is_err());
    assert!(add(&mut all, "broadcast", json!({"clusterIP": "10.96.255.255"})).is_err());
    let headless = add(
        &mut all,
        "h",
        json!({"clusterIP": "None", "selector": {"a": "b"}}),
    );
    assert_eq!(headless.unwrap()["clusterIPs"], json!(["None"]));
    let external = add(&mut all, "e", json!({"type": "ExternalName"})).unwrap();
    assert!(external["clusterIP"].is_null());
}

#[test]
fn families_follow_policy_and_cluster() {
    // Cluster, spec, families or message.
    type Expected = Result<&'static [&'static str], &'static str>;
    let cases: &[(&[&str], Value, Expected)] = &[
        (&[V4, V6], json!({}), Ok(&["IPv4"])),
        (&[V6], json!({}), Ok(&["IPv6"])),
        (&[V4, V6], json!({"ipFamilies": ["IPv6"]}), Ok(&["IPv6"])),
        (
            &[V4, V6],
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            Ok(&["IPv4", "IPv6"]),
        ),
        (
            &[V4],
            json!({"ipFamilyPolicy": "PreferDualStack"}),
            Ok(&["IPv4"]),
        ),
        (
            &[V4, V6],
            json!({"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}),
            Ok(&["IPv6", "IPv4"]),
        ),
        (&[V4, V6], json!({"clusterIP": "fd00:96::5"}), Ok(&["IPv6"])),
        (
            &[V4],
            json!({"ipFamilyPolicy": "RequireDualStack"}),
            Err("this cluster is not configured for dual-stack services"),
        ),
        (
            &[V4],
            json!({"ipFamilies": ["IPv6"]}),
            Err("spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured"),
        ),
        (
            &[V4, V6],
            json!({"ipFamilies": ["IPv4", "IPv6"]}),
            Err("must be RequireDualStack or PreferDualStack"),
        ),
        (&[V4], json!({"clusterIP": "None"}), Ok(&["IPv4", "IPv6"])),
        (
            &[V4, V6],
            json!({"clusterIP": "None", "selector": {"a": "b"}}),
            Ok(&["IPv4"]),
        ),
    ];
    for (cluster, spec, expected) in cases {
        let outcome = add(&mut allocator(cluster), "s", spec.clone());
        match (outcome, expected) {
            (Ok(done), Ok(families)) => {
                assert_eq!(done["ipFamilies"], json!(families), "{spec}");
                if spec["clusterIP"] != "None" {
                    let addresses = done["clusterIPs"].as_array().unwrap();
                    assert_eq!(addresses.len(), families.len(), "{spec}");
                    for (address, family) in addresses.iter().zip(*families) {
                        let address: IpAddr = address.as_str().unwrap().parse().unwrap();
                        assert_eq!(address.is_ipv4(), *family == "IPv4", "{spec}");
                    }
                }
            }
            (Err(message), Err(part)) => assert!(message.contains(part), "{spec}: {message}"),
            (outcome, expected) => panic!("{spec}: {outcome:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn a_second_family_comes_and_goes_with_the_policy() {
    let mut all = allocator(&[V4, V6]);
    let mut spec = add(&mut all, "s", json!({})).unwrap();
    spec["ipFamilyPolicy"] = json!("PreferDualStack");
    let first = spec["clusterIP"].clone();
    let mut spec = add(&mut all, "s", spec).unwrap();
    assert_eq!(spec["clusterIPs"][0], first);
    assert_eq!(spec["clusterIPs"].as_array().unwrap().len(), 2);
    spec["ipFamilyPolicy"] = json!("SingleStack");
    let spec = add(&mut all, "s", spec).unwrap();
    assert_eq!(spec["clusterIPs"], json!([first]));
}

#[test]
fn node_ports() {
    let mut all = allocator(&[V4]);
    let port = |port: u16, protocol: &str| json!({"port": port, "protocol": protocol});
    let dns =
        json!({"type": "NodePort", "ports": [port(53, "UDP"), port(53, "TCP"), port(80, "TCP")]});
    let spec = add(&mut all, "dns", dns).unwrap();
    assert_eq!(spec["ports"][0]["nodePort"], spec["ports"][1]["nodePort"]);
    assert_ne!(spec["ports"][0]["nodePort"], spec["ports"][2]["nodePort"]);
    let asked = |number: u16| json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": number}]});
    add(&mut all, "a", asked(30080)).unwrap();
    assert_eq!(
        add(&mut all, "b", asked(30080)).unwrap_err(),
        "Service \"b\" is invalid: spec.ports[0].nodePort: Invalid value: 30080: provided port is \
         already allocated"
    );
    let error = add(&mut all, "b", asked(80)).unwrap_err();
    assert!(
        error.contains("The range of valid ports is 30000-32767"),
        "{error}"
    );
    let balancer = json!({
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "ports": [port(80, "TCP")],
    });
    let spec = add(&mut all, "lb", balancer).unwrap();
    assert!(spec["healthCheckNodePort"].as_u64().unwrap() >= 30000);
    assert_ne!(spec["healthCheckNodePort"], spec["ports"][0]["nodePort"]);
    let without = json!({
        "type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [port(80, "TCP")],
    });
    let spec = add(&mut all, "lb2", without).unwrap();
    assert!(spec["ports"][0]["nodePort"].is_null());
}

#[test]
fn several_ranges_of_one_family() {
    let mut all = allocator(&["10.0.0.0/30"]);
    let nets = |nets: &[&str]| -> Vec<IpNet> { nets.iter().map(|n| n.parse().unwrap()).collect() };
    for name in ["a", "b"] {
        add(&mut all, name, json!({})).unwrap();
    }
    assert!(
        add(&mut all, "c", json!({}))
            .unwrap_err()
            .contains("is full")
    );
    all.set_ranges(nets(&["10.0.0.0/30", "10.1.0.0/30"]).into_iter());
    let spec = add(&mut all, "c", json!({})).unwrap();
    let third = spec["clusterIP"].as_str().unwrap().to_owned();
    assert!(third.starts_with("10.1.0."), "{third}");
    assert_eq!(spec["ipFamilies"], json!(["IPv4"]));
    let required = json!({"ipFamilyPolicy": "RequireDualStack"});
    assert!(
        add(&mut all, "d", required).is_err(),
        "two ranges are not two families"
    );
    let error = add(&mut all, "d", json!({"clusterIP": "10.2.0.1"})).unwrap_err();
    assert!(
        error.contains("The range of valid IPs is 10.0.0.0/30,10.1.0.0/30"),
        "{error}"
    );

    // A range goes: who has an address of it keeps it, nobody gets a new one.
    all.set_ranges(nets(&["10.0.0.0/30"]).into_iter());
    assert!(add(&mut all, "c", spec).is_ok());
    assert!(add(&mut all, "d", json!({})).is_err());
    // It comes back, and knows what is in use.
    all.set_ranges(nets(&["10.0.0.0/30", "10.1.0.0/30"]).into_iter());
    let error = add(&mut all, "d", json!({"clusterIP": third})).unwrap_err();
    assert!(error.contains("already allocated"), "{error}");
    let spec = add(&mut all, "d", json!({})).unwrap();
    assert_ne!(spec["clusterIP"], json!(third));
    assert!(add(&mut all, "e", json!({})).is_err());
}
