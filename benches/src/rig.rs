//! A node with one engine and three pods, without agent and lab.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use ripstop_datapath::ebpf::{self, EbpfEngine, Limits};
use ripstop_datapath::nftables::{self, NftEngine};
use ripstop_datapath::{Datapath, Part};
use ripstop_host::pod::{PodLink, derive_names};
use ripstop_host::sysctl;
use ripstop_model::{LocalPod, ObjectKey};
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use ripstop_plan::policy::{PodPolicies, PolicyId};
use ripstop_plan::{Change, Tables};

use crate::load::{Pattern, Sample};

/// Of services and of what is behind them.
pub(crate) const PORT: u16 = 7000;
/// The same server without a service: a connection from the same port of a client
/// is another one, also after translation.
pub(crate) const DIRECT_PORT: u16 = 7001;
/// The first is the client.
pub(crate) const PODS: [&str; 3] = ["10.244.1.2", "10.244.1.3", "10.244.1.4"];

/// What an engine is opened with: the same for all of them.
pub(crate) type Config = ebpf::Config;

/// An engine that can be measured.
pub(crate) trait Engine: Datapath + Sized {
    const NAME: &'static str;
    fn open(config: Config) -> Result<Self>;
}

impl Engine for EbpfEngine {
    const NAME: &'static str = "eBPF";
    fn open(config: Config) -> Result<Self> {
        Ok(Self::open(config)?)
    }
}

impl Engine for NftEngine {
    const NAME: &'static str = "nftables";
    fn open(config: Config) -> Result<Self> {
        Ok(Self::open(nftables::Config {
            node_addresses: config.node_addresses,
            connections: None,
        })?)
    }
}

/// An engine by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Ebpf,
    Nftables,
}

/// The engines that are measured: all, or one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Engines(pub(crate) Option<Kind>);

impl Engines {
    pub(crate) fn has(self, kind: Kind) -> bool {
        self.0.is_none_or(|only| only == kind)
    }
}

/// A child that ends with its owner.
pub(crate) struct Server(pub(crate) Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A node with an engine and three pods; dropped, it goes.
pub(crate) struct Rig<E> {
    engine: Option<E>,
    pub(crate) config: Config,
    node: Netns,
    pods: Vec<Netns>,
    attached: Vec<LocalPod>,
    names: Vec<String>,
}

impl<E: Engine> Rig<E> {
    pub(crate) fn new(purpose: &str) -> Result<Self> {
        let name = |part: &str| format!("bench-{}-{purpose}-{part}", std::process::id());
        let names = ["node", "pod1", "pod2", "pod3"].map(name).to_vec();
        let bpffs = std::env::temp_dir().join(name("bpf"));
        std::fs::create_dir(&bpffs)?;
        mount(
            Some("bpf"),
            &bpffs,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )?;
        let cgroup = cgroup2()?.join(name("node"));
        std::fs::create_dir(&cgroup)?;
        let config = Config {
            bpffs,
            cgroup_root: cgroup,
            node_addresses: Vec::new(),
            uplinks: Vec::new(),
            limits: Limits::default(),
        };
        let node = Netns::create(&names[0])?;
        let mut rig = Self {
            engine: None,
            config,
            node,
            pods: Vec::new(),
            attached: Vec::new(),
            names,
        };
        sysctl::set_in(&rig.node, &[("net/ipv4/conf/all/forwarding", "1")])?;
        rig.open()?;
        for address in PODS {
            rig.add_pod(address)?;
        }
        Ok(rig)
    }

    /// Opens an engine in the place of the last one; how long that took.
    pub(crate) fn open(&mut self) -> Result<Duration> {
        self.engine = None;
        let config = self.config.clone();
        let start = Instant::now();
        self.engine = Some(self.node.run(|| E::open(config))??);
        Ok(start.elapsed())
    }

    pub(crate) fn run<T>(&mut self, f: impl FnOnce(&mut E) -> T) -> Result<T> {
        let engine = self.engine.as_mut().context("no engine is open")?;
        Ok(self.node.run(|| f(engine))?)
    }

    fn add_pod(&mut self, address: &str) -> Result<()> {
        let name = &self.names[self.pods.len() + 1];
        let netns = Netns::create(name)?;
        let (host_ifname, mac) = derive_names(name, "eth0");
        let addresses: Vec<IpAddr> = vec![address.parse()?];
        let link = PodLink {
            host_ifname: host_ifname.clone(),
            pod_ifname: "eth0".into(),
            mac,
            addresses: addresses.clone(),
            mtu: 1500,
            remark: name.clone(),
        };
        let host_ifindex = link.create(&mut Netlink::in_netns(&self.node)?, &netns)?;
        let pod = LocalPod {
            pod: ObjectKey::new("bench", name),
            uid: None,
            container_id: name.clone(),
            addresses,
            host_ifindex,
            host_ifname,
            mac,
            host_ports: Vec::new(),
        };
        self.pods.push(netns);
        self.run(|engine| engine.add_pod(&pod))??;
        // No policy is about it.
        let open = PodPolicies {
            ingress: PolicyId::NONE,
            egress: PolicyId::NONE,
        };
        let mut change = Change::default();
        let rows = pod.addresses.iter().map(|address| (*address, Some(open)));
        change.policy.pods.extend(rows);
        self.run(|engine| engine.apply(&change))??;
        self.attached.push(pod);
        Ok(())
    }

    /// Compares the kernel with a plan; what was repaired.
    pub(crate) fn audit(&mut self, tables: &Tables) -> Result<Vec<String>> {
        let pods = std::mem::take(&mut self.attached);
        let drift = self.run(|engine| engine.audit(tables, &pods));
        self.attached = pods;
        Ok(drift??.repaired)
    }

    /// A part of that, and the one that comes next.
    pub(crate) fn audit_part(
        &mut self,
        tables: &Tables,
        part: Part,
    ) -> Result<(Vec<String>, Option<Part>)> {
        let pods = std::mem::take(&mut self.attached);
        let audited = self.run(|engine| engine.audit_part(tables, &pods, part));
        self.attached = pods;
        let (drift, next) = audited??;
        Ok((drift.repaired, next))
    }

    /// A command in a pod's namespace and the node's cgroup.
    pub(crate) fn command(&self, bench: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        let procs = self.config.cgroup_root.join("cgroup.procs");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(procs)
            .arg(bench)
            .args(args);
        command
    }

    /// Runs `f` in a pod's network namespace.
    pub(crate) fn in_pod<T>(&self, pod: usize, f: impl FnOnce() -> T) -> Result<T> {
        Ok(self.pods[pod].run(f)?)
    }

    /// Starts `bench` as a server in a pod.
    pub(crate) fn serve(&self, bench: &str, pod: usize) -> Result<Server> {
        let at = [PORT, DIRECT_PORT].map(|port| format!("0.0.0.0:{port}"));
        let mut command = self.command(bench, &["load-serve", &at[0], &at[1]]);
        let child = self.pods[pod].run(|| command.stdout(Stdio::null()).spawn())??;
        Ok(Server(child))
    }

    /// Starts `command` in the first pod, with pipes to it.
    pub(crate) fn client(&self, bench: &str, args: &[&str]) -> Result<Child> {
        let mut command = self.command(bench, args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        Ok(self.pods[0].run(|| command.spawn())??)
    }

    /// A load from the first pod.
    pub(crate) fn sample(
        &self,
        bench: &str,
        target: SocketAddr,
        pattern: Pattern,
        time: Duration,
    ) -> Result<Sample> {
        let load = pattern.run(target, time);
        let load: Vec<&str> = load.iter().map(String::as_str).collect();
        Sample::of(self.command(bench, &load), &self.pods[0])
    }
}

impl<E> Drop for Rig<E> {
    fn drop(&mut self) {
        self.engine = None;
        let mut results: Vec<std::io::Result<()>> =
            self.names.iter().map(|name| Netns::remove(name)).collect();
        results.push(umount(&self.config.bpffs).map_err(Into::into));
        results.push(std::fs::remove_dir(&self.config.bpffs));
        results.push(std::fs::remove_dir(&self.config.cgroup_root));
        for error in results.into_iter().filter_map(Result::err) {
            eprintln!("something of the benchmark is still there: {error}");
        }
    }
}

fn cgroup2() -> Result<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts")?;
    let mount = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .find(|m| m[2] == "cgroup2");
    Ok(Path::new(mount.context("cgroup2 is not mounted")?[1]).to_owned())
}

/// Runs in a thread of its own, with mounts of its own.
pub(crate) fn with_own_mounts<T: Send>(f: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    std::thread::scope(|scope| {
        let done = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            f()
        });
        done.join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
