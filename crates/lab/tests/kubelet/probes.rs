//! Probes of programs.

use serde_json::{Value, json};

use super::harness::{Lab, run};

#[test]
fn readiness_follows_the_probe() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [{
                "name": "c", "image": "alpine", "command": ["sh", "-c", "sleep 1000"],
                "readinessProbe": {"periodSeconds": 1, "failureThreshold": 1,
                                   "exec": {"command": ["test", "-e", "/tmp/ready"]}},
            }]}),
        );
        lab.container("p", "c", |status| {
            status["started"].as_bool().filter(|&s| s)
        })
        .await;
        assert!(
            lab.event("Unhealthy")
                .await
                .starts_with("Readiness probe failed:")
        );
        assert!(!lab.is_ready("p"));
        lab.sh("p", "c", "touch /tmp/ready").await;
        lab.ready("p").await;
        lab.sh("p", "c", "rm /tmp/ready").await;
        lab.until("not ready", || (!lab.is_ready("p")).then_some(()))
            .await;
        let restarts = lab
            .container("p", "c", |status| status["restartCount"].as_i64())
            .await;
        assert_eq!(restarts, 0);
    });
}

#[test]
fn liveness_restarts() {
    run(|| async {
        let lab = Lab::start().await;
        // Busybox's web server, or a stand-in's: only the first run says no.
        lab.create("p", json!({
            "volumes": [{"name": "t", "emptyDir": {}}],
            "containers": [{
                "name": "c", "image": "alpine",
                "command": ["sh", "-c", "echo run >> /t/runs; sleep 1000"],
                "volumeMounts": [{"name": "t", "mountPath": "/t"}],
                "livenessProbe": {"periodSeconds": 1, "failureThreshold": 1, "exec":
                    {"command": ["sh", "-c", "echo only $(wc -l < /t/runs); test $(wc -l < /t/runs) -gt 1"]}},
            }],
        }));
        let restarted = |status: &Value| (status["restartCount"] == 1).then(|| status.clone());
        let status = lab.container("p", "c", restarted).await;
        assert_eq!(status["lastState"]["terminated"]["exitCode"], 143);
        assert_eq!(
            lab.event("Unhealthy").await,
            "Liveness probe failed: only 1\n"
        );
        let killed = lab.event("Killing").await;
        assert_eq!(
            killed,
            "Container c failed liveness probe, will be restarted"
        );
    });
}

#[test]
fn startup_holds_the_others_back() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [{
                "name": "c", "image": "alpine", "command": ["sh", "-c", "sleep 1000"],
                "startupProbe": {"periodSeconds": 1, "failureThreshold": 100,
                                 "exec": {"command": ["test", "-e", "/tmp/up"]}},
                "livenessProbe": {"periodSeconds": 1, "failureThreshold": 1,
                                  "exec": {"command": ["test", "-e", "/tmp/up"]}},
            }]}),
        );
        assert!(
            lab.event("Unhealthy")
                .await
                .starts_with("Startup probe failed:")
        );
        lab.sh("p", "c", "touch /tmp/up").await;
        lab.ready("p").await;
        let restarts = lab
            .container("p", "c", |status| status["restartCount"].as_i64())
            .await;
        assert_eq!(restarts, 0);
    });
}

#[test]
fn failures_say_what_happened() {
    run(|| async {
        let lab = Lab::start_with(true).await;
        let agnhost = |probe: Value| {
            json!({"containers": [{
                "name": "c", "image": "agnhost", "args": ["netexec", "--http-port=80"],
                "readinessProbe": probe,
            }]})
        };
        for (name, mut probe, problem) in [
            (
                "code",
                json!({"httpGet": {"port": 80, "path": "/echo?code=503"}}),
                "Readiness probe failed: HTTP probe failed with statuscode: 503",
            ),
            (
                "refused",
                json!({"tcpSocket": {"port": 81}}),
                "81: connect: connection refused",
            ),
            (
                "grpc",
                json!({"grpc": {"port": 81}}),
                "81: connect: connection refused",
            ),
            ("hang", json!({"exec": {"command": ["sleep", "5"]}}), ""),
        ] {
            probe["periodSeconds"] = 1.into();
            lab.create(name, agnhost(probe));
            if problem.is_empty() {
                // Nobody to ask in a stand-in.
                lab.ready(name).await;
                continue;
            }
            let found = || {
                let mut events = lab.events().into_iter();
                events.find(|(reason, message)| reason == "Unhealthy" && message.ends_with(problem))
            };
            lab.until(problem, found).await;
        }
    });
}
