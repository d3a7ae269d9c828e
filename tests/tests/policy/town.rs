//! A small cluster under policies, and everybody that can be at an end of a
//! connection.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use ripstop_tests::{Lab, write_manifest};

use crate::probes::{Kind, Reach, Servers};
use crate::stage::{self, Place};

const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec: {nodeName: node1, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec: {nodeName: node1, containers: [{name: main, image: client, command: [sleep, infinity], ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec: {nodeName: node2, containers: [{name: main, image: client, command: [sleep, infinity], ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: host, labels: {app: web}}
spec: {nodeName: node2, hostNetwork: true, containers: [{name: main, image: client, command: [sleep, infinity]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {type: NodePort, selector: {app: web, real: only}, ports: [{port: 8000, targetPort: 80, nodePort: 30080}]}
";

/// Isolates `web` and lets `rules` in.
pub(crate) fn ingress(rules: &str) -> String {
    format!(
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: web}}\n\
         spec: {{podSelector: {{matchLabels: {{app: web}}}}, ingress: [{rules}]}}\n"
    )
}

pub(crate) const FROM_CLIENT: &str = "{from: [{podSelector: {matchLabels: {app: client}}}]}";

pub(crate) struct Town {
    pub(crate) engine: &'static str,
    pub(crate) lab: Lab,
    pub(crate) client: Place,
    pub(crate) near: Place,
    pub(crate) far: Place,
    pub(crate) host: Place,
    pub(crate) node1: Place,
    pub(crate) outside: Place,
    _servers: Servers,
}

impl Town {
    pub(crate) fn new(engine: &'static str, more: &[&str]) -> Self {
        let manifest = write_manifest(PODS);
        let args = ["--nodes", "2", "--datapath", engine, "-f"];
        let args = [&args[..], &[manifest.path().to_str().unwrap()], more].concat();
        let lab = Lab::up(&args);
        let pod = |name| stage::pod(&lab, "default", name);
        let places = ["client", "near", "far", "host"].map(pod);
        let node1 = stage::node(&lab, "node1");
        let outside = stage::outside(&lab);
        let servers = places.iter().chain([&node1, &outside]).collect::<Vec<_>>();
        let servers = Servers::start(&servers, &[80, 81]);
        let [client, near, far, host] = places;
        Self {
            engine,
            client,
            near,
            far,
            host,
            node1,
            outside,
            _servers: servers,
            lab,
        }
    }

    pub(crate) fn expect(&self, from: &Place, to: &Place, port: u16, expected: Reach) {
        for kind in [Kind::Tcp, Kind::Udp] {
            for address in &to.addresses {
                let to_address = SocketAddr::new(*address, port);
                let found = from.reach(kind, to_address, expected == Reach::Open);
                assert_eq!(
                    found, expected,
                    "{}: {} to {} {kind:?} {address} {port}",
                    self.engine, from.name, to.name
                );
            }
        }
    }

    pub(crate) fn expect_tcp(&self, from: &Place, to: SocketAddr, expected: Reach) {
        let found = from.reach(Kind::Tcp, to, expected == Reach::Open);
        assert_eq!(found, expected, "{}: {} to {to}", self.engine, from.name);
    }

    pub(crate) fn policy(&self, yaml: &str) {
        stage::apply(
            &self.lab,
            yaml,
            (yaml.matches("kind: NetworkPolicy").count(), 0),
        );
    }

    pub(crate) fn no_policy(&self) {
        stage::no_policies(&self.lab, "default");
    }

    pub(crate) fn connect(&self, from: &Place, to: &Place) -> TcpStream {
        let to = SocketAddr::new(to.addresses[0], 80);
        let stream = from.netns.run(|| TcpStream::connect(to));
        let stream = stream.unwrap().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        stream
    }
}

/// Whether something sent comes back.
pub(crate) fn echoes(mut stream: &TcpStream) -> bool {
    stream.write_all(b"echo").is_ok() && stream.read_exact(&mut [0; 4]).is_ok()
}
