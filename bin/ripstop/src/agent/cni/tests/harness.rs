//! A node with the real server and the real plugin, and an engine that only
//! remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use ipnet::IpNet;
use ripstop_datapath::{
    Connection, Datapath, Denials, Drift, EngineStatus, Error, FrontendState, PolicySettings,
    ResolvedRoute, TranslatedFlow,
};
use ripstop_host::pod::is_host_end;
use ripstop_host::uplink::prepare_node;
use ripstop_model::LocalPod;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::PROTOCOL;
use ripstop_netlink::{Netlink, address, link};
use ripstop_plan::policy::PolicyTables;
use ripstop_plan::{Change, Tables};
use serde_json::{Value, json};

use super::super::{CniConfig, CniServer};

/// Set for the server in a process of its own: run directory and pod ranges.
const SERVER_DIRECTORY: &str = "RIPSTOP_TEST_CNI_DIRECTORY";
const SERVER_RANGES: &str = "RIPSTOP_TEST_CNI_RANGES";

/// What an engine was told.
#[derive(Debug, Default)]
pub(super) struct Remembers {
    pub(super) pods: BTreeMap<String, LocalPod>,
    pub(super) refuses: bool,
}

impl Datapath for Remembers {
    fn apply(&mut self, _: &Change) -> Result<(), Error> {
        Ok(())
    }
    fn share_ports(&mut self, _: bool) -> Result<(), Error> {
        Ok(())
    }
    fn retire(&mut self) -> Result<(), Error> {
        Ok(())
    }
    fn apply_routes(&mut self, _: &[ResolvedRoute]) -> Result<(), Error> {
        Ok(())
    }
    fn add_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        if self.refuses {
            let (limit, row) = (1, pod.container_id.clone());
            return Err(Error::TableFull {
                table: "endpoints",
                limit,
                row,
            });
        }
        self.pods.insert(pod.container_id.clone(), pod.clone());
        Ok(())
    }
    fn remove_pod(&mut self, pod: &LocalPod) -> Result<(), Error> {
        self.pods.remove(&pod.container_id);
        Ok(())
    }
    fn check_pod(&self, pod: &LocalPod) -> Result<Option<String>, Error> {
        let known = self.pods.get(&pod.container_id) == Some(pod);
        Ok((!known).then(|| "the datapath does not know it".to_owned()))
    }
    fn attach_uplink(&mut self, _: u32) -> Result<(), Error> {
        Ok(())
    }
    fn audit(&mut self, _: &Tables, _: &[LocalPod]) -> Result<Drift, Error> {
        Ok(Drift::default())
    }
    fn status(&self) -> EngineStatus {
        EngineStatus::default()
    }
    fn services(&self) -> Result<Vec<FrontendState>, Error> {
        Ok(Vec::new())
    }
    fn flows(&self) -> Result<Vec<TranslatedFlow>, Error> {
        Ok(Vec::new())
    }
    fn take_flows(&mut self, _: &[TranslatedFlow]) -> Result<(), Error> {
        Ok(())
    }
    fn set_policy_settings(&mut self, _: PolicySettings) -> Result<(), Error> {
        Ok(())
    }
    fn policies(&self) -> Result<PolicyTables, Error> {
        Ok(PolicyTables::default())
    }
    fn denials(&self) -> Result<Denials, Error> {
        Ok(Denials::default())
    }
    fn connections(&self) -> Result<Vec<Connection>, Error> {
        Ok(Vec::new())
    }
    fn observed(&self) -> Result<Vec<Connection>, Error> {
        Ok(Vec::new())
    }
    fn take_connections(&mut self, _: &[Connection]) -> Result<(), Error> {
        Ok(())
    }
    fn dismantle(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// A namespace that goes with the test.
#[derive(Debug)]
pub(super) struct TestNetns {
    name: String,
    pub(super) netns: Netns,
}

impl TestNetns {
    pub(super) fn new(name: &str) -> Self {
        let name = format!("ripstop-test-{}.{name}", std::process::id());
        let netns = Netns::create(&name).expect("root makes network namespaces");
        Self { name, netns }
    }

    pub(super) fn netlink(&self) -> Netlink {
        Netlink::in_netns(&self.netns).unwrap()
    }
}

impl Drop for TestNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::remove(&self.name) {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// A node with pods.
pub(super) struct Node {
    pub(super) netns: TestNetns,
    pub(super) engine: Arc<Mutex<Remembers>>,
    directory: tempfile::TempDir,
    name: String,
    ranges: String,
}

/// What the plugin printed, and whether it succeeded.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) success: bool,
    pub(super) printed: Value,
}

impl Outcome {
    pub(super) fn result(self) -> Value {
        assert!(self.success, "{}", self.printed);
        self.printed
    }

    /// Code and message of the error.
    pub(super) fn error(self) -> (u64, String) {
        assert!(!self.success, "{}", self.printed);
        let message = self.printed["msg"].as_str().expect("a message").to_owned();
        (self.printed["code"].as_u64().expect("a code"), message)
    }

    pub(super) fn addresses(&self) -> BTreeSet<IpAddr> {
        let ips = self.printed["ips"].as_array().expect("ips");
        let nets = ips
            .iter()
            .map(|ip| ip["address"].as_str().unwrap().parse::<IpNet>().unwrap());
        nets.map(|net| net.addr()).collect()
    }
}

impl Node {
    /// A node whose server is in a thread of this process.
    pub(super) fn new(name: &str, ranges: &str) -> Self {
        let node = Self::without_server(name, ranges);
        let listener = CniServer::listen(&node.socket()).unwrap();
        let config = config(node.directory.path(), ranges);
        let engine: Arc<Mutex<dyn Datapath>> = node.engine.clone();
        let netns = Netns::open(node.netns.netns.path()).unwrap();
        let (started, starts) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            netns
                .run(|| {
                    let server = CniServer::open(config, engine).unwrap();
                    started.send(Arc::clone(&server)).unwrap();
                    server.run(&listener)
                })
                .unwrap()
        });
        starts.recv().unwrap();
        node
    }

    /// A node that has no server yet.
    pub(super) fn without_server(name: &str, ranges: &str) -> Self {
        let netns = TestNetns::new(name);
        netns.netns.run(|| prepare_node(&[])).unwrap().unwrap();
        // The node's own addresses, which its packets to pods carry.
        let own = ["192.0.2.1/32", "2001:db8::1/128"];
        let requests = own.map(|address| address::add(1, address.parse().unwrap()));
        netns
            .netlink()
            .execute([link::up(1)].into_iter().chain(requests))
            .unwrap();
        Self {
            netns,
            engine: Arc::default(),
            directory: tempfile::tempdir().unwrap(),
            name: name.to_owned(),
            ranges: ranges.to_owned(),
        }
    }

    /// Starts a server in a process of its own, which can be killed.
    pub(super) fn spawn_server(&self) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args([
                "--exact",
                "agent::cni::tests::server_process",
                "--ignored",
                "--nocapture",
            ])
            .env(SERVER_DIRECTORY, self.directory.path())
            .env(SERVER_RANGES, &self.ranges)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        self.netns.netns.run(|| command.spawn()).unwrap().unwrap()
    }

    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("cni.sock")
    }

    /// Waits until the server answers.
    pub(super) fn ready(&self) {
        eventually("the server answers", || self.status().success);
    }

    pub(super) fn status(&self) -> Outcome {
        finish(self.plugin("STATUS", "", None, json!({})))
    }

    pub(super) fn pod_netns(&self, id: &str) -> TestNetns {
        TestNetns::new(&format!("{}-{id}", self.name))
    }

    pub(super) fn add(&self, id: &str, netns: &TestNetns) -> Outcome {
        self.run("ADD", id, netns, json!({}))
    }

    pub(super) fn del(&self, id: &str, netns: &TestNetns) {
        let outcome = self.run("DEL", id, netns, json!({}));
        assert!(
            outcome.success && outcome.printed.is_null(),
            "{}",
            outcome.printed
        );
    }

    /// Runs the plugin with `more` added to its configuration.
    pub(super) fn run(&self, command: &str, id: &str, netns: &TestNetns, more: Value) -> Outcome {
        finish(self.plugin(command, id, Some(netns.netns.path()), more))
    }

    /// Starts the plugin as a runtime does.
    pub(super) fn plugin(
        &self,
        command: &str,
        id: &str,
        netns: Option<&Path>,
        more: Value,
    ) -> Child {
        let mut config = json!({
            "cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni",
            "socket": self.socket(),
        });
        config
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let mut process = Command::new(plugin_path());
        process
            .env_clear()
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_IFNAME", "eth0")
            .env(
                "CNI_ARGS",
                format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={id}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if let Some(netns) = netns {
            process.env("CNI_NETNS", netns);
        }
        let mut child = process.spawn().expect("the plugin starts");
        // It may be gone already.
        let _ = child
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes());
        child
    }

    /// Names of pods' host ends.
    pub(super) fn host_ends(&self) -> Vec<String> {
        let links = self.netns.netlink().links().unwrap();
        links
            .into_iter()
            .map(|link| link.name)
            .filter(|name| is_host_end(name))
            .collect()
    }

    /// Files of records.
    pub(super) fn records(&self) -> Vec<String> {
        let files = std::fs::read_dir(self.directory.path().join("pods")).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".json")).collect()
    }

    /// Waits until no pod has left anything.
    pub(super) fn is_empty_soon(&self) {
        eventually("nothing is left", || {
            self.host_ends().is_empty()
                && self.records().is_empty()
                && self
                    .netns
                    .netlink()
                    .routes()
                    .unwrap()
                    .iter()
                    .all(|r| r.protocol != PROTOCOL)
        });
        assert!(self.engine.lock().unwrap().pods.is_empty());
    }
}

/// Waits for the plugin and reads what it printed.
pub(super) fn finish(child: Child) -> Outcome {
    let output = child.wait_with_output().unwrap();
    let printed = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
    Outcome {
        success: output.status.success(),
        printed,
    }
}

pub(super) fn eventually(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "not within 20 s: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The plugin of the profile of this test, built if need be.
pub(super) fn plugin_path() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        // target/PROFILE/deps/ripstop-HASH
        let test = std::env::current_exe().unwrap();
        let profile = test.ancestors().nth(2).unwrap();
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args([
            "build",
            "--quiet",
            "--package",
            "ripstop-cni",
            "--target-dir",
        ]);
        cargo
            .arg(profile.parent().unwrap())
            .current_dir(env!("CARGO_MANIFEST_DIR"));
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().unwrap().success(), "the plugin builds");
        profile.join("ripstop-cni")
    })
}

/// The server of [`Node::spawn_server`]; does nothing unless started by it.
pub(super) fn serve_if_asked() {
    let Some(directory) = std::env::var_os(SERVER_DIRECTORY) else {
        return;
    };
    let directory = PathBuf::from(directory);
    let config = config(&directory, &std::env::var(SERVER_RANGES).unwrap());
    let engine: Arc<Mutex<dyn Datapath>> = Arc::new(Mutex::new(Remembers::default()));
    let server = CniServer::open(config, Arc::clone(&engine)).unwrap();
    // As the agent does with pods that were here before it.
    for pod in server.pods() {
        engine.lock().unwrap().add_pod(&pod).unwrap();
    }
    server.run(&CniServer::listen(&directory.join("cni.sock")).unwrap())
}

fn config(directory: &Path, ranges: &str) -> CniConfig {
    CniConfig {
        run_dir: directory.to_owned(),
        pod_cidrs: ranges
            .split(',')
            .map(|range| range.parse().unwrap())
            .collect(),
        mtu: 1500,
    }
}
