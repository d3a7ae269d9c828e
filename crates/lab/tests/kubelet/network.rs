//! The pod's network: the plugin's part, and pods on the node's own.

use serde_json::{Value, json};

use super::harness::{Lab, NODE, run};
use super::stand_in::{get, ip};

#[test]
fn a_pod_that_gets_no_network_says_why_and_is_tried_again() {
    run(|| async {
        let lab = Lab::start().await;
        std::fs::write(lab.state.join("refuse"), "all of 10.99.1.0/24 is in use").unwrap();
        lab.create("p", json!({"containers": [{"name": "c", "image": "x"}]}));
        let waiting = lab
            .container("p", "c", |status| {
                let waiting = &status["state"]["waiting"];
                (waiting["reason"] == "FailedCreatePodSandBox").then(|| waiting.clone())
            })
            .await;
        let message = waiting["message"].as_str().unwrap();
        assert!(
            message.contains("all of 10.99.1.0/24 is in use"),
            "{message}"
        );
        let event = lab.event("FailedCreatePodSandBox").await;
        assert!(
            event.starts_with("Failed to create pod sandbox: "),
            "{event}"
        );
        assert!(
            event.ends_with("failed (add): all of 10.99.1.0/24 is in use"),
            "{event}"
        );
        lab.until("undone", || lab.namespaces().is_empty().then_some(()))
            .await;
        std::fs::remove_file(lab.state.join("refuse")).unwrap();
        lab.ready("p").await;
    });
}

#[test]
fn the_plugin_is_told_what_the_pod_asks_for() {
    run(|| async {
        let lab = Lab::start().await;
        let ports = json!([{"containerPort": 80, "hostPort": 8080}]);
        lab.create(
            "p",
            json!({"containers": [{"name": "c", "image": "x", "ports": ports}]}),
        );
        lab.ready("p").await;
        let config = std::fs::read(lab.state.join("config.json")).unwrap();
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(
            config["runtimeConfig"],
            json!({"portMappings": [
                {"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ""},
            ]})
        );
        assert_eq!(
            (&config["name"], &config["cniVersion"]),
            (&json!("test"), &json!("1.1.0"))
        );
    });
}

#[test]
fn host_network_is_the_nodes() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"hostNetwork": true, "dnsPolicy": "ClusterFirstWithHostNet",
            "containers": [{"name": "c", "image": "x", "ports": [{"containerPort": 8080}]}]}),
        );
        lab.ready("p").await;
        let status = lab.status("p");
        assert_eq!(status["podIP"], "172.30.1.11");
        assert_eq!((lab.addresses(), lab.namespaces().len()), (0, 0));
        let answer = get(&lab, ([127, 0, 0, 1], 8080).into(), "/").unwrap();
        assert!(answer.contains("\"pod\":\"p\""), "{answer}");
        assert_eq!(lab.sh("p", "c", "hostname").await, format!("{NODE}\n"));
        let conf = lab.sh("p", "c", "cat /etc/resolv.conf").await;
        assert!(conf.contains("10.96.0.10"), "{conf}");
    });
}

#[test]
fn containers_of_a_pod_share_localhost() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [
                {"name": "c", "image": "x", "ports": [{"containerPort": 80}]},
                {"name": "client", "image": "agnhost", "args": ["pause"]},
            ]}),
        );
        lab.create(
            "q",
            json!({"restartPolicy": "Never", "containers": [
                {"name": "c", "image": "agnhost", "args": ["connect", "localhost:80"]},
            ]}),
        );
        lab.ready("p").await;
        let to_itself = lab
            .exec("p", "client", &["sh", "-c", "exec 3<>/dev/null"])
            .await;
        assert_eq!(to_itself.0, 0);
        let answer = get(&lab, (ip(&lab.status("p"), 0), 80).into(), "/").unwrap();
        assert!(answer.contains("\"container\":\"c\""));
        // Another pod's localhost is its own.
        let code = |status: &Value| status["state"]["terminated"]["exitCode"].as_i64();
        assert_eq!(lab.container("q", "c", code).await, 1);
    });
}
