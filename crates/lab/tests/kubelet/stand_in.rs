//! Stand-ins in pods.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

use serde_json::{Value, json};

use super::harness::{Lab, run};

/// What `GET path` answers, from the node's network.
pub(crate) fn get(lab: &Lab, to: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = lab.in_node(|| TcpStream::connect(to))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    Ok(body.to_owned())
}

pub(crate) fn ip(status: &Value, index: usize) -> std::net::IpAddr {
    status["podIPs"][index]["ip"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn says_who_it_is_over_every_protocol() {
    run(|| async {
        let lab = Lab::start().await;
        lab.create("web", json!({"containers": [{
            "name": "c", "image": "example.com/shop/web:v1",
            "ports": [{"containerPort": 8080, "name": "http"},
                      {"containerPort": 53, "protocol": "UDP"}],
            "readinessProbe": {"initialDelaySeconds": 30, "httpGet": {"port": "http", "path": "/ok"}},
            "livenessProbe": {"initialDelaySeconds": 30, "grpc": {"port": 8080}},
        }]}));
        lab.ready("web").await;
        let status = lab.status("web");
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["hostIP"], "172.30.1.11");
        let container = &status["containerStatuses"][0];
        assert_eq!(container["imageID"], "ripstop-lab://stand-in");
        assert_eq!(
            (&container["ready"], &container["restartCount"]),
            (&json!(true), &json!(0))
        );

        for ip in [ip(&status, 0), ip(&status, 1)] {
            let answer = get(&lab, (ip, 8080).into(), "/a?b=c").unwrap();
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert_eq!(answer["pod"], "web");
            assert_eq!(answer["node"], "node1");
            assert_eq!(answer["image"], "example.com/shop/web:v1");
            assert_eq!(answer["server"], SocketAddr::from((ip, 8080)).to_string());
            assert_eq!(answer["request"]["path"], "/a?b=c");

            let stream = lab.in_node(|| TcpStream::connect((ip, 8080))).unwrap();
            (&stream).write_all(b"hello\n").unwrap();
            let mut line = String::new();
            BufReader::new(stream).read_line(&mut line).unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer["received"], "hello");

            let any = if ip.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = lab.in_node(|| UdpSocket::bind(any)).unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            socket.send_to(b"ping", (ip, 53)).unwrap();
            let mut buffer = [0; 1500];
            let (length, from) = socket.recv_from(&mut buffer).unwrap();
            let answer: Value = serde_json::from_slice(&buffer[..length]).unwrap();
            assert_eq!(from, SocketAddr::from((ip, 53)));
            assert_eq!(
                (&answer["received"], &answer["pod"]),
                (&json!("ping"), &json!("web"))
            );
            let us = answer["client"]
                .as_str()
                .unwrap()
                .parse::<SocketAddr>()
                .unwrap();
            assert_eq!(us.port(), socket.local_addr().unwrap().port());
        }
    });
}

#[test]
fn agnhost_is_understood() {
    run(|| async {
        let lab = Lab::start().await;
        let image = "registry.k8s.io/e2e-test-images/agnhost:2.53";
        lab.create(
            "net",
            json!({"containers": [{
                "name": "c", "image": image, "args": ["netexec", "--http-port=80"],
                "readinessProbe": {"tcpSocket": {"port": 80}},
            }]}),
        );
        lab.create(
            "name",
            json!({"containers": [
                {"name": "c", "image": image, "args": ["serve-hostname", "--port=81"]},
                {"name": "p", "image": image, "args": ["porter"],
                 "env": [{"name": "SERVE_PORT_82", "value": "hi"}]},
                {"name": "i", "image": image, "command": ["/agnhost", "pause"]},
            ]}),
        );
        lab.ready("net").await;
        lab.ready("name").await;
        let net = ip(&lab.status("net"), 0);
        let name = ip(&lab.status("name"), 0);
        assert_eq!(get(&lab, (net, 80).into(), "/hostname").unwrap(), "net");
        assert_eq!(get(&lab, (name, 81).into(), "/").unwrap(), "name");
        assert_eq!(get(&lab, (name, 82).into(), "/").unwrap(), "hi");
        let dial = format!("/dial?host={name}&port=81&request=x&tries=2");
        let report: Value =
            serde_json::from_str(&get(&lab, (net, 80).into(), &dial).unwrap()).unwrap();
        assert_eq!(report, json!({"responses": ["name", "name"]}));
        let shell = get(&lab, (net, 80).into(), "/shell?cmd=hostname;echo+$$").unwrap();
        let shell: Value = serde_json::from_str(&shell).unwrap();
        assert!(shell["output"].as_str().unwrap().starts_with("net\n"));

        // As Kubernetes' tests do it.
        let lab_ref = &lab;
        let connect = |to: String| async move {
            let command = ["/agnhost", "connect", "--timeout=5s", &to];
            lab_ref.exec("net", "c", &command).await
        };
        assert_eq!(connect(format!("{name}:81")).await.0, 0);
        let refused = connect(format!("{name}:9")).await;
        assert_eq!((refused.0, refused.2.as_str()), (1, "REFUSED\n"));
        lab.create(
            "client",
            json!({"restartPolicy": "Never", "containers": [
                {"name": "ok", "image": image, "args": ["connect", format!("{name}:81")]},
                {"name": "refused", "image": image, "args": ["connect", format!("{name}:9")]},
            ]}),
        );
        let code = |status: &Value| status["state"]["terminated"]["exitCode"].as_i64();
        assert_eq!(lab.container("client", "ok", code).await, 0);
        assert_eq!(lab.container("client", "refused", code).await, 1);
        assert_eq!(lab.log("client", "refused").await, "REFUSED\n");
    });
}

#[test]
fn a_port_taken_twice_is_an_error_with_that_reason() {
    run(|| async {
        let lab = Lab::start().await;
        let ports = json!([{"containerPort": 80}]);
        lab.create(
            "twice",
            json!({"containers": [
                {"name": "a", "image": "x/a", "ports": ports},
                {"name": "b", "image": "x/b", "ports": ports},
            ]}),
        );
        let last = lab
            .container("twice", "b", |status| {
                let last = &status["lastState"]["terminated"];
                (!last.is_null()).then(|| last.clone())
            })
            .await;
        assert_eq!(
            (&last["exitCode"], &last["reason"]),
            (&json!(1), &json!("Error"))
        );
        let message = last["message"].as_str().unwrap();
        assert!(
            message.starts_with("listen tcp :80: bind: address already in use"),
            "{message}"
        );
        assert!(lab.event("Failed").await.contains("address already in use"));
        let ready = lab
            .container("twice", "a", |status| status["ready"].as_bool())
            .await;
        assert!(ready);
        // Between two attempts; during one it looks as if it ran.
        lab.until("not ready", || (!lab.is_ready("twice")).then_some(()))
            .await;
    });
}

#[test]
fn a_stand_in_that_ends_finishes_its_connections() {
    run(|| async {
        let lab = Lab::start().await;
        let ports = json!([{"containerPort": 80}]);
        lab.create(
            "web",
            json!({"containers": [{"name": "c", "image": "x", "ports": ports}]}),
        );
        lab.ready("web").await;
        let to = SocketAddr::from((ip(&lab.status("web"), 0), 80));
        let mut stream = lab.in_node(|| TcpStream::connect(to)).unwrap();
        stream
            .write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\na")
            .unwrap();
        lab.client
            .delete::<k8s_openapi::api::core::v1::Pod>(Some("default"), "web", None)
            .unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        stream.write_all(b"b").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        lab.gone("web").await;
    });
}
