//! Published applications, unmodified: every pod Ready, every service answers by
//! name, by ClusterIP and by the pod's environment, from every pod.

use std::collections::BTreeSet;
use std::path::Path;

use ripstop_tests::{Lab, eventually, published};
use serde_json::Value;

#[test]
fn online_boutique() {
    let Some(file) = published("online-boutique/kubernetes-manifests.yaml") else {
        return;
    };
    let lab = up(&file, &["--nodes", "3"]);
    check_application(&lab, 12, 12);
    // The init container found the frontend by name, or it would not be Ready.
    let load = lab.get(&["pods", "-l", "app=loadgenerator"]);
    let init = load.pointer("/items/0/status/initContainerStatuses/0/state/terminated/exitCode");
    assert_eq!(init, Some(&0.into()));
    // Its own variables say where services are: NAME:PORT.
    let frontend = "deploy/frontend";
    let cart = lab.exec(
        frontend,
        &["sh", "-c", "wget -qO- http://$CART_SERVICE_ADDR/"],
    );
    assert_eq!(answering(&cart, "app"), "cartservice");
}

#[test]
fn guestbook() {
    let Some(file) = published("guestbook/guestbook-all-in-one.yaml") else {
        return;
    };
    let lab = up(&file, &["--nodes", "2"]);
    check_application(&lab, 6, 3);
    a_removed_replica_is_not_asked_again(&lab);
}

fn up(file: &Path, args: &[&str]) -> Lab {
    Lab::up(&[args, &["-f", file.to_str().expect("a path in UTF-8")]].concat())
}

/// What holds for every application: pods Ready, the probe's matrix without a
/// hole, environment variables that lead to services, and kubectl showing it.
fn check_application(lab: &Lab, pods: usize, services: usize) {
    let found = items(&lab.get(&["pods"]));
    assert_eq!(found.len(), pods);
    for pod in &found {
        let ready = pod
            .pointer("/status/conditions")
            .and_then(Value::as_array)
            .is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
        assert!(ready, "{} is not Ready: {}", name(pod), pod["status"]);
    }
    let addresses: BTreeSet<&str> = found
        .iter()
        .filter_map(|pod| pod.pointer("/status/podIP")?.as_str())
        .collect();
    assert_eq!(addresses.len(), pods, "an address each");

    lab.must("probe", &[]);

    let found = items(&lab.get(&["services"]));
    let found: Vec<&Value> = found
        .iter()
        .filter(|service| name(service) != "kubernetes")
        .collect();
    assert_eq!(found.len(), services);
    let pods = items(&lab.get(&["pods"]));
    for service in &found {
        let address = service
            .pointer("/spec/clusterIP")
            .and_then(Value::as_str)
            .expect("an address");
        let port = &service["spec"]["ports"][0]["port"];
        let upper = name(service).to_uppercase().replace('-', "_");
        let variables = format!("echo ${upper}_SERVICE_HOST:${upper}_SERVICE_PORT ${upper}_PORT");
        for pod in &pods {
            // Services that came after the pod are not in its environment.
            let printed = lab.exec(name(pod), &["sh", "-c", &variables]);
            assert_eq!(
                printed.trim(),
                format!("{address}:{port} tcp://{address}:{port}"),
                "{} in the environment of {}",
                name(service),
                name(pod)
            );
        }
    }
    let wide = lab.kubectl(&["get", "pods,services,endpointslices", "-A", "-o", "wide"]);
    for object in pods.iter().chain(found.iter().copied()) {
        assert!(wide.contains(name(object)), "{} in:\n{wide}", name(object));
    }
}

fn a_removed_replica_is_not_asked_again(lab: &Lab) {
    let asked = |times: usize| -> BTreeSet<String> {
        let ask = format!("for i in $(seq {times}); do wget -qO- http://frontend/; echo; done");
        let answers = lab.exec("deploy/redis-master", &["sh", "-c", &ask]);
        answers
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| answering(line, "pod"))
            .collect()
    };
    assert_eq!(asked(60).len(), 3, "replicas share the load");
    lab.kubectl(&["scale", "deployment", "frontend", "--replicas=1"]);
    let left = eventually("one replica is left", || {
        let pods = items(&lab.get(&["pods", "-l", "app=guestbook,tier=frontend"]));
        (pods.len() == 1).then(|| name(&pods[0]).to_owned())
    });
    assert_eq!(asked(60), BTreeSet::from([left]));
}

fn items(list: &Value) -> Vec<Value> {
    list["items"].as_array().cloned().unwrap_or_default()
}

fn name(object: &Value) -> &str {
    object
        .pointer("/metadata/name")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Who answered, as a stand-in says it: its pod, or the application that the
/// pod's name begins with.
fn answering(answer: &str, what: &str) -> String {
    let answer: Value =
        serde_json::from_str(answer).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    let pod = answer["pod"].as_str().expect("a pod's name").to_owned();
    match what {
        "pod" => pod,
        _ => pod.split('-').next().unwrap_or_default().to_owned(),
    }
}
