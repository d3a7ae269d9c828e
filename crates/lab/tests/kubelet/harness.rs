//! A lab of one node, without a network around it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Node, Pod};
use ripstop_apiserver::pods::{ExecRequest, LogOptions, PodAccess, PodRef};
use ripstop_apiserver::{Client, Store};
use ripstop_lab::kubelet::{Kubelet, KubeletConfig, NodeSpec};
use ripstop_lab::lifecycle::{Keep, tear_down};
use ripstop_lab::paths::LabPaths;
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, link};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const NODE: &str = "node1";

/// Ends with everything that it made.
pub(crate) struct Lab {
    pub(crate) client: Client,
    pub(crate) kubelet: Kubelet,
    pub(crate) paths: LabPaths,
    pub(crate) node: Netns,
    config: KubeletConfig,
    /// The plugin's state.
    pub(crate) state: PathBuf,
    _store: Store,
    _dir: tempfile::TempDir,
}

/// Whether this machine lets us; if not, says so.
pub(crate) fn possible() -> bool {
    let root = nix::unistd::geteuid().is_root();
    let cgroups = ripstop_lab::cgroup::mount_point().is_ok();
    if !root || !cgroups {
        println!("skipped: needs root and cgroup2");
    }
    root && cgroups
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(false).await
    }

    pub(crate) async fn start_with(real_probe_timing: bool) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let paths = LabPaths::new(&format!("kl{}-{number}", std::process::id()));
        let node = Netns::create(&paths.node_netns(NODE)).unwrap();
        let mut netlink = Netlink::in_netns(&node).unwrap();
        netlink.execute([link::up(1)]).unwrap();
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
            ripstop_host::sysctl::set_in(&node, &[(setting, "1")]).unwrap();
        }
        let cgroup = ripstop_lab::cgroup::mount_point()
            .unwrap()
            .join(paths.cgroup())
            .join(NODE);
        std::fs::create_dir_all(&cgroup).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("state");
        std::fs::create_dir(&state).unwrap();
        let cni_config = dir.path().join("net.conflist");
        let exe = Path::new(env!("CARGO_BIN_EXE_lab-test-helper"));
        let plugin = json!({
            "type": exe.file_name().unwrap().to_str().unwrap(),
            "node": node.path(), "state": state,
            "capabilities": {"portMappings": true},
        });
        let list = json!({"cniVersion": "1.1.0", "name": "test", "plugins": [plugin]});
        std::fs::write(&cni_config, list.to_string()).unwrap();
        let config = KubeletConfig {
            paths: paths.clone(),
            cluster_domain: "cluster.local".to_owned(),
            cluster_dns: vec!["10.96.0.10".parse().unwrap()],
            dns_expand_search: false,
            nodes: vec![NodeSpec {
                zone: None,
                pod_cidrs: Vec::new(),
                name: NODE.to_owned(),
                addresses: vec!["172.30.1.11".parse().unwrap()],
                netns: node.path().to_owned(),
                cgroup,
                cni_config,
            }],
            exe: exe.to_owned(),
            cni_bin_dir: exe.parent().unwrap().to_owned(),
            real_probe_timing,
        };
        let store = Store::open(None).unwrap();
        let client = store.client();
        let kubelet = Kubelet::start(client.clone(), config.clone()).unwrap();
        let lab = Self {
            client,
            kubelet,
            paths,
            node,
            config,
            state,
            _store: store,
            _dir: dir,
        };
        lab.until("node ready", || lab.node_is_ready().then_some(()))
            .await;
        lab
    }

    pub(crate) fn node_is_ready(&self) -> bool {
        let node: Option<Node> = self.client.get(None, NODE);
        let conditions = node
            .and_then(|node| node.status)
            .and_then(|status| status.conditions);
        conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True")
    }

    /// A pod on the node.
    pub(crate) fn create(&self, name: &str, spec: Value) -> Pod {
        self.create_with(json!({"name": name}), spec)
    }

    pub(crate) fn create_with(&self, mut metadata: Value, mut spec: Value) -> Pod {
        metadata["namespace"] = "default".into();
        spec["nodeName"] = NODE.into();
        let pod = json!({"metadata": metadata, "spec": spec});
        self.client
            .create(&serde_json::from_value::<Pod>(pod).unwrap())
            .unwrap()
    }

    pub(crate) fn pod(&self, name: &str) -> Option<Pod> {
        self.client.get(Some("default"), name)
    }

    /// The pod's status as JSON, which is handier to look into.
    pub(crate) fn status(&self, name: &str) -> Value {
        let pod = self.pod(name).and_then(|pod| pod.status);
        serde_json::to_value(pod).unwrap_or_default()
    }

    pub(crate) fn is_ready(&self, name: &str) -> bool {
        condition(&self.status(name), "Ready") == "True"
    }

    pub(crate) async fn ready(&self, name: &str) -> Pod {
        self.until(name, || {
            self.is_ready(name).then(|| self.pod(name)).flatten()
        })
        .await
    }

    /// The state of a container once `what` finds something in it.
    pub(crate) async fn container<T>(
        &self,
        pod: &str,
        container: &str,
        what: impl Fn(&Value) -> Option<T>,
    ) -> T {
        self.until(&format!("{pod}/{container}"), || {
            let status = self.status(pod);
            let lists = [
                &status["initContainerStatuses"],
                &status["containerStatuses"],
            ];
            let all = lists.into_iter().filter_map(Value::as_array).flatten();
            all.filter(|status| status["name"] == container)
                .find_map(&what)
        })
        .await
    }

    /// Asks again and again.
    pub(crate) async fn until<T>(&self, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = ask() {
                return found;
            }
            if Instant::now() > deadline {
                let pods: Vec<Pod> = self.client.list(None);
                let statuses: Vec<_> = pods.iter().map(|pod| &pod.status).collect();
                panic!(
                    "{what}: not in {PATIENCE:?}; {}; {:?}",
                    serde_json::to_string_pretty(&statuses).unwrap(),
                    self.events()
                );
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Reason and message of all events.
    pub(crate) fn events(&self) -> Vec<(String, String)> {
        let events: Vec<Event> = self.client.list(None);
        let text = |text: Option<String>| text.unwrap_or_default();
        events
            .into_iter()
            .map(|event| (text(event.reason), text(event.message)))
            .collect()
    }

    pub(crate) async fn event(&self, reason: &str) -> String {
        self.until(reason, || {
            self.events().into_iter().find(|(r, _)| r == reason)
        })
        .await
        .1
    }

    pub(crate) fn reference(&self, name: &str) -> PodRef {
        let pod = self.pod(name).unwrap();
        PodRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: pod.metadata.uid.unwrap(),
        }
    }

    /// Runs a command in a container: exit code, output, errors.
    pub(crate) async fn exec(
        &self,
        pod: &str,
        container: &str,
        command: &[&str],
    ) -> (i32, String, String) {
        let request = ExecRequest {
            container: container.to_owned(),
            command: command.iter().map(|&word| word.to_owned()).collect(),
            stdout: true,
            stderr: true,
            ..ExecRequest::default()
        };
        let session = self
            .kubelet
            .exec(self.reference(pod), request)
            .await
            .unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        let (mut stdout, mut stderr) = (session.stdout.unwrap(), session.stderr.unwrap());
        let (code, _, _) = tokio::join!(
            session.exit,
            stdout.read_to_string(&mut out),
            stderr.read_to_string(&mut err)
        );
        (code, out, err)
    }

    /// What a shell line in a container prints.
    pub(crate) async fn sh(&self, pod: &str, container: &str, line: &str) -> String {
        let (code, out, err) = self.exec(pod, container, &["sh", "-c", line]).await;
        assert_eq!(code, 0, "{line}: {err}");
        out
    }

    pub(crate) async fn log(&self, pod: &str, container: &str) -> String {
        let options = LogOptions {
            container: container.to_owned(),
            ..LogOptions::default()
        };
        self.log_with(pod, options).await.unwrap()
    }

    pub(crate) async fn log_with(
        &self,
        pod: &str,
        options: LogOptions,
    ) -> Result<String, ripstop_apiserver::Status> {
        use futures::StreamExt;
        let stream = self.kubelet.logs(self.reference(pod), options).await?;
        let bytes = stream.collect::<Vec<_>>().await.concat();
        Ok(String::from_utf8(bytes).unwrap())
    }

    /// Runs `f` with this thread in the node's network.
    pub(crate) fn in_node<T>(&self, f: impl FnOnce() -> T) -> T {
        self.node.run(f).unwrap()
    }

    pub(crate) async fn gone(&self, name: &str) {
        self.until(&format!("{name} gone"), || {
            self.pod(name).is_none().then_some(())
        })
        .await;
    }

    /// A node loop that takes over, in place of one that was killed.
    pub(crate) fn take_over(&mut self) {
        self.kubelet = Kubelet::start(self.client.clone(), self.config.clone()).unwrap();
    }

    /// The pods' control groups.
    pub(crate) fn groups(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.config.nodes[0].cgroup).unwrap();
        entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.is_dir())
            .collect()
    }

    /// The pods' network namespaces.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let prefix = format!("{}.", self.paths.node_netns(NODE));
        let entries = std::fs::read_dir(ripstop_netlink::netns::RUN_NETNS).unwrap();
        let names = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok());
        names.filter(|name| name.starts_with(&prefix)).collect()
    }

    /// Addresses that the plugin has given out.
    pub(crate) fn addresses(&self) -> usize {
        let names = std::fs::read_dir(&self.state).unwrap().flatten();
        names
            .filter(|e| e.file_name().to_string_lossy().parse::<u8>().is_ok())
            .count()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // First the pods, or the node loop would start their containers again.
        for pod in self.client.list::<Pod>(None) {
            let meta = pod.metadata;
            let _ = self.client.delete::<Pod>(
                meta.namespace.as_deref(),
                meta.name.as_deref().unwrap_or_default(),
                Some(0),
            );
        }
        let deadline = Instant::now() + PATIENCE;
        while !(self.groups().is_empty() && self.namespaces().is_empty())
            && Instant::now() < deadline
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(errors) = tear_down(&self.paths, Keep::Nothing)
            && !std::thread::panicking()
        {
            panic!("{errors:?}");
        }
    }
}

/// Status of a condition.
pub(crate) fn condition(status: &Value, kind: &str) -> String {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut of_kind = conditions.filter(|condition| condition["type"] == kind);
    of_kind
        .next()
        .and_then(|c| c["status"].as_str())
        .unwrap_or_default()
        .to_owned()
}

/// Runs a test with a runtime of its own.
pub(crate) fn run<F: Future<Output = ()>>(test: impl FnOnce() -> F) {
    if !possible() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(test());
}
