//! The real kubectl against the server.

#[expect(dead_code, reason = "each test program uses a part of it")]
mod common;

use std::process::Stdio;

use common::{Server, without_kubectl};
use k8s_openapi::api::core::v1::{Event, Node, ObjectReference, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use tokio::io::{AsyncBufReadExt, BufReader};

const WEB: &str = r"
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: server
        image: nginx:1.27
        ports: [{containerPort: 80, name: http}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{port: 80, targetPort: http, nodePort: 30080}]
";

const PODS: &str = r"
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: web}}
spec: {containers: [{name: main, image: busybox}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two}
spec: {containers: [{name: a, image: busybox}, {name: b, image: busybox}]}
";

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_shows_and_deletes() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    let applied = server.apply(WEB).await;
    assert_eq!(
        applied,
        "deployment.apps/web created\nservice/web created\n"
    );
    assert!(
        server
            .apply(WEB)
            .await
            .contains("deployment.apps/web unchanged")
    );
    let more = WEB.replace("replicas: 2", "replicas: 3");
    assert!(
        server
            .apply(&more)
            .await
            .contains("deployment.apps/web configured")
    );

    let table = server.kubectl(&["get", "deploy", "-o", "wide"]).await.ok();
    let lines: Vec<_> = table.lines().collect();
    assert_eq!(
        words(lines[0]),
        [
            "NAME",
            "READY",
            "UP-TO-DATE",
            "AVAILABLE",
            "AGE",
            "CONTAINERS",
            "IMAGES",
            "SELECTOR"
        ]
    );
    let row = words(lines[1]);
    assert_eq!(row[..4], ["web", "0/3", "0", "0"]);
    assert_eq!(row[5..], ["server", "nginx:1.27", "app=web"]);
    let table = server
        .kubectl(&["get", "svc", "web", "--no-headers"])
        .await
        .ok();
    let row = words(&table);
    assert_eq!(
        (row[0], row[1], row[4]),
        ("web", "NodePort", "80:30080/TCP")
    );
    let all = server.kubectl(&["get", "all", "-A"]).await.ok();
    assert!(
        all.contains("deployment.apps/web") && all.contains("service/kubernetes"),
        "{all}"
    );

    let text = server.kubectl(&["describe", "deploy", "web"]).await.ok();
    assert!(
        text.contains("3 desired") && text.contains("Image:         nginx:1.27"),
        "{text}"
    );
    let text = server.kubectl(&["describe", "svc", "web"]).await.ok();
    assert!(
        text.contains("NodePort:                 <unset>  30080/TCP"),
        "{text}"
    );

    let gone = server.kubectl_with(&["delete", "-f", "-"], WEB).await.ok();
    assert!(gone.contains("deployment.apps \"web\" deleted"), "{gone}");
    let missing = server.kubectl(&["get", "deploy", "web"]).await.failed();
    assert!(
        missing.contains("deployments.apps \"web\" not found"),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn applies_on_the_server() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    let apply = ["apply", "--server-side", "-f", "-"];
    let made = server.kubectl_with(&apply, WEB).await.ok();
    assert_eq!(
        made,
        "deployment.apps/web serverside-applied\nservice/web serverside-applied\n"
    );
    let more = WEB.replace("replicas: 2", "replicas: 5");
    server.kubectl_with(&apply, &more).await.ok();
    let replicas = ["get", "deploy", "web", "-o", "jsonpath={.spec.replicas}"];
    assert_eq!(server.kubectl(&replicas).await.ok(), "5");

    // The same again is no write.
    let version = [
        "get",
        "deploy",
        "web",
        "-o",
        "jsonpath={.metadata.resourceVersion}",
    ];
    let before = server.kubectl(&version).await.ok();
    server.kubectl_with(&apply, &more).await.ok();
    assert_eq!(server.kubectl(&version).await.ok(), before);

    // Somebody else wants to own the same field.
    let other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let conflict = server.kubectl_with(&other, WEB).await.failed();
    assert!(
        conflict.contains("conflict") && conflict.contains(".spec.replicas"),
        "{conflict}"
    );
    let force = [
        "apply",
        "--server-side",
        "--field-manager=other",
        "--force-conflicts",
        "-f",
        "-",
    ];
    server.kubectl_with(&force, WEB).await.ok();
    assert_eq!(server.kubectl(&replicas).await.ok(), "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_objects() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(WEB).await;
    server
        .kubectl(&["label", "deploy", "web", "tier=front"])
        .await
        .ok();
    server
        .kubectl(&["annotate", "deploy", "web", "note=hello"])
        .await
        .ok();
    let selected = server.kubectl(&[
        "get",
        "deploy",
        "-l",
        "tier=front,app in (web)",
        "-o",
        "name",
    ]);
    assert_eq!(selected.await.ok(), "deployment.apps/web\n");
    let none = server
        .kubectl(&["get", "deploy", "-l", "tier!=front", "-o", "name"])
        .await
        .ok();
    assert_eq!(none, "");

    let scaled = server
        .kubectl(&["scale", "deploy", "web", "--replicas=7"])
        .await
        .ok();
    assert_eq!(scaled, "deployment.apps/web scaled\n");
    let wrong = [
        "scale",
        "deploy",
        "web",
        "--current-replicas=3",
        "--replicas=9",
    ];
    assert!(
        server
            .kubectl(&wrong)
            .await
            .failed()
            .contains("Expected replicas to be 3, was 7")
    );

    let patch = |kind: &'static str, text: &'static str| {
        let server = &server;
        async move {
            server
                .kubectl(&["patch", "deploy", "web", "--type", kind, "-p", text])
                .await
        }
    };
    let image =
        r#"{"spec":{"template":{"spec":{"containers":[{"name":"server","image":"x:2"}]}}}}"#;
    patch("strategic", image).await.ok();
    patch(
        "json",
        r#"[{"op":"replace","path":"/spec/replicas","value":4}]"#,
    )
    .await
    .ok();
    patch("merge", r#"{"metadata":{"annotations":{"note":null}}}"#)
        .await
        .ok();
    let path = "jsonpath={.spec.replicas} {.spec.template.spec.containers[0].image} \
                {.spec.template.spec.containers[0].ports[0].name} {.metadata.annotations.note}";
    let now = server
        .kubectl(&["get", "deploy", "web", "-o", path])
        .await
        .ok();
    assert_eq!(now.trim(), "4 x:2 http");

    // What `kubectl edit` does, with an editor that replaces a word.
    let mut edit = server.command(&["edit", "deploy", "web"]);
    edit.env("KUBE_EDITOR", "sed -i s/x:2/x:3/")
        .stdout(Stdio::null());
    assert!(edit.status().await.unwrap().success());
    let now = server
        .kubectl(&["get", "deploy", "web", "-o", "wide"])
        .await
        .ok();
    assert!(now.contains("x:3"), "{now}");

    let diff = server
        .kubectl_with(&["diff", "-f", "-"], &WEB.replace("1.27", "1.28"))
        .await;
    assert_eq!(diff.code, Some(1), "{diff:?}");
    assert!(
        diff.stdout.contains("+      - image: nginx:1.28"),
        "{}",
        diff.stdout
    );
    let still = server
        .kubectl(&["get", "deploy", "web", "-o", "wide"])
        .await
        .ok();
    assert!(still.contains("x:3"), "a diff changes nothing: {still}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_bad_objects_with_the_words_of_kubernetes() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    let pod = |change: &str| {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: bad}}\nspec:\n  containers: [{{name: c, image: i}}]\n{change}"
        )
    };
    let cases = [
        (
            "apiVersion: v1\nkind: Pode\nmetadata: {name: a}\n".to_owned(),
            "no matches for kind \"Pode\" in version \"v1\"",
        ),
        (
            pod("  colour: red\n"),
            "strict decoding error: unknown field \"spec.colour\"",
        ),
        (pod("  hostNetwork: maybe\n"), "cannot be handled as a Pod"),
        (
            pod("").replace("name: bad", "name: Bad_Name"),
            "metadata.name: Invalid value: \"Bad_Name\"",
        ),
        (
            pod("").replace("name: bad", "name: bad, namespace: nowhere"),
            "namespaces \"nowhere\" not found",
        ),
        (
            pod("").replace("[{name: c, image: i}]", "[]"),
            "spec.containers: Required value",
        ),
        (
            WEB.replace("nodePort: 30080", "nodePort: 80"),
            "The range of valid ports is 30000-32767",
        ),
        (
            WEB.replace("matchLabels: {app: web}", "matchLabels: {app: other}"),
            "`selector` does not match template `labels`",
        ),
    ];
    for (manifest, expected) in cases {
        let errors = server
            .kubectl_with(&["create", "-f", "-"], &manifest)
            .await
            .failed();
        assert!(errors.contains(expected), "{manifest}\n{errors}");
    }
    assert!(server.client.list::<Pod>(None).is_empty());
    let unknown = server.kubectl(&["get", "gadgets"]).await.failed();
    assert!(
        unknown.contains("the server doesn't have a resource type \"gadgets\""),
        "{unknown}"
    );
    let selector = server
        .kubectl(&["get", "pods", "--field-selector", "spec.x=1"])
        .await
        .failed();
    assert!(
        selector.contains("field label not supported: spec.x"),
        "{selector}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn watches_in_tables() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(PODS).await;
    let mut child = server
        .command(&["get", "pods", "-w", "-l", "app=web"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || lines.next_line().await.unwrap().unwrap();
    assert!(next().await.starts_with("NAME"));
    assert_eq!(words(&next().await)[..3], ["one", "0/1", "Pending"]);
    let client = &server.client;
    let set_phase = |phase: &str| {
        let pod = client.modify_status::<Pod>(Some("default"), "one", |pod| {
            pod.status.get_or_insert_default().phase = Some(phase.to_owned());
        });
        pod.unwrap();
    };
    set_phase("Running");
    assert_eq!(words(&next().await)[..3], ["one", "0/1", "Running"]);
    // `two` does not match until it has the label.
    server
        .kubectl(&["label", "pod", "two", "app=web"])
        .await
        .ok();
    assert_eq!(words(&next().await)[..3], ["two", "0/2", "Pending"]);
    client
        .delete::<Pod>(Some("default"), "one", Some(0))
        .unwrap();
    assert_eq!(words(&next().await)[0], "one");
    child.kill().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn describes_pods_and_nodes_with_events() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(PODS).await;
    let mut node = Node::default();
    node.metadata.name = Some("node1".to_owned());
    server.client.create(&node).unwrap();
    let bound = server.client.modify::<Pod>(Some("default"), "one", |pod| {
        pod.spec.get_or_insert_default().node_name = Some("node1".to_owned());
    });
    let uid = bound.unwrap().metadata.uid;
    let event = Event {
        metadata: ObjectMeta {
            name: Some("one.1".to_owned()),
            namespace: Some("default".to_owned()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            kind: Some("Pod".to_owned()),
            name: Some("one".to_owned()),
            namespace: Some("default".to_owned()),
            uid,
            ..ObjectReference::default()
        },
        reason: Some("Pulled".to_owned()),
        message: Some("all is well".to_owned()),
        type_: Some("Normal".to_owned()),
        ..Event::default()
    };
    server.client.create(&event).unwrap();
    let text = server.kubectl(&["describe", "pod", "one"]).await.ok();
    assert!(
        text.contains("Pulled") && text.contains("all is well"),
        "{text}"
    );
    assert!(text.contains("Node:             node1/"), "{text}");
    let text = server.kubectl(&["describe", "node", "node1"]).await.ok();
    assert!(
        text.contains("Non-terminated Pods:          (1 in total)"),
        "{text}"
    );
    let text = server.kubectl(&["get", "events"]).await.ok();
    assert!(text.contains("pod/one"), "{text}");
    for kind in ["ns/default", "svc/kubernetes"] {
        server.kubectl(&["describe", kind]).await.ok();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_logs_and_runs_commands() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(PODS).await;
    let logs = server.kubectl(&["logs", "one", "--tail=5"]).await.ok();
    assert_eq!(
        logs,
        "pod one, container main\ntail Some(5), follow false\n"
    );
    let wrong = server.kubectl(&["logs", "two", "-c", "z"]).await.failed();
    assert!(
        wrong.contains("container z is not valid for pod two"),
        "{wrong}"
    );

    let said = server
        .kubectl(&["exec", "one", "--", "echo", "hello there"])
        .await
        .ok();
    assert_eq!(said, "hello there\n");
    let copied = server
        .kubectl_with(&["exec", "-i", "two", "-c", "b", "--", "cat"], "a\nb\n")
        .await;
    assert_eq!(copied.ok(), "a\nb\n");
    let script = "echo out; echo err >&2; exit 7";
    let outcome = server
        .kubectl(&["exec", "one", "--", "sh", "-c", script])
        .await;
    assert_eq!(outcome.code, Some(7), "{outcome:?}");
    assert_eq!(outcome.stdout, "out\n");
    assert!(outcome.stderr.contains("err\n"), "{outcome:?}");
    let many = server
        .kubectl(&["exec", "one", "--", "seq", "200000"])
        .await
        .ok();
    assert_eq!(many.lines().count(), 200_000);
    let none = server
        .kubectl(&["exec", "one", "--", "/no/such/program"])
        .await
        .failed();
    assert!(none.contains("No such file"), "{none}");
    let missing = server
        .kubectl(&["exec", "three", "--", "true"])
        .await
        .failed();
    assert!(missing.contains("pods \"three\" not found"), "{missing}");
}

const WIDGETS: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.example.com}
spec:
  group: example.com
  scope: Namespaced
  names: {plural: widgets, kind: Widget, shortNames: [wi]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    additionalPrinterColumns:
    - {name: Colour, type: string, jsonPath: .spec.colour}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [colour]
            properties:
              colour: {type: string, enum: [red, blue]}
              replicas: {type: integer}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn serves_custom_resources() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server.apply(WIDGETS).await;
    let wait = [
        "wait",
        "--for=condition=Established",
        "crd/widgets.example.com",
        "--timeout=10s",
    ];
    server.kubectl(&wait).await.ok();
    let widget =
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {colour: red}\n";
    server.apply(widget).await;
    let table = server.kubectl(&["get", "wi"]).await.ok();
    assert_eq!(
        words(table.lines().next().unwrap()),
        ["NAME", "COLOUR", "AGE"]
    );
    assert_eq!(words(table.lines().nth(1).unwrap())[..2], ["w", "red"]);
    server.apply(&widget.replace("red", "blue")).await;
    server
        .kubectl(&["scale", "wi/w", "--replicas=3"])
        .await
        .ok();
    let path = "jsonpath={.spec.colour} {.spec.replicas}";
    assert_eq!(
        server.kubectl(&["get", "wi", "w", "-o", path]).await.ok(),
        "blue 3"
    );
    let apply = ["apply", "-f", "-"];
    let bad = server
        .kubectl_with(&apply, &widget.replace("red", "green"))
        .await
        .failed();
    assert!(
        bad.contains("Unsupported value: \"green\": supported values: \"red\", \"blue\""),
        "{bad}"
    );
    let bad = server
        .kubectl_with(&apply, &widget.replace("colour: red", "colour: red, x: 1"))
        .await;
    assert!(bad.failed().contains("unknown field \"spec.x\""));
    server
        .kubectl(&["delete", "crd", "widgets.example.com"])
        .await
        .ok();
    let gone = server.kubectl(&["get", "wi"]).await.failed();
    assert!(
        gone.contains("could not find the requested resource"),
        "{gone}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_namespaces_with_their_content() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    server
        .apply("apiVersion: v1\nkind: Namespace\nmetadata: {name: team}\n")
        .await;
    server
        .kubectl_with(&["apply", "-n", "team", "-f", "-"], WEB)
        .await
        .ok();
    server.kubectl(&["delete", "ns", "team"]).await.ok();
    assert!(
        server
            .kubectl(&["get", "ns", "team"])
            .await
            .failed()
            .contains("not found")
    );
    assert_eq!(
        server
            .kubectl(&["get", "deploy", "-A", "-o", "name"])
            .await
            .ok(),
        ""
    );
    let refused = server.kubectl(&["delete", "ns", "default"]).await.failed();
    assert!(
        refused.contains("this namespace may not be deleted"),
        "{refused}"
    );
}

/// These send protobuf, unlike everything else that kubectl does.
#[tokio::test(flavor = "multi_thread")]
async fn creates_from_the_command_line() {
    if without_kubectl() {
        return;
    }
    let server = Server::start().await;
    let commands = [
        "create namespace team",
        "create configmap c --from-literal=k=v --from-literal=empty=",
        "create secret generic s --from-literal=password=hunter2",
        "create serviceaccount robot",
        "create deployment web --image=nginx:1.27 --replicas=2 --port=80",
        "create deployment two --image=a --image=b",
        "create job once --image=busybox -- echo hello",
        "create service clusterip plain --tcp=80:8080",
        "create service nodeport outside --tcp=80:http --node-port=30099",
        "create service externalname away --external-name=example.com",
        "create ingress front --class=ripstop --rule=example.com/shop*=web:80,tls=cert",
    ];
    for command in commands {
        let args: Vec<_> = command.split(' ').collect();
        server.kubectl(&args).await.ok();
    }
    let shown = [
        ("configmap/c", "{.data.k}[{.data.empty}]", "v[]"),
        (
            "secret/s",
            "{.data.password} {.type}",
            "aHVudGVyMg== Opaque",
        ),
        (
            "deploy/web",
            "{.spec.replicas} {.spec.template.spec.containers[0].ports[0].containerPort} \
             {.spec.selector.matchLabels.app}",
            "2 80 web",
        ),
        (
            "deploy/two",
            "{.spec.template.spec.containers[*].image}",
            "a b",
        ),
        (
            "job/once",
            "{.spec.template.spec.containers[0].command} {.spec.template.spec.restartPolicy}",
            "[\"echo\",\"hello\"] Never",
        ),
        (
            "svc/plain",
            "{.spec.ports[0].targetPort} {.spec.type}",
            "8080 ClusterIP",
        ),
        (
            "svc/outside",
            "{.spec.ports[0].targetPort} {.spec.ports[0].nodePort}",
            "http 30099",
        ),
        ("svc/away", "{.spec.externalName}", "example.com"),
        (
            "ingress/front",
            "{.spec.rules[0].host} {.spec.rules[0].http.paths[0].path} \
             {.spec.rules[0].http.paths[0].backend.service.port.number} {.spec.tls[0].secretName}",
            "example.com /shop 80 cert",
        ),
    ];
    for (object, path, expected) in shown {
        let path = format!("jsonpath={path}");
        let found = server.kubectl(&["get", object, "-o", &path]).await.ok();
        assert_eq!(found, expected, "{object}");
    }
    let may = server
        .kubectl(&["auth", "can-i", "create", "pods"])
        .await
        .ok();
    assert_eq!(may, "yes\n");
    let whoami = server.kubectl(&["auth", "whoami"]).await.ok();
    assert!(whoami.contains("kubernetes-admin"), "{whoami}");
}
