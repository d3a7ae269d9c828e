//! From start to end: init containers, restarts, jobs, termination, a node loop
//! that was killed.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::harness::{Lab, condition, run};

fn sh(name: &str, line: &str) -> Value {
    json!({"name": name, "image": "alpine", "command": ["sh", "-c", line]})
}

fn terminated(status: &Value) -> Option<Value> {
    let terminated = &status["state"]["terminated"];
    (!terminated.is_null()).then(|| terminated.clone())
}

#[test]
fn init_containers_run_in_order_before_the_others() {
    run(|| async {
        let lab = Lab::start().await;
        let mut side = sh("side", "echo side >> /t/order; sleep 1000");
        side["restartPolicy"] = "Always".into();
        let mut all = json!({
            "volumes": [{"name": "t", "emptyDir": {}}],
            "initContainers": [
                sh("one", "echo one >> /t/order"),
                side,
                sh("two", "sleep 0.1; echo two >> /t/order"),
            ],
            "containers": [sh("main", "echo main >> /t/order; sleep 1000")],
        });
        for list in ["initContainers", "containers"] {
            for container in all[list].as_array_mut().unwrap() {
                container["volumeMounts"] = json!([{"name": "t", "mountPath": "/t"}]);
            }
        }
        lab.create("p", all);
        lab.ready("p").await;
        let order = lab
            .until("main's line", || {
                let dir = lab.paths.pod_dir("node1", &lab.reference("p").uid);
                let order = std::fs::read_to_string(dir.join("volumes/t/order")).ok()?;
                order.contains("main").then_some(order)
            })
            .await;
        let lines: Vec<_> = order.lines().collect();
        assert_eq!(lines[0], "one");
        assert_eq!(lines[3], "main");
        let status = lab.status("p");
        assert_eq!(
            status["initContainerStatuses"][0]["state"]["terminated"]["reason"],
            "Completed"
        );
        assert_eq!(condition(&status, "Initialized"), "True");
    });
}

#[test]
fn a_failing_init_container_holds_the_pod() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({
                "initContainers": [sh("fails", "echo no; exit 4")],
                "containers": [sh("main", "sleep 1000")],
            }),
        );
        let back_off = |status: &Value| {
            (status["state"]["waiting"]["reason"] == "CrashLoopBackOff").then(|| status.clone())
        };
        let status = lab.container("p", "fails", back_off).await;
        assert_eq!(status["restartCount"], 1);
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 4);
        assert_eq!(lab.status("p")["phase"], "Pending");
        let main = lab
            .container("p", "main", |status| Some(status["state"].clone()))
            .await;
        assert_eq!(main["waiting"]["reason"], "PodInitializing");
    });
}

#[test]
fn crash_loops_back_off() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [sh("c", "echo boom >&2; exit 3")]}),
        );
        let waiting = |status: &Value| {
            (status["state"]["waiting"]["reason"] == "CrashLoopBackOff").then(|| status.clone())
        };
        let status = lab.container("p", "c", waiting).await;
        assert_eq!(status["restartCount"], 1, "the first restart is immediate");
        let last = &status["lastState"]["terminated"];
        assert_eq!(
            (&last["exitCode"], &last["message"]),
            (&json!(3), &json!("boom"))
        );
        let message = status["state"]["waiting"]["message"].as_str().unwrap();
        assert!(message.starts_with("back-off 10s restarting failed container=c pod=p_default("));
        assert!(
            lab.event("BackOff")
                .await
                .starts_with("Back-off restarting failed container c")
        );
        assert_eq!(lab.status("p")["phase"], "Running");
    });
}

#[test]
fn a_job_ends_and_gives_its_address_back() {
    run(|| async {
        let lab = Lab::start().await;
        for (name, line, phase) in [("good", "exit 0", "Succeeded"), ("bad", "exit 1", "Failed")] {
            lab.create(
                name,
                json!({"restartPolicy": "Never", "containers": [sh("c", line)]}),
            );
            lab.until(phase, || (lab.status(name)["phase"] == phase).then_some(()))
                .await;
        }
        lab.until("addresses", || (lab.addresses() == 0).then_some(()))
            .await;
        assert!(lab.status("good")["podIP"].is_string());
        // Its log can still be read.
        assert_eq!(lab.log("good", "c").await, "");
        lab.client
            .delete::<Pod>(Some("default"), "good", None)
            .unwrap();
        lab.gone("good").await;
    });
}

#[test]
fn deletion_is_graceful_and_leaves_nothing() {
    run(|| async {
        let lab = Lab::start().await;
        let line = "trap 'echo term > /t/term; exit 0' TERM; while :; do sleep 0.01; done";
        let mut container = sh("c", line);
        container["volumeMounts"] = json!([{"name": "t", "mountPath": "/t"}]);
        container["lifecycle"] =
            json!({"preStop": {"exec": {"command": ["sh", "-c", "echo stop > /t/stop"]}}});
        let disk = tempfile::tempdir().unwrap();
        lab.create(
            "p",
            json!({
                "terminationGracePeriodSeconds": 50,
                "volumes": [{"name": "t", "emptyDir": {}}],
                "containers": [container, sh("sleeps", "sleep 1000")],
            }),
        );
        lab.ready("p").await;
        let dir = lab.paths.pod_dir("node1", &lab.reference("p").uid);
        // The pod's directory goes with it; keep what the container wrote.
        std::fs::remove_dir(disk.path()).unwrap();
        std::os::unix::fs::symlink(dir.join("volumes/t"), disk.path()).unwrap();
        let start = Instant::now();
        lab.client
            .delete::<Pod>(Some("default"), "p", None)
            .unwrap();
        let watch = lab
            .until("both files", || {
                let seen = disk.path().join("stop").exists() && disk.path().join("term").exists();
                (seen || lab.pod("p").is_none()).then_some(seen)
            })
            .await;
        lab.gone("p").await;
        assert!(
            start.elapsed() < Duration::from_secs(40),
            "the grace period was sat out"
        );
        assert!(watch || lab.events().iter().any(|(reason, _)| reason == "Killing"));
        assert_eq!(
            (lab.groups().len(), lab.namespaces().len(), lab.addresses()),
            (0, 0, 0)
        );
        assert!(!dir.exists());
        std::fs::remove_file(disk.path()).unwrap();
        std::fs::create_dir(disk.path()).unwrap();
    });
}

#[test]
fn who_does_not_end_is_killed() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({
                "terminationGracePeriodSeconds": 1,
                "containers": [sh("c", "trap '' TERM; sleep 1000 & while :; do wait; done")],
            }),
        );
        lab.ready("p").await;
        lab.client
            .delete::<Pod>(Some("default"), "p", None)
            .unwrap();
        assert!(lab.pod("p").is_some());
        lab.gone("p").await;
        assert!(lab.groups().is_empty());
    });
}

#[test]
fn a_pod_removed_by_force_goes_at_once() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [sh("c", "trap '' TERM; while :; do sleep 1; done")]}),
        );
        lab.ready("p").await;
        lab.client
            .delete::<Pod>(Some("default"), "p", Some(0))
            .unwrap();
        let nothing = || (lab.groups().is_empty() && lab.namespaces().is_empty()).then_some(());
        lab.until("nothing left", nothing).await;
    });
}

#[test]
fn a_new_node_loop_starts_pods_again() {
    if !super::harness::possible() {
        return;
    }
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap()
    };
    let first = runtime();
    let mut lab = first.block_on(async {
        let lab = Lab::start().await;
        lab.create("p", json!({"containers": [sh("c", "sleep 1000")]}));
        lab.create(
            "done",
            json!({"restartPolicy": "Never", "containers": [sh("c", "exit 0")]}),
        );
        lab.ready("p").await;
        lab.container("done", "c", terminated).await;
        lab
    });
    // As if it was killed: nothing is cleaned up.
    first.shutdown_timeout(Duration::from_secs(10));
    let (groups, namespaces) = (lab.groups(), lab.namespaces());
    assert_eq!((groups.len(), namespaces.len()), (1, 1));
    let second = runtime();
    second.block_on(async {
        lab.take_over();
        let again = |status: &Value| {
            (status["restartCount"] == 1 && status["ready"] == true).then(|| status.clone())
        };
        let status = lab.container("p", "c", again).await;
        assert_eq!(
            status["lastState"]["terminated"]["reason"],
            "ContainerStatusUnknown"
        );
        assert_eq!((lab.groups().len(), lab.addresses()), (1, 1));
        assert_ne!(lab.namespaces(), namespaces);
        assert_eq!(lab.status("done")["phase"], "Succeeded");
        drop(lab);
    });
}

#[test]
fn many_pods_at_once() {
    run(|| async {
        let lab = Lab::start().await;
        let start = Instant::now();
        for number in 0..40 {
            lab.create(
                &format!("p{number}"),
                json!({"containers": [{
                    "name": "c", "image": "x", "ports": [{"containerPort": 80}],
                    "readinessProbe": {"httpGet": {"port": 80}},
                }]}),
            );
        }
        for number in 0..40 {
            lab.ready(&format!("p{number}")).await;
        }
        println!("40 pods ready after {:?}", start.elapsed());
        assert_eq!(
            (lab.groups().len(), lab.namespaces().len(), lab.addresses()),
            (40, 40, 40)
        );
    });
}
