//! What `kubectl apply` does again and again: published applications, changed
//! files, fields that come and go, on the client and on the server.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::path::{Path, PathBuf};

use common::{Server, without_kubectl};

const WEB: &str = r#"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web, tier: front}
  annotations: {note: first}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: server
        image: nginx:1.27
        args: ["-a", "-b"]
        env: [{name: A, value: "1"}, {name: B, value: "2"}]
        ports: [{containerPort: 80}, {containerPort: 53, protocol: UDP}, {containerPort: 53}]
        volumeMounts: [{name: data, mountPath: /data}]
      - {name: side, image: busybox}
      volumes: [{name: data, emptyDir: {}}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80}, {name: dns, port: 53, protocol: UDP}, {name: dns-tcp, port: 53}]
"#;

/// The value at a JSONPath of an object.
async fn value(server: &Server, object: &str, path: &str) -> String {
    let path = format!("jsonpath={path}");
    server.kubectl(&["get", object, "-o", &path]).await.ok()
}

/// The manifests of published applications, beside the repository.
fn published() -> Vec<PathBuf> {
    fn files(dir: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                files(&path, found);
            } else if path.extension().is_some_and(|e| e == "yaml") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    for dir in root.ancestors() {
        files(&dir.join("shared/manifests"), &mut found);
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn published_applications() {
    if without_kubectl() {
        return;
    }
    let files = published();
    if files.is_empty() {
        println!("skipped: there is no shared/manifests beside the repository");
        return;
    }
    for path in files {
        let server = Server::start().await;
        let file = path.to_str().unwrap();
        let made = server.kubectl(&["apply", "-f", file]).await.ok();
        assert!(
            made.lines().all(|line| line.ends_with(" created")),
            "{made}"
        );
        let again = server.kubectl(&["apply", "-f", file]).await.ok();
        assert!(
            again.lines().all(|line| line.ends_with(" unchanged")),
            "{again}"
        );
        let diff = server.kubectl(&["diff", "-f", file]).await;
        assert_eq!((diff.code, diff.stdout.as_str()), (Some(0), ""), "{file}");

        let apply = ["apply", "--server-side", "-f", file];
        let moved = server.kubectl(&apply).await.ok();
        assert_eq!(moved.lines().count(), made.lines().count());
        let versions = [
            "get",
            "all,netpol,cm,sa",
            "-o",
            "jsonpath={.items[*].metadata.resourceVersion}",
        ];
        let before = server.kubectl(&versions).await.ok();
        server.kubectl(&apply).await.ok();
        assert_eq!(
            server.kubectl(&versions).await.ok(),
            before,
            "{file} changed nothing"
        );

        let other = Server::start().await;
        other.kubectl(&apply).await.ok();
        let gone = other
            .kubectl(&["delete", "-f", file, "--wait=false"])
            .await
            .ok();
        assert_eq!(gone.lines().count(), made.lines().count());
    }
}

/// A change of the file, with what is then at a path.
const CHANGES: [(&str, &str, &str, &str, &str); 11] = [
    (
        "nginx:1.27",
        "nginx:1.28",
        "deploy/web",
        "{.spec.template.spec.containers[0].image}",
        "nginx:1.28",
    ),
    (
        ", {name: B, value: \"2\"}",
        "",
        "deploy/web",
        "{.spec.template.spec.containers[0].env[*].name}",
        "A",
    ),
    (
        "{name: A, value: \"1\"}, {name: B",
        "{name: B",
        "deploy/web",
        "{.spec.template.spec.containers[0].env[*].name}",
        "B",
    ),
    (
        "\"-a\", \"-b\"",
        "\"-b\"",
        "deploy/web",
        "{.spec.template.spec.containers[0].args}",
        "[\"-b\"]",
    ),
    (
        "      - {name: side, image: busybox}\n",
        "",
        "deploy/web",
        "{.spec.template.spec.containers[*].name}",
        "server",
    ),
    (
        ", {containerPort: 53}]",
        "]",
        "deploy/web",
        "{.spec.template.spec.containers[0].ports[*].protocol}",
        "TCP UDP",
    ),
    (
        "emptyDir: {}",
        "configMap: {name: c}",
        "deploy/web",
        "{.spec.template.spec.volumes[0]}",
        "{\"configMap\":{\"defaultMode\":420,\"name\":\"c\"},\"name\":\"data\"}",
    ),
    (
        ", tier: front",
        "",
        "deploy/web",
        "{.metadata.labels}",
        "{\"app\":\"web\"}",
    ),
    (
        "  annotations: {note: first}\n",
        "",
        "deploy/web",
        "{.metadata.annotations.note}",
        "",
    ),
    (
        ", {name: dns-tcp, port: 53}",
        "",
        "svc/web",
        "{.spec.ports[*].name}",
        "http dns",
    ),
    (
        "{name: http, port: 80}, ",
        "",
        "svc/web",
        "{.spec.ports[*].name}",
        "dns dns-tcp",
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn changed_files() {
    if without_kubectl() {
        return;
    }
    for options in [
        &["apply", "-f", "-"][..],
        &["apply", "--server-side", "-f", "-"],
    ] {
        let server = Server::start().await;
        for (old, new, object, path, expected) in CHANGES {
            assert!(WEB.contains(old), "{old}");
            server.kubectl_with(options, WEB).await.ok();
            let node_port = "{.spec.ports[?(@.name==\"dns\")].nodePort}";
            let port = value(&server, "svc/web", node_port).await;
            let changed = WEB.replacen(old, new, 1);
            server.kubectl_with(options, &changed).await.ok();
            let found = value(&server, object, path).await;
            assert_eq!(found, expected, "{options:?}: {old} -> {new}");
            // What was allocated stays with its port.
            assert_eq!(value(&server, "svc/web", node_port).await, port);
            // Anew: kubectl itself does not see a second protocol come to a port
            // (kubernetes/kubernetes#39188), only go.
            let delete = ["delete", "--wait=false", "-f", "-"];
            server.kubectl_with(&delete, WEB).await.ok();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_others_set_stays() {
    if without_kubectl() {
        return;
    }
    for options in [
        &["apply", "-f", "-"][..],
        &["apply", "--server-side", "-f", "-"],
    ] {
        let server = Server::start().await;
        server.kubectl_with(options, WEB).await.ok();
        server
            .kubectl(&["scale", "deploy/web", "--replicas=4"])
            .await
            .ok();
        server
            .kubectl(&["label", "deploy/web", "theirs=yes"])
            .await
            .ok();
        server
            .kubectl(&["set", "env", "deploy/web", "C=3"])
            .await
            .ok();
        server
            .kubectl_with(options, &WEB.replace("1.27", "1.28"))
            .await
            .ok();
        for (path, expected) in [
            ("{.spec.replicas}", "4"),
            ("{.metadata.labels.theirs}", "yes"),
            ("{.spec.template.spec.containers[0].env[*].name}", "A B C"),
            ("{.spec.template.spec.containers[0].image}", "nginx:1.28"),
        ] {
            assert_eq!(
                value(&server, "deploy/web", path).await,
                expected,
                "{options:?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conflicts_on_the_server() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    let apply = ["apply", "--server-side", "-f", "-"];
    server.kubectl_with(&apply, WEB).await.ok();
    server
        .kubectl(&["set", "image", "deploy/web", "server=nginx:2"])
        .await
        .ok();
    let errors = server.kubectl_with(&apply, WEB).await.failed();
    let expected = "Apply failed with 1 conflict: conflict with \"kubectl-set\" using apps/v1: .spec.template.spec.containers[name=\"server\"].image";
    assert!(errors.contains(expected), "{errors}");
    let path = "{.spec.template.spec.containers[0].image}";
    assert_eq!(value(&server, "deploy/web", path).await, "nginx:2");
    let force = ["apply", "--server-side", "--force-conflicts", "-f", "-"];
    server.kubectl_with(&force, WEB).await.ok();
    assert_eq!(value(&server, "deploy/web", path).await, "nginx:1.27");
    // What nobody says any more goes.
    let less = WEB.replace("        args: [\"-a\", \"-b\"]\n", "");
    server.kubectl_with(&apply, &less).await.ok();
    let args = "{.spec.template.spec.containers[0].args}";
    assert_eq!(value(&server, "deploy/web", args).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn from_the_client_to_the_server_and_back() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(WEB).await;
    let apply = ["apply", "--server-side", "-f", "-"];
    server
        .kubectl_with(&apply, &WEB.replace("1.27", "1.28"))
        .await
        .ok();
    let managers = "{.metadata.managedFields[*].manager}";
    // kubectl gives the annotation a manager of its own, and all else to itself.
    let expected = "kubectl-last-applied kubectl";
    assert_eq!(value(&server, "deploy/web", managers).await, expected);
    let less = WEB.replace(", {name: B, value: \"2\"}", "");
    server.kubectl_with(&apply, &less).await.ok();
    let env = "{.spec.template.spec.containers[0].env[*].name}";
    assert_eq!(value(&server, "deploy/web", env).await, "A");
    // The annotation has been kept up to date: the client knows what to remove.
    let none = less.replace("        env: [{name: A, value: \"1\"}]\n", "");
    server.apply(&none).await;
    assert_eq!(value(&server, "deploy/web", env).await, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn services_change_their_type() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(WEB).await;
    let address = value(&server, "svc/web", "{.spec.clusterIP}").await;
    for (type_, node_ports) in [
        ("ClusterIP", false),
        ("LoadBalancer", true),
        ("NodePort", true),
    ] {
        server
            .apply(&WEB.replace("type: NodePort", &format!("type: {type_}")))
            .await;
        let ports = value(&server, "svc/web", "{.spec.ports[*].nodePort}").await;
        assert_eq!(!ports.is_empty(), node_ports, "{type_}: {ports}");
        assert_eq!(
            value(&server, "svc/web", "{.spec.clusterIP}").await,
            address
        );
    }
    // A file without addresses replaces one that has them.
    server.kubectl_with(&["replace", "-f", "-"], WEB).await.ok();
    assert_eq!(
        value(&server, "svc/web", "{.spec.clusterIP}").await,
        address
    );
    let moved = r#"{"spec":{"clusterIP":"10.96.0.99","clusterIPs":["10.96.0.99"]}}"#;
    let errors = server
        .kubectl(&["patch", "svc/web", "-p", moved])
        .await
        .failed();
    assert!(errors.contains("may not change once set"), "{errors}");
}
