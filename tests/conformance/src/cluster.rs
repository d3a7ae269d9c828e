//! A lab with the suite's lasting pods, and clients in all places.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use ripstop_tests::Lab;
use serde_json::{Value, json};

use crate::api::Api;
use crate::engine::{Engine, Family, Stack};
use crate::path::{BESIDE, CLIENT, FAR, HOME, NEAR, NODES, ON_HOST, OTHER_CLIENT, Server};
use crate::place::{Client, Place, lock};
use crate::wire::Ask;

/// Of the machine outside.
pub const OUTSIDE: &str = "outside";
/// Where it serves.
pub const OUTSIDE_PORT: u16 = 9000;
/// The limit for a broken product, no measurement; seconds.
static PATIENCE: AtomicU64 = AtomicU64::new(30);

#[derive(Debug)]
pub struct Cluster {
    pub engine: Engine,
    pub stack: Stack,
    pub api: Api,
    clients: Mutex<HashMap<Place, Arc<Client>>>,
    /// Of pods and nodes that stay.
    addresses: HashMap<String, Vec<IpAddr>>,
    program: String,
    next_node_port: AtomicU16,
    next_external: AtomicU16,
    /// Last: it ends what is above.
    pub lab: Lab,
}

impl Cluster {
    /// A cluster in which all lasting pods are ready.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn up(engine: Engine, stack: Stack, program: &str) -> Result<Self> {
        let lab = Lab::unborn();
        let mut args = vec!["--nodes", "3", "--subnets", "2", "--zones", "2"];
        args.extend(["--ip-family", stack.name()]);
        args.extend(["--datapath", engine.name()]);
        args.extend(["--no-masquerade", unmasked(stack)]);
        if let Some(range) = node_port_range(stack) {
            args.extend(["--nodeport-addresses", range]);
        }
        let up = lab.run("up", &args);
        ensure!(
            up.ok,
            "ripstop lab up {}: {}",
            args.join(" "),
            up.stderr.trim()
        );
        let api = Api::connect(&lab.root().join("kubeconfig"))?;
        let mut cluster = Self {
            engine,
            stack,
            api,
            clients: Mutex::default(),
            addresses: HashMap::new(),
            program: program.to_owned(),
            next_node_port: AtomicU16::new(30000),
            next_external: AtomicU16::new(0),
            lab,
        };
        cluster.populate()?;
        Ok(cluster)
    }

    fn populate(&mut self) -> Result<()> {
        for client in [(CLIENT, HOME), (OTHER_CLIENT, FAR.node)] {
            let command = ["sleep", "infinity"];
            self.create_pod(client.0, client.1, &json!({}), &command, &json!({}))?;
        }
        for server in [NEAR, BESIDE, FAR, ON_HOST] {
            self.create_server(&server)?;
        }
        let pods = [NEAR, BESIDE, FAR, ON_HOST].map(|server| server.name);
        for pod in pods.into_iter().chain([CLIENT, OTHER_CLIENT]) {
            let addresses = self.ready(pod)?;
            self.addresses.insert(pod.to_owned(), addresses);
        }
        for node in NODES {
            let object = self.api.get(&format!("/api/v1/nodes/{node}"))?;
            let all = object["status"]["addresses"].as_array();
            let addresses = all.into_iter().flatten();
            let addresses = addresses
                .filter(|entry| entry["type"] == "InternalIP")
                .filter_map(|entry| entry["address"].as_str()?.parse().ok());
            self.addresses.insert(node.to_owned(), addresses.collect());
        }
        Ok(())
    }

    fn create_server(&self, server: &Server) -> Result<()> {
        let (port, next) = (server.port.to_string(), (server.port + 1).to_string());
        let ports = format!("{port},{next}");
        let command = self.serve(server.name, &ports, false);
        let command: Vec<&str> = command.iter().map(String::as_str).collect();
        // The name leads to another port in one of the pods.
        let named = server.port + u16::from(server == &BESIDE);
        let on_host = server == &ON_HOST;
        let spec = json!({
            "hostNetwork": on_host,
            "containers": [{
                "ports": [
                    {"name": "main", "containerPort": named, "protocol": "TCP"},
                    {"name": "main-udp", "containerPort": named, "protocol": "UDP"},
                ],
                "readinessProbe": {"tcpSocket": {"port": server.port}, "periodSeconds": 1},
            }],
        });
        let app = if on_host { "on-host" } else { "web" };
        let labels = json!({"app": app, "who": server.name});
        self.create_pod(server.name, server.node, &labels, &command, &spec)
    }

    /// The command of a server.
    pub fn serve(&self, name: &str, ports: &str, stubborn: bool) -> Vec<String> {
        let mut command: Vec<String> = [
            &self.program,
            "serve",
            "--name",
            name,
            "--tcp",
            ports,
            "--udp",
            ports,
        ]
        .map(str::to_owned)
        .to_vec();
        if stubborn {
            command.push("--stubborn".to_owned());
        }
        command
    }

    /// Makes a pod with one container; `spec` is merged into its specification.
    ///
    /// # Errors
    /// What the API says.
    pub fn create_pod(
        &self,
        name: &str,
        node: &str,
        labels: &Value,
        command: &[&str],
        spec: &Value,
    ) -> Result<()> {
        let mut pod = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "nodeName": node,
                "tolerations": [{"operator": "Exists"}],
                "containers": [{"name": "main", "image": "conformance", "command": command}],
            },
        });
        merge(&mut pod["spec"], spec);
        self.api.create("/api/v1/namespaces/default/pods", &pod)?;
        Ok(())
    }

    /// Waits until a pod is ready; returns its addresses.
    ///
    /// # Errors
    /// If it does not become so.
    pub fn ready(&self, pod: &str) -> Result<Vec<IpAddr>> {
        let path = format!("/api/v1/namespaces/default/pods/{pod}");
        eventually(&format!("pod {pod} is ready"), || {
            let object = self.api.get(&path)?;
            let conditions = object["status"]["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True");
            ensure!(ready, "its status is {}", object["status"]);
            addresses_of(&object)
        })
    }

    /// The client program in a place, started if there is none yet.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn client(&self, place: &Place) -> Result<Arc<Client>> {
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(place) {
            return Ok(Arc::clone(client));
        }
        let client = Arc::new(Client::start(&self.lab, place, &self.program)?);
        if *place == Place::Outside {
            client.ask(Ask::Serve {
                name: OUTSIDE.to_owned(),
                ports: vec![OUTSIDE_PORT],
            })?;
        }
        clients.insert(place.clone(), Arc::clone(&client));
        Ok(client)
    }

    /// Forgets the client of a place that is no more.
    pub fn forget(&self, place: &Place) {
        lock(&self.clients).remove(place);
    }

    /// Address of a pod or node that stays.
    ///
    /// # Errors
    /// If there is none.
    pub fn address(&self, name: &str, family: Family) -> Result<IpAddr> {
        let all = self.addresses.get(name).map_or(&[][..], Vec::as_slice);
        let address = all.iter().find(|address| family.is_of(**address));
        address
            .copied()
            .with_context(|| format!("{name} has no {} address", family.name()))
    }

    /// A number from 128 to 254 that nobody else of the suite has.
    pub fn external_number(&self) -> u8 {
        let number = self.next_external.fetch_add(1, Ordering::Relaxed);
        128 + (number % 127) as u8
    }

    /// A NodePort that nobody else of the suite has: of the band that is not
    /// given out by itself.
    pub fn fixed_node_port(&self) -> u16 {
        self.next_node_port.fetch_add(1, Ordering::Relaxed)
    }
}

/// Destinations outside the cluster that see pods under their own addresses.
fn unmasked(stack: Stack) -> &'static str {
    match stack {
        Stack::Dual => "172.31.0.128/25,fd00:31:0:0:8000::/65",
        Stack::Ipv4 => "172.31.0.128/25",
        Stack::Ipv6 => "fd00:31:0:0:8000::/65",
    }
}

/// Where NodePorts answer if not at every address: in single-stack clusters at
/// those of one of the two subnets.
fn node_port_range(stack: Stack) -> Option<&'static str> {
    match stack {
        Stack::Dual => None,
        Stack::Ipv4 => Some("172.30.1.0/24"),
        Stack::Ipv6 => Some("fd00:30:1::/64"),
    }
}

/// Nodes whose address is in that range.
pub fn node_port_nodes(stack: Stack) -> &'static [&'static str] {
    match stack {
        Stack::Dual => &NODES,
        Stack::Ipv4 | Stack::Ipv6 => &[NEAR.node, BESIDE.node],
    }
}

/// `status.podIPs`
pub fn addresses_of(pod: &Value) -> Result<Vec<IpAddr>> {
    let all = pod["status"]["podIPs"].as_array().context("no addresses")?;
    let texts = all.iter().filter_map(|entry| entry["ip"].as_str());
    texts.map(|text| Ok(text.parse()?)).collect()
}

/// Where `port` of an address is.
pub fn at(address: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(address, port)
}

/// Merges objects key by key and lists entry by entry; else the second counts.
pub fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(into), Value::Array(from)) if into.len() == from.len() => {
            for (into, from) in into.iter_mut().zip(from) {
                merge(into, from);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// How long something that should become so is waited for.
pub fn set_patience(seconds: u64) {
    PATIENCE.store(seconds, Ordering::Relaxed);
}

fn patience() -> Duration {
    Duration::from_secs(PATIENCE.load(Ordering::Relaxed))
}

/// Tries until it succeeds.
///
/// # Errors
/// The last one, after a time that no healthy cluster takes.
pub fn eventually<T>(what: &str, mut attempt: impl FnMut() -> Result<T>) -> Result<T> {
    let (start, limit) = (Instant::now(), patience());
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if start.elapsed() > limit => {
                bail!("not within {limit:?}: {what}: {error:#}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}
