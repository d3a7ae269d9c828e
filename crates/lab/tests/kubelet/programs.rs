//! Programs of the machine in containers: environment, files, volumes, users.

use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use serde_json::{Value, json};

use super::harness::{Lab, run};

fn sleeper(more: Value) -> Value {
    let mut container = json!({"name": "c", "image": "alpine", "command": ["sleep", "1000"]});
    container
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    container
}

#[test]
fn files_and_variables() {
    run(|| async {
        let lab = Lab::start().await;
        let service = json!({
            "metadata": {"name": "my-db", "namespace": "default"},
            "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 5432, "name": "sql"}]},
        });
        lab.client
            .create(&serde_json::from_value::<Service>(service).unwrap())
            .unwrap();
        let map = json!({"metadata": {"name": "m", "namespace": "default"}, "data": {"k": "v"}});
        lab.client
            .create(&serde_json::from_value::<ConfigMap>(map).unwrap())
            .unwrap();
        let secret =
            json!({"metadata": {"name": "s", "namespace": "default"}, "data": {"p": "aHVudGVy"}});
        lab.client
            .create(&serde_json::from_value::<Secret>(secret).unwrap())
            .unwrap();
        lab.create_with(
            json!({"name": "p", "labels": {"app": "x"}}),
            json!({
                "hostname": "me", "subdomain": "peers",
                "hostAliases": [{"ip": "192.0.2.1", "hostnames": ["alias"]}],
                "volumes": [
                    {"name": "m", "configMap": {"name": "m"}},
                    {"name": "s", "secret": {"secretName": "s"}},
                    {"name": "t", "emptyDir": {}},
                    {"name": "d", "downwardAPI": {"items":
                        [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
                ],
                "containers": [
                    sleeper(json!({
                        "env": [
                            {"name": "A", "value": "1"}, {"name": "B", "value": "$(A)2"},
                            {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
                            {"name": "P", "valueFrom": {"secretKeyRef": {"name": "s", "key": "p"}}},
                        ],
                        "envFrom": [{"configMapRef": {"name": "m"}, "prefix": "M_"}],
                        "volumeMounts": [
                            {"name": "m", "mountPath": "/etc/app/deep"},
                            {"name": "s", "mountPath": "/var/run/secrets/s"},
                            {"name": "t", "mountPath": "/data"},
                            {"name": "d", "mountPath": "/info"},
                        ],
                    })),
                    {"name": "other", "image": "x", "volumeMounts":
                        [{"name": "t", "mountPath": "/elsewhere"}]},
                ],
            }),
        );
        lab.ready("p").await;
        let ip = lab.status("p")["podIP"].as_str().unwrap().to_owned();
        let env = lab.sh("p", "c", "env").await;
        let of_process = lab.sh("p", "c", "tr '\\0' '\\n' < /proc/1/environ").await;
        for line in [
            "A=1",
            "B=12",
            "P=hunter",
            "M_k=v",
            "HOSTNAME=me",
            "MY_DB_SERVICE_HOST=10.96.0.77",
            "MY_DB_SERVICE_PORT_SQL=5432",
            "MY_DB_PORT_5432_TCP=tcp://10.96.0.77:5432",
            &format!("IP={ip}"),
        ] {
            assert!(env.lines().any(|found| found == line), "{line} in {env}");
            assert!(
                of_process.lines().any(|found| found == line),
                "{line} in {of_process}"
            );
        }
        assert_eq!(
            lab.sh("p", "c", "cat /etc/resolv.conf").await,
            "search default.svc.cluster.local svc.cluster.local cluster.local\n\
             nameserver 10.96.0.10\noptions ndots:5\n"
        );
        let hosts = lab.sh("p", "c", "cat /etc/hosts").await;
        let fqdn = "me.peers.default.svc.cluster.local";
        assert!(hosts.contains(&format!("{ip}\t{fqdn}\tme\n")), "{hosts}");
        assert!(hosts.ends_with("192.0.2.1\talias\n"));
        assert_eq!(
            lab.sh("p", "c", "hostname; cat /etc/hostname").await,
            "me\nme\n"
        );
        assert_eq!(
            lab.sh(
                "p",
                "c",
                "cat /etc/app/deep/k /var/run/secrets/s/p /info/labels"
            )
            .await,
            "vhunterapp=\"x\""
        );
        // Also a stand-in sees the pod's volumes.
        lab.sh("p", "c", "echo shared > /data/file").await;
        assert_eq!(
            lab.sh("p", "other", "cat /elsewhere/file").await,
            "shared\n"
        );
        let (code, _, _) = lab
            .exec("p", "c", &["sh", "-c", "echo x > /etc/app/deep/k"])
            .await;
        assert_ne!(code, 0, "a ConfigMap can be written");
    });
}

#[test]
fn a_container_is_alone() {
    run(|| async {
        let lab = Lab::start().await;
        let command = json!([
            "sh",
            "-c",
            "touch /etc/ripstop-test /root/ripstop-test && sleep 1000"
        ]);
        lab.create(
            "p",
            json!({"containers": [sleeper(json!({"command": command}))]}),
        );
        lab.ready("p").await;
        let made = "until test -f /root/ripstop-test; do sleep 0.01; done; echo /tmp/* /run/*";
        assert_eq!(lab.sh("p", "c", made).await, "/tmp/* /run/*\n");
        for path in ["/etc/ripstop-test", "/root/ripstop-test"] {
            assert!(
                !std::path::Path::new(path).exists(),
                "{path} on the machine"
            );
        }
        // Its own processes and its own network only.
        assert_eq!(
            lab.sh("p", "c", "cat /proc/1/comm; set -- /proc/[0-9]*; echo $#")
                .await,
            "sh\n3\n"
        );
        assert_eq!(
            lab.sh("p", "c", "ls /sys/class/net | tr '\\n' ' '").await,
            "eth0 lo "
        );
        assert_eq!(
            lab.sh("p", "c", "echo > /dev/null; stat -c %F /dev/zero")
                .await,
            "character special file\n"
        );
    });
}

#[test]
fn users_and_working_directories() {
    run(|| async {
        let lab = Lab::start().await;
        let line = "id -u; id -g; id -G; pwd; echo 'last words' > /dev/termination-log; exit 3";
        lab.create(
            "p",
            json!({
                "restartPolicy": "Never",
                "securityContext": {"runAsUser": 1234, "runAsGroup": 2345, "fsGroup": 3456},
                "containers": [{"name": "c", "image": "x", "command": ["sh", "-c"], "args": [line],
                                "workingDir": "/made/for/it"}],
            }),
        );
        let terminated = |status: &Value| {
            let terminated = &status["state"]["terminated"];
            (!terminated.is_null()).then(|| terminated.clone())
        };
        let end = lab.container("p", "c", terminated).await;
        assert_eq!(
            lab.log("p", "c").await,
            "1234\n2345\n2345 3456\n/made/for/it\n"
        );
        // The log is the machine's user's file, which others cannot write.
        assert_eq!(end["exitCode"], 3);
    });
}

#[test]
fn busybox_is_busybox() {
    run(|| async {
        if !std::path::Path::new("/bin/busybox").exists() {
            println!("skipped: this machine has no busybox");
            return;
        }
        let lab = Lab::start().await;
        lab.create(
            "p",
            json!({"containers": [{
                "name": "c", "image": "docker.io/library/busybox:1.36",
                "command": ["/bin/sh", "-c", "sleep 1000"],
            }]}),
        );
        lab.ready("p").await;
        assert_eq!(
            lab.sh("p", "c", "readlink -f $(which ls)").await,
            "/usr/bin/busybox\n"
        );
        let help = lab.sh("p", "c", "wget --help 2>&1 | head -1").await;
        assert!(help.contains("BusyBox"), "{help}");
        assert_eq!(
            lab.status("p")["containerStatuses"][0]["imageID"],
            "ripstop-lab://busybox-of-this-machine"
        );
    });
}

#[test]
fn what_cannot_start_says_why() {
    run(|| async {
        let lab = Lab::start().await;
        let waiting = |status: &Value| {
            let waiting = &status["state"]["waiting"];
            (waiting["message"].is_string()).then(|| waiting.clone())
        };
        lab.create(
            "no-map",
            json!({"containers": [sleeper(json!({
                "envFrom": [{"configMapRef": {"name": "late"}}],
            }))]}),
        );
        let why = lab.container("no-map", "c", waiting).await;
        assert_eq!(why["reason"], "CreateContainerConfigError");
        assert_eq!(why["message"], "configmap \"late\" not found");
        let map = json!({"metadata": {"name": "late", "namespace": "default"}, "data": {}});
        lab.client
            .create(&serde_json::from_value::<ConfigMap>(map).unwrap())
            .unwrap();
        lab.ready("no-map").await;

        lab.create(
            "no-dir",
            json!({"restartPolicy": "Never", "containers": [sleeper(json!({
                "workingDir": "/proc/nothing",
            }))]}),
        );
        let end = lab
            .container("no-dir", "c", |status| {
                let end = &status["state"]["terminated"];
                (!end.is_null()).then(|| end.clone())
            })
            .await;
        assert_eq!(
            (&end["reason"], &end["exitCode"]),
            (&json!("StartError"), &json!(128))
        );
        assert!(
            end["message"].as_str().unwrap().contains("/proc/nothing"),
            "{end}"
        );

        lab.create(
            "no-secret",
            json!({
                "volumes": [{"name": "v", "secret": {"secretName": "none"}}],
                "containers": [sleeper(json!({}))],
            }),
        );
        let why = lab.container("no-secret", "c", waiting).await;
        let problem = "MountVolume.SetUp failed for volume \"v\" : secret \"none\" not found";
        assert_eq!(why["message"], problem);
        assert_eq!(lab.event("FailedMount").await, problem);
    });
}
