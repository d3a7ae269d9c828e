//! `ripstop lab probe`: every pod to every pod and service, and what it says
//! when something does not answer.

use ripstop_tests::{Lab, write_manifest};
use serde_json::Value;

/// A pod on every node, behind a service and a headless one; TCP and UDP.
const EVERYWHERE: &str = "
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: echo}
spec:
  selector: {matchLabels: {app: echo}}
  template:
    metadata: {labels: {app: echo}}
    spec:
      containers:
      - name: main
        image: example.com/echo
        ports:
        - {name: web, containerPort: 8080}
        - {name: dns, containerPort: 5353, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: echo}
spec:
  ipFamilyPolicy: PreferDualStack
  selector: {app: echo}
  ports:
  - {name: web, port: 80, targetPort: web}
  - {name: dns, port: 53, targetPort: dns, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: each}
spec:
  clusterIP: None
  selector: {app: echo}
  ports: [{name: web, port: 8080}]
";

fn up(manifest: &str, args: &[&str]) -> Lab {
    let file = write_manifest(manifest);
    Lab::up(&[&["-f", file.path().to_str().unwrap()], args].concat())
}

/// Probes, and returns what was found; all is good.
fn probe(lab: &Lab) -> Value {
    let found = lab.run("probe", &["--output", "json"]);
    let value: Value = serde_json::from_str(&found.stdout).expect("JSON from probe");
    let bad: Vec<_> = value["attempts"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|attempt| attempt["ok"] == false)
        .collect();
    assert!(found.ok && bad.is_empty(), "{bad:#?} {}", found.stderr);
    value
}

#[test]
fn vxlan_carries_between_subnets() {
    let lab = up(EVERYWHERE, &["--nodes", "4", "--subnets", "2"]);
    let found = probe(&lab);
    // 4 pods at 2 ports, `echo` at 2 ports by 2 ways, `each` at 1, the API at 2,
    // the cluster's DNS at 2.
    assert_eq!(found["tried"], 4 * (4 * 2 + 2 * 2 + 1 + 2 + 2), "{found}");
    // It was the tunnel, not the underlay's router.
    let show = ["ip", "-s", "-j", "link", "show", "ripstop.vx"];
    let links: Value = serde_json::from_str(&lab.exec("node/node1", &show)).unwrap();
    let sent = links[0]["stats64"]["tx"]["packets"].as_u64().unwrap();
    assert!(sent > 0, "{links}");
}

#[test]
fn both_families_answer_at_once() {
    let lab = up(EVERYWHERE, &["--nodes", "3", "--dual-stack"]);
    let found = probe(&lab);
    let attempts = found["attempts"].as_array().unwrap();
    let at = |text: &str| {
        attempts
            .iter()
            .any(|a| a["at"].as_str().unwrap().starts_with(text))
    };
    assert!(
        at("10.244.") && at("[fd00:244:") && at("[fd00:96::"),
        "{found}"
    );
}

#[test]
fn both_families_through_the_tunnel() {
    probe(&up(
        EVERYWHERE,
        &["--nodes", "2", "--subnets", "2", "--dual-stack"],
    ));
}

#[test]
fn what_does_not_answer_is_named() {
    // It says that it serves port 80, and does not.
    let silent = "
apiVersion: v1
kind: Pod
metadata: {name: silent}
spec:
  containers:
  - {name: main, image: busybox, command: [sleep, '3600'], ports: [{containerPort: 80}]}
";
    let lab = up(silent, &["--nodes", "1"]);
    let found = lab.run("probe", &[]);
    assert!(!found.ok);
    let line = found
        .stdout
        .lines()
        .find(|line| line.starts_with("FAILED"))
        .expect("a line");
    assert!(
        line.contains("default/silent to pod default/silent at 10.244.1.")
            && line.contains(":80/TCP: Connection refused"),
        "{line}"
    );
}
