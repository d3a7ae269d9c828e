//! kubectl against a lab whose pods run.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdout, Command, Stdio};

use ripstop_tests::{Lab, eventually, write_manifest};

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
      - name: main
        image: busybox
        command: [sh, -c, 'n=0; while true; do n=$((n+1)); echo line $n; sleep 0.1; done']
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// A kubectl that does not end of itself; dropped, it is ended.
struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Running {
    fn start(lab: &Lab, program: &str, args: &[&str]) -> Self {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("KUBECONFIG", lab.root().join("kubeconfig"))
            .env("KUBECACHEDIR", lab.root().join("kubectl-cache"))
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Self { child, output }
    }

    /// The first line that contains `text`.
    fn line_with(&mut self, text: &str) -> String {
        let found = self
            .output
            .by_ref()
            .lines()
            .map_while(Result::ok)
            .find(|line| line.contains(text));
        found.unwrap_or_else(|| panic!("it ended without {text:?}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn up() -> Lab {
    let manifest = write_manifest(WEB);
    Lab::up(&["--nodes", "1", "-f", manifest.path().to_str().unwrap()])
}

#[test]
fn what_there_is_is_shown() {
    let lab = up();
    let wide = lab.kubectl(&["get", "pods,svc,endpointslices", "-A", "-o", "wide"]);
    for text in [
        "NOMINATED NODE",
        "10.244.1.",
        "SELECTOR",
        "app=web",
        "ADDRESSTYPE",
    ] {
        assert!(wide.contains(text), "{text}: {wide}");
    }
    let list = lab.get(&["pods"]);
    assert_eq!(list["items"][0]["status"]["phase"], "Running");

    let described = lab.kubectl(&["describe", "deploy,svc,pod"]);
    for text in [
        "ScalingReplicaSet",
        "Endpoints:",
        "10.244.1.",
        "Started",
        "Scheduled",
    ] {
        assert!(described.contains(text), "{text}: {described}");
    }
    let described = lab.kubectl(&["describe", "node", "node1"]);
    for text in ["PodCIDR:", "10.244.1.0/24", "Ready"] {
        assert!(described.contains(text), "{text}: {described}");
    }

    lab.kubectl(&["label", "pod", "-l", "app=web", "tier=front"]);
    let labelled = lab.get(&["pods", "-l", "tier=front"]);
    assert_eq!(labelled["items"].as_array().unwrap().len(), 1);
}

#[test]
fn what_happens_is_followed() {
    let lab = up();
    let mut watch = Running::start(&lab, "kubectl", &["get", "pods", "-w", "-o", "name"]);
    lab.kubectl(&["scale", "deploy/web", "--replicas=2"]);
    let first = watch.line_with("pod/web-");
    assert_ne!(watch.line_with("pod/web-"), "", "{first}");
    lab.kubectl(&["rollout", "status", "deploy/web", "--timeout=60s"]);

    let mut log = Running::start(&lab, "kubectl", &["logs", "-f", "deploy/web"]);
    log.line_with("line 3");
    // Longer than what there was when it began.
    log.line_with("line 30");

    lab.kubectl(&["delete", "deploy/web"]);
    eventually("its pods are gone", || {
        lab.kubectl(&["get", "pods", "-o", "name"])
            .is_empty()
            .then_some(())
    });
}

#[test]
fn a_terminal_is_a_terminal() {
    let lab = up();
    // script(1) gives kubectl a terminal of its own.
    let inside = "kubectl exec -it deploy/web -- sh -c 'tty; stty size; read word; echo got $word'";
    let mut session = Running::start(
        &lab,
        "script",
        &[
            "-qec",
            &format!("stty rows 33 cols 77; {inside}"),
            "/dev/null",
        ],
    );
    let mut input = session.child.stdin.take().unwrap();
    input.write_all(b"a-word\n").unwrap();
    let mut shown = String::new();
    session.output.read_to_string(&mut shown).unwrap();
    for text in ["/dev/pts/", "33 77", "got a-word"] {
        assert!(shown.contains(text), "{text}: {shown:?}");
    }
}
