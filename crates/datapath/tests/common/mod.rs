//! Nodes and pods of a test: namespaces, a cgroup and an engine each, gone when
//! dropped.

#[macro_use]
mod engines;
pub(crate) mod process;

use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use ripstop_datapath::ebpf::{Config, EbpfEngine, Limits};
use ripstop_datapath::nftables::{self, NftEngine};
use ripstop_datapath::{Datapath, NextHop, ResolvedRoute};
use ripstop_host::pod::{PodLink, derive_names};
use ripstop_host::sysctl;
use ripstop_model::{HostPort, LocalPod, ObjectKey, Protocol};
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::{Netlink, address, route::Route};
use ripstop_plan::policy::{PodPolicies, PolicyId};
use ripstop_plan::{Backend, Change, Frontend, FrontendRow};

use process::Process;

/// A named namespace, removed when dropped.
#[derive(Debug)]
struct OwnNetns {
    name: String,
    netns: Netns,
}

impl OwnNetns {
    fn new(name: &str) -> Self {
        let name = format!("ripstop-test-{}.{name}", std::process::id());
        let netns = Netns::create(&name).expect("root makes network namespaces");
        Self { name, netns }
    }
}

impl Drop for OwnNetns {
    fn drop(&mut self) {
        if let Err(error) = Netns::remove(&self.name) {
            eprintln!("{}: {error}", self.name);
        }
    }
}

/// An engine that a test can open.
pub(crate) trait Engine: Datapath + Sized {
    /// Short: it is part of the names of namespaces.
    const NAME: &'static str;
    fn open(config: &Config) -> Result<Self, ripstop_datapath::Error>;
}

impl Engine for EbpfEngine {
    const NAME: &'static str = "ebpf";

    fn open(config: &Config) -> Result<Self, ripstop_datapath::Error> {
        EbpfEngine::open(config.clone())
    }
}

impl Engine for NftEngine {
    const NAME: &'static str = "nft";

    fn open(config: &Config) -> Result<Self, ripstop_datapath::Error> {
        NftEngine::open(nftables::Config {
            node_addresses: config.node_addresses.clone(),
            connections: None,
        })
    }
}

/// A node with an engine.
pub(crate) struct Node<E: Engine = EbpfEngine> {
    name: String,
    number: u8,
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) engine: Option<E>,
    config: Config,
    pods: u8,
    // Dropped in this order.
    _bpffs: OwnBpffs,
    cgroup: OwnCgroup,
    netns: OwnNetns,
}

/// A pod with its link.
pub(crate) struct Pod {
    pub(crate) addresses: [IpAddr; 2],
    pub(crate) local: LocalPod,
    name: String,
    cgroup: PathBuf,
    netns: OwnNetns,
}

/// A BPF file system; what is pinned there ends with it.
struct OwnBpffs(tempfile::TempDir);

impl OwnBpffs {
    fn new() -> Self {
        let at = tempfile::tempdir().unwrap();
        mount(
            Some("bpf"),
            at.path(),
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .unwrap();
        Self(at)
    }
}

impl Drop for OwnBpffs {
    fn drop(&mut self) {
        if let Err(error) = umount(self.0.path()) {
            eprintln!("{}: {error}", self.0.path().display());
        }
    }
}

#[derive(Debug)]
struct OwnCgroup(PathBuf);

impl OwnCgroup {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts
            .lines()
            .map(|line| line.split(' ').collect::<Vec<_>>());
        let root = root
            .into_iter()
            .find(|fields| fields[2] == "cgroup2")
            .expect("cgroup2 is mounted");
        let path = Path::new(root[1]).join(format!("ripstop-test-{}.{name}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // Processes that were killed leave a moment later.
        for _ in 0..200 {
            match std::fs::remove_dir(&self.0) {
                Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                    std::thread::sleep(std::time::Duration::from_millis(10));
                }
                Err(error) => return eprintln!("{}: {error}", self.0.display()),
                Ok(()) => return,
            }
        }
        eprintln!("{}: still in use", self.0.display());
    }
}

/// A node, with its uplink connected to nothing.
pub(crate) fn node<E: Engine>(test: &str) -> Node<E> {
    private_mounts();
    let netns = OwnNetns::new(test);
    let mut netlink = Netlink::in_netns(&netns.netns).unwrap();
    let ends = ["eth0", "nothing"].map(|name| VethEnd {
        name,
        mac: None,
        netns: None,
    });
    let (eth0, other) = netlink.create_veth(&ends[0], &ends[1], 1500).unwrap();
    netlink.execute([link::up(other)]).unwrap();
    Node::new(test.into(), 1, netns, &mut netlink, eth0)
}

/// Two nodes on one link.
pub(crate) fn nodes<E: Engine>(test: &str) -> [Node<E>; 2] {
    private_mounts();
    let names = [1, 2].map(|number| format!("{test}{number}"));
    let [a, b] = names.each_ref().map(|name| OwnNetns::new(name));
    let [mut inside_a, mut inside_b] = [&a, &b].map(|own| Netlink::in_netns(&own.netns).unwrap());
    let here = VethEnd {
        name: "eth0",
        mac: None,
        netns: None,
    };
    let there = VethEnd {
        name: "eth0",
        mac: None,
        netns: Some(b.netns.as_fd()),
    };
    let (eth0_a, eth0_b) = inside_a.create_veth(&here, &there, 1500).unwrap();
    let [name_a, name_b] = names;
    [
        Node::new(name_a, 1, a, &mut inside_a, eth0_a),
        Node::new(name_b, 2, b, &mut inside_b, eth0_b),
    ]
}

/// What a test mounts goes with its thread.
fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).expect("root");
    let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

impl<E: Engine> Node<E> {
    fn new(name: String, number: u8, netns: OwnNetns, netlink: &mut Netlink, eth0: u32) -> Self {
        let host = 10 + number;
        let own = [
            format!("172.30.1.{host}/24"),
            format!("fd00:30:1::{host:x}/64"),
        ];
        let own = own.map(|text| net(&text));
        netlink.execute([link::up(1), link::up(eth0)]).unwrap();
        netlink
            .execute(own.map(|own| address::add(eth0, own)))
            .unwrap();
        let settings = [
            ("net/ipv4/conf/all/forwarding", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
        ];
        sysctl::set_in(&netns.netns, &settings).unwrap();
        let bpffs = OwnBpffs::new();
        let cgroup = OwnCgroup::new(&name);
        let addresses = own.map(|own| own.addr());
        let config = Config {
            bpffs: bpffs.0.path().join("engine"),
            cgroup_root: cgroup.0.clone(),
            node_addresses: addresses.into(),
            uplinks: vec![eth0],
            limits: Limits {
                frontends: 64,
                backends: 256,
                connections: 64,
                policy_pairs: 64,
                ..Limits::default()
            },
        };
        let mut node = Self {
            name,
            number,
            addresses,
            engine: None,
            config,
            pods: 0,
            _bpffs: bpffs,
            cgroup,
            netns,
        };
        node.open();
        node
    }

    /// Starts an engine, in the place of any other.
    pub(crate) fn open(&mut self) {
        self.engine = None;
        let opened = self.netns.netns.run(|| E::open(&self.config)).unwrap();
        self.engine = Some(opened.unwrap_or_else(|error| panic!("{error}")));
    }

    /// Starts anew, with tables of this size.
    pub(crate) fn limit(&mut self, limits: Limits) {
        let old = Box::new(self.engine.take().expect("an engine is open"));
        let gone = self.netns.netns.run(|| old.dismantle()).unwrap();
        gone.unwrap();
        self.config.limits = limits;
        self.open();
    }

    /// Runs in the node's namespace, as the agent would.
    pub(crate) fn run<T>(&mut self, f: impl FnOnce(&mut E) -> T) -> T {
        let engine = self.engine.as_mut().expect("an engine is open");
        self.netns.netns.run(|| f(engine)).unwrap()
    }

    pub(crate) fn bpffs(&self) -> &Path {
        &self.config.bpffs
    }

    pub(crate) fn set(&self, name: &str, value: &str) {
        sysctl::set_in(&self.netns.netns, &[(name, value)]).unwrap();
    }

    /// A process on the node itself.
    pub(crate) fn process(&self) -> Process {
        Process::start(&self.name, &self.netns.netns, &self.cgroup.0)
    }

    pub(crate) fn add_pod(&mut self) -> Pod {
        self.add_pod_with_ports(Vec::new())
    }

    pub(crate) fn add_pod_with_ports(&mut self, host_ports: Vec<HostPort>) -> Pod {
        let pod = self.make_pod(host_ports);
        self.run(|engine| engine.add_pod(&pod.local)).unwrap();
        let open = unrestricted([&pod.local]);
        self.run(|engine| engine.apply(&open)).unwrap();
        pod
    }

    /// A pod that the engine does not know.
    pub(crate) fn make_pod(&mut self, host_ports: Vec<HostPort>) -> Pod {
        self.pods += 1;
        let (node, host) = (self.number, self.pods + 1);
        let addresses = [
            ip(&format!("10.244.{node}.{host}")),
            ip(&format!("fd00:244:{node}::{host}")),
        ];
        let name = format!("{}-{host}", self.name);
        let netns = OwnNetns::new(&name);
        let (host_ifname, mac) = derive_names(&name, "eth0");
        let link = PodLink {
            host_ifname: host_ifname.clone(),
            pod_ifname: "eth0".into(),
            mac,
            addresses: addresses.into(),
            mtu: 1500,
            remark: name.clone(),
        };
        let mut netlink = Netlink::in_netns(&self.netns.netns).unwrap();
        let host_ifindex = link.create(&mut netlink, &netns.netns).unwrap();
        let local = LocalPod {
            pod: ObjectKey::new("test", &name),
            uid: None,
            container_id: name.clone(),
            addresses: addresses.into(),
            host_ifindex,
            host_ifname,
            mac,
            host_ports,
        };
        Pod {
            addresses,
            local,
            name,
            cgroup: self.cgroup.0.clone(),
            netns,
        }
    }

    /// A way out of the node, to nobody: the kernel looks for one before it asks
    /// the NAT rules.
    pub(crate) fn default_routes(&self) {
        let eth0 = self.config.uplinks[0];
        let mut netlink = Netlink::in_netns(&self.netns.netns).unwrap();
        for (all, gateway) in [("0.0.0.0/0", "172.30.1.1"), ("::/0", "fd00:30:1::1")] {
            netlink
                .execute([Route::new(net(all), eth0).via(ip(gateway)).replace()])
                .unwrap();
        }
    }

    fn execute(&self, request: ripstop_netlink::Request) {
        let mut netlink = Netlink::in_netns(&self.netns.netns).unwrap();
        netlink.execute([request]).unwrap();
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn inside<T>(&self, f: impl FnOnce() -> T) -> T {
        self.netns.netns.run(f).unwrap()
    }

    pub(crate) fn get(&self, name: &str) -> String {
        self.inside(|| sysctl::get(name)).unwrap()
    }

    /// One more address of the node.
    pub(crate) fn add_address(&self, ip: IpAddr) {
        self.execute(address::add_host_scope(1, ip.into()));
    }

    /// Packets of this node to that address go to the other one.
    pub(crate) fn way_out(&self, other: &Self, ip: IpAddr) {
        let via = other.addresses[usize::from(ip.is_ipv6())];
        let route = Route::new(ip.into(), self.config.uplinks[0]).via(via);
        self.execute(route.replace());
    }

    /// Packets of this node to that address go by the pod, and may be that long,
    /// bytes; who sends longer ones is told so.
    pub(crate) fn way_by_pod(&self, pod: &Pod, ip: IpAddr, mtu: u32) {
        let mut route = Route::new(ip.into(), pod.local.host_ifindex).mtu(mtu);
        if !pod.addresses.contains(&ip) {
            route = route.via(pod.addresses[usize::from(ip.is_ipv6())]);
        }
        self.execute(route.replace());
    }

    /// Packets of the other node to that address come here.
    pub(crate) fn way_in(&self, other: &Self, ip: IpAddr) {
        other.way_out(self, ip);
    }

    /// Everything that our table has in the kernel, without its counters.
    pub(crate) fn table(&self) -> String {
        use ripstop_netlink::nftables::Nftables;
        let table = nftables::TABLE;
        let read = || -> Result<String, ripstop_netlink::Error> {
            let mut nftables = Nftables::new()?;
            let mut lines = vec![format!("{:?}", nftables.table(table)?)];
            lines.extend(nftables.chains(table)?);
            let rules = nftables.rules(table)?;
            lines.extend(rules.iter().map(|rule| format!("{rule:?}")));
            let sets = nftables.sets(table)?;
            // What packets made and only people read.
            let made = |set: &String| {
                ["traffic", "denied", "begun", "refused"]
                    .iter()
                    .any(|name| set.starts_with(name))
            };
            for set in sets.into_iter().filter(|set| !made(set)) {
                for mut element in nftables.elements(table, &set)? {
                    (element.packets, element.bytes) = (0, 0);
                    lines.push(format!("{set} {element:?}"));
                }
            }
            lines.sort();
            Ok(lines.join("\n"))
        };
        self.inside(read).unwrap()
    }

    /// Runs `nft` in the node, as an administrator would.
    pub(crate) fn nft(&self, command: &str) -> String {
        let run = || {
            let mut nft = std::process::Command::new("nft");
            nft.args(command.split_inclusive("-j ").map(str::trim))
                .output()
        };
        let output = self.inside(run).expect("nft is installed");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(
            output.status.success(),
            "{command}: {}",
            text(&output.stderr)
        );
        text(&output.stdout)
    }

    /// Routes to the other node's pods: the kernel's and the engine's.
    pub(crate) fn route_to(&mut self, other: &Self, mtu: u32) {
        let eth0 = self.config.uplinks[0];
        let mut netlink = Netlink::in_netns(&self.netns.netns).unwrap();
        let prefixes = [
            format!("10.244.{}.0/24", other.number),
            format!("fd00:244:{}::/64", other.number),
        ];
        let mut routes = Vec::new();
        for (prefix, gateway) in prefixes.iter().map(|text| net(text)).zip(other.addresses) {
            netlink
                .execute([Route::new(prefix, eth0).via(gateway).mtu(mtu).replace()])
                .unwrap();
            let next_hop = Some(NextHop {
                ifindex: eth0,
                gateway,
                mtu,
            });
            routes.push(ResolvedRoute { prefix, next_hop });
        }
        self.run(|engine| engine.apply_routes(&routes)).unwrap();
    }

    /// Makes a service lead to these addresses.
    pub(crate) fn serve(&mut self, frontend: &str, protocol: Protocol, backends: &[SocketAddr]) {
        let change = service(frontend, protocol, backends);
        self.run(|engine| engine.apply(&change)).unwrap();
    }
}

/// No policy is about these pods.
pub(crate) fn unrestricted<'p>(pods: impl IntoIterator<Item = &'p LocalPod>) -> Change {
    let none = PodPolicies {
        ingress: PolicyId::NONE,
        egress: PolicyId::NONE,
    };
    let addresses = pods.into_iter().flat_map(|pod| &pod.addresses);
    let mut change = Change::default();
    change.policy.pods = addresses.map(|ip| (*ip, Some(none))).collect();
    change
}

/// A change of one frontend.
pub(crate) fn service(frontend: &str, protocol: Protocol, backends: &[SocketAddr]) -> Change {
    let to: SocketAddr = frontend.parse().unwrap();
    let backends = backends.iter().map(|b| Backend {
        address: b.ip(),
        port: b.port(),
    });
    let row = FrontendRow {
        backends: backends.collect(),
        ..FrontendRow::new(ObjectKey::new("test", "service"))
    };
    let mut change = Change::default();
    let key = Frontend {
        address: to.ip(),
        protocol,
        port: to.port(),
    };
    change.frontends.insert(key, Some(row));
    change
}

impl Pod {
    pub(crate) fn process(&self) -> Process {
        Process::start(&self.name, &self.netns.netns, &self.cgroup)
    }

    /// One more address of the pod.
    pub(crate) fn add_address(&self, ip: IpAddr) {
        let mut netlink = Netlink::in_netns(&self.netns.netns).unwrap();
        netlink
            .execute([address::add_host_scope(1, ip.into())])
            .unwrap();
    }

    pub(crate) fn at(&self, port: u16) -> [SocketAddr; 2] {
        self.addresses.map(|address| SocketAddr::new(address, port))
    }
}
