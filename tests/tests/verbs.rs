//! What people type at a lab that is up.

use std::io::Read;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::{Lab, eventually, write_manifest};
use serde_json::Value;

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: example.com/web, ports: [{containerPort: 80}]}
      - name: side
        image: busybox
        command: [sh, -c, 'echo hello from the side; exec sleep 3600']
        env: [{name: COLOUR, value: green}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80}]
";

/// A pod that never becomes ready.
const BROKEN: &str = "
apiVersion: v1
kind: Pod
metadata: {name: broken}
spec:
  containers:
  - name: main
    image: busybox
    command: [sleep, '3600']
    readinessProbe: {exec: {command: ['false']}, periodSeconds: 1}
";

#[test]
fn commands_run_in_pods_and_on_nodes() {
    let manifest = write_manifest(WEB);
    let lab = Lab::up(&["--nodes", "1", "-f", manifest.path().to_str().unwrap()]);

    let pod = lab.exec("deploy/web", &["hostname"]);
    assert!(pod.starts_with("web-"), "{pod}");
    let colour = lab.must(
        "exec",
        &["-c", "side", "deploy/web", "--", "printenv", "COLOUR"],
    );
    assert_eq!(colour, "green\n");
    let names = lab.exec(pod.trim(), &["cat", "/etc/resolv.conf"]);
    assert!(names.contains("nameserver 10.96.0.10"), "{names}");
    let log = lab.must("logs", &["-c", "side", "deploy/web"]);
    assert_eq!(log, "hello from the side\n");

    // The node's own network: a service answers it as well.
    let links = lab.exec("node/node1", &["cat", "/proc/self/net/dev"]);
    assert!(links.contains("eth0"), "{links}");
    let group = lab.exec("node/node1", &["cat", "/proc/self/cgroup"]);
    assert!(
        group.contains(&format!("ripstop.{}/node1", lab.name())),
        "{group}"
    );

    // Outside the cluster, where no service is anything.
    let outside = lab.must("exec", &["--outside", "--", "cat", "/proc/self/cgroup"]);
    assert!(
        outside.contains(&format!("ripstop.{}/outside", lab.name())),
        "{outside}"
    );

    let status = lab
        .command("exec", &["deploy/web", "--", "sh", "-c", "exit 7"])
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));

    for (target, container, expect) in [
        ("nobody", "main", "pods \"nobody\" not found"),
        (
            "deploy/web",
            "nobody",
            "has no container \"nobody\"; it has main, side",
        ),
        ("svc/web", "main", "expected POD, deploy/NAME"),
        ("node/node9", "main", "no node \"node9\""),
    ] {
        let printed = lab.run("exec", &["-c", container, target, "--", "true"]);
        assert!(
            !printed.ok && printed.stderr.contains(expect),
            "{target}: {}",
            printed.stderr
        );
    }
}

#[test]
fn what_the_api_refuses_is_named_and_the_rest_is_applied() {
    let manifest = write_manifest(WEB);
    let lab = Lab::up(&["--nodes", "1", "-f", manifest.path().to_str().unwrap()]);
    // A selector cannot be changed (line 5 of it); the Service can be made.
    let changed = "apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: other}}
  template:
    metadata: {labels: {app: other}}
    spec: {containers: [{name: main, image: example.com/web}]}
---
apiVersion: v1
kind: Service
metadata: {name: another}
spec: {ports: [{port: 81}]}
";
    let changed = write_manifest(changed);
    let path = changed.path().to_str().unwrap();
    let applied = lab.run("apply", &["-f", path]);
    assert!(!applied.ok);
    assert!(
        applied.stdout.contains("service/another created"),
        "{}",
        applied.stdout
    );
    let place = format!("{path}:5: deployment.apps/web: spec.selector: ");
    assert!(applied.stderr.contains(&place), "{}", applied.stderr);

    let again = write_manifest(WEB);
    let path = again.path().to_str().unwrap();
    assert!(
        lab.must("apply", &["-f", path])
            .contains("deployment.apps/web configured")
    );
    assert!(
        lab.must("delete", &["-f", path])
            .contains("service/web deleted")
    );
    let twice = lab.run("delete", &["-f", path]);
    assert!(
        !twice.ok && twice.stderr.contains("not found"),
        "{}",
        twice.stderr
    );
    lab.must("delete", &["--ignore-not-found", "-f", path]);
}

#[test]
fn what_does_not_become_ready_is_named() {
    let manifest = write_manifest(BROKEN);
    let lab = Lab::unborn();
    let up = lab.run(
        "up",
        &[
            "--nodes",
            "1",
            "--timeout",
            "2",
            "-f",
            manifest.path().to_str().unwrap(),
        ],
    );
    assert!(!up.ok);
    assert!(
        up.stderr.contains(
            "pod default/broken: container main runs and is not ready; Readiness probe failed"
        ),
        "{}",
        up.stderr
    );
    // It stays, to be looked at.
    assert!(lab.must("status", &[]).contains("1 not ready"));
    let again = lab.run("probe", &[]);
    assert!(
        !again.ok && again.stderr.contains("no pod that is ready"),
        "{}",
        again.stderr
    );
}

#[test]
fn an_interrupted_up_leaves_nothing() {
    let manifest = write_manifest(BROKEN);
    let lab = Lab::unborn();
    let mut up = lab
        .command(
            "up",
            &["--nodes", "1", "-f", manifest.path().to_str().unwrap()],
        )
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    eventually("the pod is there", || {
        let pods = lab.try_kubectl(&["get", "pod", "broken"]);
        pods.ok.then_some(())
    });
    kill(Pid::from_raw(up.id().cast_signed()), Signal::SIGINT).unwrap();
    assert!(!up.wait().unwrap().success());
    let mut said = String::new();
    up.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("interrupted"), "{said}");
    assert!(!lab.root().exists());
}

/// What people send with a report: what there is of the node, and no secret.
#[test]
fn a_bundle_for_a_report() {
    let lab = Lab::up(&["--nodes", "1"]);
    let folder = ripstop_tests::visible_folder();
    let file = folder.path().join("bundle.tar.gz");
    let printed = lab.agent("node1", &["status", "--bundle", file.to_str().unwrap()]);
    assert!(printed.ok, "{}", printed.stderr);
    let unpacked = Command::new("tar")
        .arg("-xzf")
        .arg(&file)
        .arg("-C")
        .arg(folder.path())
        .status()
        .unwrap();
    assert!(unpacked.success());
    let root = folder.path().join("ripstop");
    let read = |name: &str| std::fs::read_to_string(root.join(name)).unwrap();
    let status: Value = serde_json::from_str(&read("status.json")).unwrap();
    assert_eq!(status["node"], "node1");
    let verified: Value = serde_json::from_str(&read("verify.json")).unwrap();
    assert_eq!(verified["drift"], Value::Array(Vec::new()));
    assert!(read("services.json").contains("kubernetes"));
    // The node's own links, and not the machine's.
    let address = lab.get(&["node", "node1"]);
    let address = address.pointer("/status/addresses/0/address").unwrap();
    assert!(read("machine/addresses.txt").contains(address.as_str().unwrap()));
    let contents = read("CONTENTS.txt");
    // JSON is YAML, and this one is JSON.
    let kubeconfig = std::fs::read(lab.root().join("agent.kubeconfig")).unwrap();
    let kubeconfig: Value = serde_json::from_slice(&kubeconfig).unwrap();
    let key = kubeconfig.pointer("/users/0/user/client-key-data");
    let key = key.and_then(Value::as_str).expect("the agent's key");
    for line in contents.lines().filter(|line| !line.contains("MISSING")) {
        let name = line.split(':').next().unwrap();
        let text = read(name);
        assert!(!text.contains(key), "{name} has the agent's key");
        assert!(!text.contains("PRIVATE KEY"), "{name} has a key");
    }
}

#[test]
fn a_node_with_a_network_says_so() {
    let lab = Lab::up(&["--nodes", "1"]);
    eventually("the node's condition", || {
        let node = lab.get(&["node", "node1"]);
        let conditions = node.pointer("/status/conditions")?.as_array()?;
        let of = |kind| conditions.iter().find(|one| one["type"] == kind);
        assert!(of("Ready").is_some(), "others stay: {conditions:?}");
        (of("NetworkUnavailable")?["status"] == "False").then_some(())
    });
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let lab = Lab::up(&["--nodes", "3", "--dual-stack"]);
    let nodes = || {
        let status = lab.agent("node1", &["status"]).stdout;
        let lines = status.lines().skip_while(|line| !line.starts_with("nodes"));
        lines.take(3).collect::<Vec<_>>().join("\n")
    };
    let all = nodes();
    // Each by its address of each family.
    assert!(all.contains("4 of 4 others answer"), "{all}");
    let silence = "
        add table inet silence
        add chain inet silence input { type filter hook input priority 0; }
        add rule inet silence input icmp type echo-request drop";
    lab.exec("node/node3", &["nft", silence]);
    let some = nodes();
    assert!(some.contains("3 of 4 others answer"), "{some}");
    assert!(some.contains("node3 (172."), "{some}");
    assert!(some.contains("does not answer: pods of 10.244."), "{some}");
}
