//! A lab of a user who is not root: everything in a user namespace.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use ripstop_tests::ripstop;

/// Nobody, who has nothing but a directory.
const USER: u32 = 65_534;

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node2
  containers: [{name: main, image: web, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node1
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

struct User {
    home: tempfile::TempDir,
    lab: String,
}

impl User {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::chown(home.path(), Some(USER), Some(USER)).unwrap();
        let open = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(home.path(), open).unwrap();
        Self {
            home,
            lab: format!("r{}", std::process::id()),
        }
    }

    fn run(&self, program: &std::path::Path, args: &[&str]) -> Output {
        let user = USER.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
            .arg(program)
            .args(args)
            .current_dir(self.home.path())
            .env_remove("XDG_RUNTIME_DIR")
            .env("HOME", self.home.path());
        command.output().expect("run setpriv (util-linux)")
    }

    /// `ripstop lab VERB --name LAB ARGS`; gives standard output.
    fn lab(&self, verb: &str, args: &[&str]) -> String {
        let args = [&["lab", verb, "--name", &self.lab], args].concat();
        let output = self.run(&ripstop(), &args);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{args:?}:\n{}{}",
            text(&output.stdout),
            text(&output.stderr)
        );
        text(&output.stdout)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let args = ["lab", "down", "--name", &self.lab];
        let down = self.run(&ripstop(), &args);
        if !std::thread::panicking() {
            assert!(down.status.success(), "{down:?}");
        }
    }
}

#[test]
fn a_user_has_a_lab_of_its_own() {
    let user = User::new();
    if !user
        .run("/usr/bin/unshare".as_ref(), &["--user", "true"])
        .status
        .success()
    {
        eprintln!("skipped: this kernel gives no user namespaces to users");
        return;
    }
    std::fs::write(user.home.path().join("pods.yaml"), PODS).unwrap();
    // By a path that is meant from where the user is.
    let args = ["--nodes", "2", "--dual-stack", "-f", "pods.yaml"];
    let up = user.lab("up", &args);
    assert_eq!(up.matches("nftables").count(), 2, "{up}");
    user.lab("apply", &["-f", "pods.yaml"]);
    let ask = "wget -T 5 -t1 -qO- http://$WEB_SERVICE_HOST/";
    let answer = user.lab("exec", &["client", "--", "sh", "-c", ask]);
    assert!(answer.contains("\"web\""), "{answer}");
    let node = user.lab("exec", &["node/node1", "--", "cat", "/proc/net/dev"]);
    assert!(node.contains("eth0"), "{node}");
    let kubeconfig = user.lab("kubeconfig", &[]);
    let args = [
        "--kubeconfig",
        kubeconfig.trim(),
        "get",
        "pods",
        "-o",
        "name",
    ];
    let pods = user.run("/usr/bin/env".as_ref(), &[&["kubectl"], &args[..]].concat());
    let pods = String::from_utf8_lossy(&pods.stdout).into_owned();
    assert_eq!(pods, "pod/client\npod/web\n");
    // Why it is nftables is said.
    let status = ["status", "--lab", &user.lab, "--node", "node1"];
    let status = user.run(&ripstop(), &status);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("refuses eBPF"), "{status}");
    let down = user.lab("down", &[]);
    assert!(down.contains("is down"), "{down}");
    let of_lab = |command: &str| command.contains(&format!("/{}/", user.lab));
    assert_eq!(ripstop_tests::Leftovers::processes(of_lab), [0; 0]);
    assert!(!user.home.path().join(".ripstop/lab").exists());
}
