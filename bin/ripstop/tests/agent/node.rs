//! A node for one agent: namespaces, cgroup, BPF file system, API server. All of
//! it ends with the test.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Node;
use ripstop_apiserver::pki::Pki;
use ripstop_apiserver::pods::NoPods;
use ripstop_apiserver::{Client, ClusterConfig, Store, Stored, serve};
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, address};
use serde_json::{Value, json};
use tempfile::TempDir;

const API: &str = "172.30.1.1:6443";
const PATIENCE: Duration = Duration::from_secs(60);

/// `node1` at 172.30.1.11 and fd00:30:1::b, joined to a network where the API
/// server has 172.30.1.1.
pub(crate) struct TestNode {
    node: Named,
    underlay: Named,
    cgroup: PathBuf,
    directory: TempDir,
    store: Store,
    pki: Pki,
    api: Option<tokio::runtime::Runtime>,
}

/// A namespace that is removed with its value.
struct Named(String, Netns);

impl Named {
    fn new(name: String) -> Self {
        let netns = Netns::create(&name).expect("root makes network namespaces");
        Self(name, netns)
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        Netns::remove(&self.0).unwrap();
    }
}

impl TestNode {
    pub(crate) fn new(name: &str) -> Self {
        let name = format!("ripstop-agent-{}-{name}", std::process::id());
        let node = Named::new(format!("{name}.node1"));
        let underlay = Named::new(format!("{name}.underlay"));
        join(&node.1, &underlay.1);

        let cgroup = ripstop_lab::cgroup::mount_point().unwrap().join(&name);
        fs::create_dir(&cgroup).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let bpffs = directory.path().join("bpf");
        fs::create_dir(&bpffs).unwrap();
        mount_bpf(&bpffs);

        let config = ClusterConfig {
            service_cidrs: vec![
                "10.96.0.0/16".parse().unwrap(),
                "fd00:96::/112".parse().unwrap(),
            ],
            ..ClusterConfig::default()
        };
        let store = Store::open_with(None, config).unwrap();
        let pki = Pki::open(&directory.path().join("pki"), &["172.30.1.1".to_owned()]).unwrap();
        let kubeconfig = pki.kubeconfig("test", &format!("https://{API}"));
        fs::write(directory.path().join("kubeconfig"), kubeconfig).unwrap();
        let mut this = Self {
            node,
            underlay,
            cgroup,
            directory,
            store,
            pki,
            api: None,
        };
        this.create_node("node1", 11, &["10.244.1.0/24", "fd00:244:0:1::/64"]);
        this.start_api();
        this
    }

    pub(crate) fn start_api(&mut self) {
        let listener = self
            .underlay
            .1
            .run(|| TcpListener::bind(API))
            .unwrap()
            .unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let tls = self.pki.tls().unwrap();
        runtime.spawn(serve(self.client(), vec![listener], tls, Arc::new(NoPods)));
        self.api = Some(runtime);
    }

    /// Ends the server with all its connections.
    pub(crate) fn stop_api(&mut self) {
        self.api.take().unwrap().shutdown_timeout(PATIENCE);
    }

    pub(crate) fn start_agent(&self) -> Agent {
        self.start_agent_of(Path::new(env!("CARGO_BIN_EXE_ripstop")), &[])
    }

    /// Another executable, with more flags.
    pub(crate) fn start_agent_of(&self, exe: &Path, flags: &[&str]) -> Agent {
        let dir = self.directory.path();
        let run_dir = dir.join("run");
        let log = dir.join("agent.log");
        let mut command = Command::new(exe);
        command
            .args(["agent", "--node-name", "node1", "--kubeconfig"])
            .arg(dir.join("kubeconfig"))
            .arg("--run-dir")
            .arg(&run_dir)
            .arg("--bpffs")
            .arg(dir.join("bpf/ripstop"))
            .arg("--cgroup-root")
            .arg(&self.cgroup)
            .args(["--cluster-dns", "10.96.0.10,fd00:96::a"])
            .args(["--cluster-cidr", "10.244.0.0/16,fd00:244::/48"])
            .args(["--service-cidr", "10.96.0.0/16,fd00:96::/112"])
            // The machine's own servers are not to be asked.
            .args(["--resolv-conf", "/dev/null"])
            .args(flags)
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap());
        // A process begins in the namespace of the thread that starts it.
        let child = self.node.1.run(|| command.spawn()).unwrap().unwrap();
        Agent {
            child,
            run_dir,
            log,
        }
    }

    /// What a command prints in the node, and whether it went well.
    pub(crate) fn run(&self, command: &mut Command) -> (bool, String) {
        let output = self.node.1.run(|| command.output()).unwrap().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// Its network namespace.
    pub(crate) fn netns(&self) -> &Netns {
        &self.node.1
    }

    /// The namespace of the network that it is in, where another node can be.
    pub(crate) fn underlay(&self) -> &Netns {
        &self.underlay.1
    }

    /// A folder that goes with the test.
    pub(crate) fn folder(&self) -> &Path {
        self.directory.path()
    }

    /// A controller, killed when dropped.
    pub(crate) fn start_controller(&self, identity: &str) -> Agent {
        let dir = self.directory.path();
        let log = dir.join(format!("{identity}.log"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_ripstop"));
        command
            .args(["controller", "--identity", identity, "--kubeconfig"])
            .arg(dir.join("kubeconfig"))
            .args(["--cluster-cidr", "10.244.0.0/16,fd00:244::/48"])
            .stdin(Stdio::null())
            .stderr(File::create(&log).unwrap());
        let child = self.node.1.run(|| command.spawn()).unwrap().unwrap();
        Agent {
            child,
            run_dir: dir.join("none"),
            log,
        }
    }

    pub(crate) fn run_dir(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// How many pods are remembered in files.
    pub(crate) fn records(&self) -> usize {
        let files = fs::read_dir(self.run_dir().join("pods")).unwrap().flatten();
        let records = files.filter(|file| file.path().extension().is_some());
        records.count()
    }

    /// Everything of the node that an agent could leave something in.
    pub(crate) fn traces(&self) -> String {
        // Routers have more addresses of the kernel's own than hosts, and that of a
        // link's own takes its time: nobody leaves those.
        let script = "(ip -o link; ip -o addr; ip route show table all; \
            ip -6 route show table all; ip rule; ip -6 rule; nft list ruleset; tc qdisc show; \
            sysctl net.ipv4.conf.all.forwarding net.ipv6.conf.all.forwarding; \
            sysctl net.ipv4.conf.eth0.rp_filter; \
            for dev in $(ip -o link | sed -E 's/^[0-9]+: ([^:@]+).*/\\1/'); do \
            tc filter show dev $dev ingress; tc filter show dev $dev egress; done) 2>/dev/null \
            | grep -v -e anycast -e fe80";
        let (_, mut traces) = self.run(Command::new("sh").args(["-c", script]));
        for folder in [&self.directory.path().join("bpf"), &self.cgroup] {
            let mut names: Vec<_> = fs::read_dir(folder).unwrap().flatten().collect();
            names.retain(|name| name.file_type().unwrap().is_dir());
            for name in names {
                traces.push_str(&format!("{}\n", name.path().display()));
            }
        }
        traces
    }

    pub(crate) fn netlink(&self) -> Netlink {
        Netlink::in_netns(&self.node.1).unwrap()
    }

    pub(crate) fn cni_socket(&self) -> PathBuf {
        self.directory.path().join("run/cni.sock")
    }

    /// The file of names for a start without the API.
    pub(crate) fn kept_names(&self) -> String {
        fs::read_to_string(self.directory.path().join("run/names")).unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Client {
        self.store.client()
    }

    pub(crate) fn create<K: Stored>(&self, object: &K) {
        self.client().create(object).unwrap();
    }

    /// As a kubelet registers: the object, then its status.
    pub(crate) fn create_node(&self, name: &str, host: u8, pod_cidrs: &[&str]) {
        let object = object(name, host, pod_cidrs);
        self.create(&object);
        let status = |stored: &mut Node| stored.status = object.status.clone();
        self.client().modify_status(None, name, status).unwrap();
    }

    pub(crate) fn delete<K: Stored>(&self, name: &str) {
        self.client()
            .delete::<K>(Some("default"), name, Some(0))
            .unwrap();
    }

    pub(crate) fn delete_cluster_object<K: Stored>(&self, name: &str) {
        self.client().delete::<K>(None, name, Some(0)).unwrap();
    }

    /// Gives a node other addresses.
    pub(crate) fn move_node(&self, name: &str, ips: &[&str]) {
        let address = |ip: &&str| json!({"type": "InternalIP", "address": ip});
        let addresses: Vec<_> = ips.iter().map(address).collect();
        let status = |node: &mut Node| {
            let status = node.status.get_or_insert_default();
            status.addresses = serde_json::from_value(json!(addresses)).unwrap();
        };
        self.client().modify_status(None, name, status).unwrap();
    }

    pub(crate) fn modify_node(&self, f: impl FnMut(&mut Node)) {
        self.client().modify(None, "node1", f).unwrap();
    }

    /// A server in the node that closes every connection.
    pub(crate) fn listen(&self, ip: &str) -> SocketAddr {
        let listener = self
            .node
            .1
            .run(|| TcpListener::bind((ip, 0)))
            .unwrap()
            .unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || listener.incoming().for_each(drop));
        address
    }

    /// Connects from a process in the node's cgroup and namespace.
    pub(crate) fn connect(&self, to: SocketAddr) -> io::Result<()> {
        let procs = self.cgroup.join("cgroup.procs");
        // bash connects by itself; sh only moves it into the cgroup.
        let script = format!(
            "echo $$ > {} && exec bash -c 'exec 3<>/dev/tcp/{}/{}'",
            procs.display(),
            to.ip(),
            to.port()
        );
        let mut command = Command::new("sh");
        command.args(["-c", &script]);
        let output = self.node.1.run(|| command.output())??;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        match output.status.success() {
            true => Ok(()),
            false if said.contains("refused") => {
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, said))
            }
            false => Err(io::Error::other(said)),
        }
    }

    /// IPv4 addresses of a name, or the DNS response code.
    pub(crate) fn resolve(&self, server: &str, name: &str) -> Result<Vec<IpAddr>, u8> {
        self.resolve_from(&self.node.1, server, name)
    }

    /// As a process in another namespace asks.
    pub(crate) fn resolve_from(
        &self,
        from: &Netns,
        server: &str,
        name: &str,
    ) -> Result<Vec<IpAddr>, u8> {
        let server: IpAddr = server.parse().unwrap();
        let any = if server.is_ipv4() {
            "0.0.0.0:0"
        } else {
            "[::]:0"
        };
        let socket = from.run(|| UdpSocket::bind(any)).unwrap().unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect((server, 53)).unwrap();
        let mut query = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        for label in name.split('.') {
            query.push(label.len() as u8);
            query.extend_from_slice(label.as_bytes());
        }
        query.extend_from_slice(&[0, 0, 1, 0, 1]);
        socket.send(&query).unwrap();
        let mut reply = [0; 1500];
        let length = socket.recv(&mut reply).unwrap();
        match reply[3] & 0xf {
            0 => Ok(reply[query.len()..length]
                .chunks_exact(16)
                .map(|record| IpAddr::from(<[u8; 4]>::try_from(&record[12..]).unwrap()))
                .collect()),
            code => Err(code),
        }
    }

    pub(crate) fn routes(&self) -> String {
        let mut netlink = Netlink::in_netns(&self.node.1).unwrap();
        let routes = netlink.routes().unwrap();
        let routes = routes
            .into_iter()
            .filter_map(|route| Some(format!("{} via {}\n", route.destination, route.gateway?)));
        routes.collect()
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        let bpffs = self.directory.path().join("bpf");
        let unmounted = Command::new("umount").arg(&bpffs).status();
        assert!(unmounted.unwrap().success());
        // With who keeps the agent's sockets, and processes of a test that failed.
        ripstop_lab::cgroup::destroy(&self.cgroup).unwrap();
    }
}

/// A running agent, killed when dropped.
pub(crate) struct Agent {
    child: Child,
    run_dir: PathBuf,
    pub(crate) log: PathBuf,
}

impl Agent {
    /// Asks for its status until it is as it should be.
    pub(crate) fn until(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let output = Command::new(env!("CARGO_BIN_EXE_ripstop"))
                .args(["status", "--output", "json", "--run-dir"])
                .arg(&self.run_dir)
                .output()
                .unwrap();
            if let Ok(status) = serde_json::from_slice(&output.stdout)
                && is(&status)
            {
                return status;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "{what}: {}\n{}",
                String::from_utf8_lossy(&output.stdout),
                read(&self.log)
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// What `ripstop status` prints for people.
    pub(crate) fn screen(&self) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_ripstop"))
            .args(["status", "--run-dir"])
            .arg(&self.run_dir)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to end, as a runtime does.
    pub(crate) fn end(mut self) -> std::process::ExitStatus {
        let id = i32::try_from(self.child.id()).unwrap();
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(id),
            nix::sys::signal::Signal::SIGTERM,
        )
        .unwrap();
        self.child.wait().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        if std::thread::panicking() {
            eprintln!("the agent said:\n{}", read(&self.log));
        }
    }
}

pub(crate) fn eventually(what: &str, is: impl Fn() -> bool) {
    let start = Instant::now();
    while !is() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub(crate) fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// A Node object with addresses of subnet 1.
fn object(name: &str, host: u8, pod_cidrs: &[&str]) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "spec": {"podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs},
        "status": {"addresses": [
            {"type": "InternalIP", "address": format!("172.30.1.{host}")},
            {"type": "InternalIP", "address": format!("fd00:30:1::{host:x}")},
        ]},
    }))
    .unwrap()
}

/// A veth pair between node and underlay with the addresses of subnet 1.
fn join(node: &Netns, underlay: &Netns) {
    let end = |name, netns| VethEnd {
        name,
        mac: None,
        netns,
    };
    let mut inside = Netlink::in_netns(node).unwrap();
    let mut outside = Netlink::in_netns(underlay).unwrap();
    let (near, far) = inside
        .create_veth(
            &end("eth0", None),
            &end("node1", Some(underlay.as_fd())),
            1500,
        )
        .unwrap();
    let net = |ip: &str| ip.parse().unwrap();
    inside
        .execute([
            link::up(1),
            link::up(near),
            address::add(near, net("172.30.1.11/24")),
            address::add(near, net("fd00:30:1::b/64")),
        ])
        .unwrap();
    outside
        .execute([
            link::up(far),
            address::add(far, net("172.30.1.1/24")),
            address::add(far, net("fd00:30:1::1/64")),
        ])
        .unwrap();
}

fn mount_bpf(path: &Path) {
    let mounted = Command::new("mount")
        .args(["-t", "bpf", "bpf"])
        .arg(path)
        .status();
    assert!(mounted.unwrap().success(), "a BPF file system is needed");
}
