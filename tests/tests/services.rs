//! Services as a lab's API and agents have them, whatever carries them.

use std::collections::BTreeSet;
use std::process::Command;

use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::{Value, json};

/// One pod on each node that `web` counts replicas for, and its service.
fn web(replicas: usize, service: &str) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: web}}}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - topologyKey: kubernetes.io/hostname
            labelSelector: {{matchLabels: {{app: web}}}}
      containers:
      - {{name: main, image: example.com/web, ports: [{{containerPort: 80}}]}}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80}}], {service}}}
"
    )
}

fn up(args: &[&str], manifest: &str) -> Lab {
    let manifest = write_manifest(manifest);
    Lab::up(&[args, &["-f", manifest.path().to_str().unwrap()]].concat())
}

fn shown(lab: &Lab, node: &str) -> Value {
    let printed = lab.agent(node, &["service", "show", "default/web", "-o", "json"]);
    assert!(printed.ok, "{}", printed.stderr);
    serde_json::from_str(&printed.stdout).unwrap()
}

/// Addresses behind the frontends of one kind.
fn backends(shown: &Value, kind: &str) -> BTreeSet<String> {
    let frontends = shown["frontends"].as_array().unwrap();
    let frontends = frontends.iter().filter(|one| one["kind"] == kind);
    let backends = frontends.flat_map(|one| one["backends"].as_array().unwrap());
    backends
        .map(|backend| backend["address"].as_str().unwrap().to_owned())
        .collect()
}

/// Where the underlay's router sends packets for an address, if anywhere.
fn way(lab: &Lab, address: &str) -> Option<String> {
    let family = if address.contains(':') { "-6" } else { "-4" };
    let underlay = format!("{}.underlay", lab.name());
    let routes = Command::new("ip")
        .args(["-j", "-n", &underlay, family, "route", "show", address])
        .output()
        .unwrap();
    let routes: Value = serde_json::from_slice(&routes.stdout).unwrap();
    Some(routes[0]["gateway"].as_str()?.to_owned())
}

#[test]
fn a_load_balancer_is_announced_from_nodes_with_endpoints() {
    let service = "type: LoadBalancer, externalTrafficPolicy: Local, \
                   ipFamilyPolicy: RequireDualStack";
    let lab = up(
        &["--nodes", "2", "--dual-stack", "--lb-pool", "192.0.2.0/29"],
        &web(1, service),
    );
    let balancer = eventually("addresses of the load balancer", || {
        let service = lab.get(&["service", "web"]);
        let balancer = service["status"]["loadBalancer"]["ingress"].clone();
        (balancer.as_array()?.len() == 2).then_some(balancer)
    });
    assert_eq!(balancer[0]["ip"], "192.0.2.1");
    assert_eq!(balancer[0]["ipMode"], "VIP");
    assert_eq!(balancer[1]["ip"], "fd00:30:ff::1");

    let pod = &lab.get(&["pods", "-l", "app=web"])["items"][0];
    let (here, there) = match pod["spec"]["nodeName"].as_str().unwrap() {
        "node1" => ("172.30.1.11", "172.30.1.12"),
        _ => ("172.30.1.12", "172.30.1.11"),
    };
    eventually("a route to the node with the pod", || {
        (way(&lab, "192.0.2.1")? == here).then_some(())
    });
    eventually("an IPv6 route", || way(&lab, "fd00:30:ff::1"));

    let service = lab.get(&["service", "web"]);
    let port = &service["spec"]["healthCheckNodePort"];
    let ask = |node: &str| {
        let url = format!("http://{node}:{port}/");
        let curl = [
            "--outside",
            "--",
            "curl",
            "-s",
            "-m",
            "5",
            "-w",
            " %{http_code}",
            &url,
        ];
        let printed = lab.run("exec", &curl).stdout;
        let (body, code) = printed.rsplit_once(' ')?;
        Some((serde_json::from_str::<Value>(body).ok()?, code.to_owned()))
    };
    for (node, count, expected) in [(here, 1, "200"), (there, 0, "503")] {
        let body = json!({
            "service": {"namespace": "default", "name": "web"},
            "localEndpoints": count,
            "serviceProxyHealthy": true,
        });
        eventually("the node's health check", || {
            (ask(node)? == (body.clone(), expected.to_owned())).then_some(())
        });
    }

    lab.kubectl(&["delete", "service", "web"]);
    eventually("nothing of it is left", || {
        (way(&lab, "192.0.2.1").is_none() && ask(here).is_none()).then_some(())
    });
}

#[test]
fn hints_keep_traffic_in_its_zone() {
    let service = "trafficDistribution: PreferSameZone";
    let lab = up(
        &["--nodes", "2", "--zones", "2", "--ip-family", "ipv6"],
        &web(2, service),
    );
    let addresses = |node: &str| -> BTreeSet<String> {
        let pods = lab.get(&["pods", "-l", "app=web"]);
        let pods = pods["items"].as_array().unwrap().iter();
        let pods = pods.filter(|pod| pod["spec"]["nodeName"] == node);
        pods.map(|pod| pod["status"]["podIP"].as_str().unwrap().to_owned())
            .collect()
    };
    for node in ["node1", "node2"] {
        let own = addresses(node);
        assert_eq!(own.len(), 1);
        eventually("only endpoints of the zone", || {
            (backends(&shown(&lab, node), "ClusterIP") == own).then_some(())
        });
    }
    // Without a zone hints mean nothing.
    lab.kubectl(&["label", "node", "node2", "topology.kubernetes.io/zone-"]);
    eventually("all endpoints", || {
        (backends(&shown(&lab, "node2"), "ClusterIP").len() == 2).then_some(())
    });
}

#[test]
fn the_inside_view() {
    let lab = up(&["--nodes", "1"], &web(1, "type: NodePort"));
    let pod = lab.get(&["pods", "-l", "app=web"])["items"][0].clone();
    let service = lab.get(&["service", "web"]);
    let one = eventually("a backend", || {
        let one = shown(&lab, "node1");
        (backends(&one, "ClusterIP").len() == 1).then_some(one)
    });
    assert_eq!(one["endpoints"][0]["pod"], pod["metadata"]["name"]);
    assert_eq!(one["endpoints"][0]["ready"], true);
    let frontends = one["frontends"].as_array().unwrap();
    let at = |kind: &str| -> BTreeSet<(String, u64)> {
        let of = frontends.iter().filter(|one| one["kind"] == kind);
        of.map(|one| {
            let address = one["address"].as_str().unwrap().to_owned();
            (address, one["port"].as_u64().unwrap())
        })
        .collect()
    };
    let cluster = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    assert_eq!(at("ClusterIP"), [(cluster, 80)].into());
    let port = service["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let nodes = ["127.0.0.1", "172.30.1.11"].map(|ip| (ip.to_owned(), port));
    assert_eq!(at("NodePort"), nodes.into());

    let list = lab.agent("node1", &["service", "list"]);
    assert!(
        list.stdout.contains("default/kubernetes"),
        "{}",
        list.stdout
    );
    let verified = lab.agent("node1", &["status", "--verify"]);
    assert!(verified.ok, "{}", verified.stdout);
    assert!(verified.stdout.contains(" 0 differ"), "{}", verified.stdout);

    let nobody = lab.agent("node1", &["service", "show", "default/nobody"]);
    assert!(!nobody.ok);
    assert_eq!(
        nobody.stderr,
        "ripstop: there is no service default/nobody\n"
    );
    let nowhere = lab.agent("node7", &["service", "list"]);
    assert!(
        nowhere.stderr.contains("there is no node \"node7\""),
        "{}",
        nowhere.stderr
    );
}

#[test]
fn what_is_ignored_is_said_on_the_object() {
    let lab = up(
        &["--nodes", "2"],
        &web(1, "externalIPs: [192.0.2.7, '2001:db8::7']"),
    );
    let message = "spec.externalIPs: 2001:db8::7: the service has no ClusterIP of this family";
    eventually("an event of each node", || {
        let events = lab.get(&["events", "--field-selector", "involvedObject.name=web"]);
        let ours = events["items"].as_array()?.iter();
        let ours = ours.filter(|event| event["message"] == message);
        let hosts: BTreeSet<_> = ours
            .map(|event| event["source"]["host"].as_str().unwrap().to_owned())
            .collect();
        (hosts.len() == 2).then_some(())
    });
    let status = || -> Value {
        let printed = lab.agent("node1", &["status", "-o", "json"]);
        serde_json::from_str(&printed.stdout).unwrap()
    };
    assert_eq!(status()["ignored"][0]["message"], message);
    assert_eq!(status()["ignoredTotal"]["WrongFamily"], 1);
    // The rest works.
    assert_eq!(backends(&shown(&lab, "node1"), "ExternalIP").len(), 1);

    let patch = r#"{"spec": {"externalIPs": ["192.0.2.7"]}}"#;
    lab.kubectl(&["patch", "service", "web", "-p", patch]);
    eventually("nothing is ignored", || {
        (status()["ignored"] == json!([])).then_some(())
    });
}

#[test]
fn addresses_of_another_range() {
    let lab = up(&["--nodes", "1"], &web(1, "type: ClusterIP"));
    let more = write_manifest(
        "
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: more}
spec: {cidrs: [10.97.0.0/24]}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {selector: {app: web}, clusterIP: 10.97.0.7, ports: [{port: 80}]}
",
    );
    lab.must("apply", &["-f", more.path().to_str().unwrap()]);
    let answer = eventually("an answer at the new address", || {
        let curl = [
            "deploy/web",
            "--",
            "curl",
            "-s",
            "-m",
            "2",
            "http://10.97.0.7/",
        ];
        let printed = lab.run("exec", &curl);
        serde_json::from_str::<Value>(&printed.stdout).ok()
    });
    assert!(answer["pod"].as_str().unwrap().starts_with("web-"));
    // So are its addresses' names, and that there are no others.
    let ask = |address: &str| {
        let dig = ["deploy/web", "--", "dig", "-x", address];
        lab.run("exec", &dig).stdout
    };
    let answer = ask("10.97.0.7");
    assert!(
        answer.contains("far.default.svc.cluster.local."),
        "{answer}"
    );
    let answer = ask("10.97.0.8");
    assert!(
        answer.contains("NXDOMAIN") && answer.contains(" aa "),
        "{answer}"
    );
}
