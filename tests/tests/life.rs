//! A lab's beginnings and ends: nothing half-made, nothing left.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::{Lab, Leftovers, eventually, write_manifest};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: main, image: web, ports: [{containerPort: 80}]}
";

#[test]
fn down_leaves_the_machine_as_it_was() {
    let links = || {
        fs::read_to_string("/proc/net/dev")
            .map(|text| text.lines().count())
            .unwrap()
    };
    let (links_before, manifest) = (links(), write_manifest(WEB));
    let lab = Lab::up(&["--nodes", "2", "-f", manifest.path().to_str().unwrap()]);
    assert_eq!(
        links(),
        links_before,
        "no link in the machine's own namespace"
    );
    assert!(
        !Leftovers::of(lab.name()).is_empty(),
        "the test looks where a lab is"
    );
    lab.must("down", &[]);
    assert_eq!(Leftovers::of(lab.name()), Leftovers::default());
    lab.must("down", &[]);
}

#[test]
fn down_works_after_everything_was_killed() {
    let manifest = write_manifest(WEB);
    let lab = Lab::up(&["--nodes", "2", "-f", manifest.path().to_str().unwrap()]);
    kill_all(&lab);
    lab.must("down", &[]);
    assert_eq!(Leftovers::of(lab.name()), Leftovers::default());
}

#[test]
fn objects_survive_the_death_of_every_process() {
    let manifest = write_manifest(WEB);
    let lab = Lab::up(&["--nodes", "1", "-f", manifest.path().to_str().unwrap()]);
    lab.kubectl(&["label", "deployment", "web", "kept=yes"]);
    kill_all(&lab);
    lab.must("up", &["--nodes", "1"]);
    let web = lab.get(&["deployment", "web"]);
    assert_eq!(web.pointer("/metadata/labels/kept"), Some(&"yes".into()));
    eventually("both pods run again", || {
        let web = lab.get(&["deployment", "web"]);
        (web.pointer("/status/readyReplicas") == Some(&2.into())).then_some(())
    });
}

#[test]
fn a_name_is_for_one_lab() {
    let lab = Lab::up(&["--nodes", "1"]);
    let second = lab.run("up", &["--nodes", "1"]);
    assert!(!second.ok);
    assert!(second.stderr.contains(lab.name()), "{}", second.stderr);
    assert!(
        second.stderr.contains("ripstop lab down"),
        "says what to do: {}",
        second.stderr
    );
    lab.must("status", &[]);
}

#[test]
fn bad_manifests_make_nothing() {
    for (yaml, expected) in [
        (
            "apiVersion: v1\nkind: Service\nmetadata: {name: web\nspec: {}\n",
            ":4",
        ),
        (
            "apiVersion: v1\nkind: Gadget\nmetadata: {name: web}\n",
            "Gadget",
        ),
        ("apiVersion: v1\nmetadata: {name: web}\n", "kind"),
    ] {
        let (lab, manifest) = (Lab::unborn(), write_manifest(yaml));
        let path = manifest.path().to_str().unwrap();
        let up = lab.run("up", &["--nodes", "1", "-f", path]);
        assert!(!up.ok);
        assert!(up.stderr.contains(path), "names the file: {}", up.stderr);
        assert!(
            up.stderr.contains(expected),
            "{expected:?} in: {}",
            up.stderr
        );
        assert_eq!(Leftovers::of(lab.name()), Leftovers::default());
    }
}

#[test]
fn bad_options_make_nothing() {
    for (args, expected) in [
        (["--nodes", "0"], "--nodes"),
        (["--subnets", "9"], "--subnets"),
        (["-f", "/no/such/file.yaml"], "/no/such/file.yaml"),
    ] {
        let lab = Lab::unborn();
        let up = lab.run("up", &args);
        assert!(!up.ok);
        assert!(
            up.stderr.contains(expected),
            "{expected:?} in: {}",
            up.stderr
        );
        assert_eq!(Leftovers::of(lab.name()), Leftovers::default());
    }
}

#[test]
fn two_labs_do_not_see_each_other() {
    let (one, other) = (Lab::up(&["--nodes", "1"]), Lab::up(&["--nodes", "1"]));
    one.kubectl(&["create", "configmap", "mine"]);
    assert!(!other.try_kubectl(&["get", "configmap", "mine"]).ok);
    one.must("down", &[]);
    other.must("status", &[]);
}

/// `kill -9` of everything that runs in the lab's cgroup.
fn kill_all(lab: &Lab) {
    let processes = |lab: &Lab| {
        Leftovers::processes(|_| true)
            .into_iter()
            .filter(|id| {
                let cgroups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
                cgroups.contains(&format!("/ripstop.{}/", lab.name()))
            })
            .collect::<Vec<_>>()
    };
    assert!(!processes(lab).is_empty());
    eventually("every process has ended", || {
        for id in processes(lab) {
            let _ = kill(Pid::from_raw(id), Signal::SIGKILL);
        }
        processes(lab).is_empty().then_some(())
    });
}
