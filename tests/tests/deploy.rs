//! `deploy/` as a cluster takes it.

use ripstop_tests::{Lab, ripstop, write_manifest};

/// The lab's API, which refuses unknown fields and wrong values as a cluster's does.
#[test]
fn the_manifests_are_applied_without_a_word() {
    let lab = Lab::up(&["--nodes", "1"]);
    let plain = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/ripstop.yaml");
    // First as a cluster would judge them, with nothing made.
    let judged = lab.try_kubectl(&[
        "apply",
        "--server-side",
        "--force-conflicts",
        "--dry-run=server",
        "-f",
        plain,
    ]);
    assert!(judged.ok, "{}", judged.stderr);
    assert!(!judged.stderr.contains("Warning"), "{}", judged.stderr);
    let none = ["get", "daemonset", "ripstop", "--namespace", "kube-system"];
    assert!(!lab.try_kubectl(&none).ok);
    let printed = lab.run("apply", &["-f", plain]);
    assert!(printed.ok, "{}", printed.stderr);
    assert!(
        !printed.stderr.to_lowercase().contains("warning"),
        "{}",
        printed.stderr
    );
    let get = |what: &str| lab.get(&[what, "ripstop", "--namespace", "kube-system"]);
    let set = get("daemonset");
    assert_eq!(
        set["spec"]["template"]["spec"]["serviceAccountName"],
        "ripstop"
    );
    assert!(get("configmap")["data"]["agent.yaml"].is_string());
    assert_eq!(
        lab.get(&["clusterrole", "ripstop"])["rules"][0]["resources"][0],
        "services"
    );
    assert_eq!(
        lab.get(&["clusterrolebinding", "ripstop"])["subjects"][0]["name"],
        "ripstop"
    );
    // Again, for other ranges: an update of what is there.
    let other = std::process::Command::new(ripstop())
        .args([
            "install",
            "--print",
            "--api-server",
            "https://192.0.2.7:6443",
        ])
        .args([
            "--cluster-cidr",
            "10.32.0.0/16,fd00:32::/48",
            "--image",
            "example/ripstop:1",
        ])
        .arg("--allocate-node-cidrs")
        .output()
        .unwrap();
    let other = String::from_utf8(other.stdout).unwrap();
    let file = write_manifest(&other);
    let printed = lab.run("apply", &["-f", file.path().to_str().unwrap()]);
    assert!(printed.ok, "{}", printed.stderr);
    let config = get("configmap")["data"]["agent.yaml"].to_string();
    assert!(config.contains("fd00:32::/48"), "{config}");
    let controller = lab.get(&[
        "deployment",
        "ripstop-controller",
        "--namespace",
        "kube-system",
    ]);
    let args = controller["spec"]["template"]["spec"]["containers"][0]["args"].to_string();
    assert!(
        args.contains("--cluster-cidr=10.32.0.0/16,fd00:32::/48"),
        "{args}"
    );
}
