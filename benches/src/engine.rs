//! The eBPF engine alone, without agent and lab: two pods of one node against
//! two namespaces joined by plain routed veth, and what the kernel says of the
//! programs.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use ripstop_datapath::Datapath;
use ripstop_datapath::ebpf::{Config, EbpfEngine, Limits, enable_stats};
use ripstop_host::pod::{PodLink, derive_names};
use ripstop_host::sysctl;
use ripstop_model::{LocalPod, ObjectKey, Protocol};
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use ripstop_plan::{Backend, Change, Frontend, FrontendRow};

use crate::load::{Pattern, Sample};
use crate::report::{Report, Row, median};
use crate::routed::Routed;
use crate::throughput::{Server, figure};

const PORT: u16 = 7000;
const SERVICE: &str = "10.96.0.5";
const PODS: [&str; 2] = ["10.244.1.2", "10.244.1.3"];

/// A node with an engine and two pods; dropped, it goes.
struct Rig {
    engine: Option<EbpfEngine>,
    config: Config,
    node: Netns,
    pods: Vec<Netns>,
    names: Vec<String>,
}

impl Rig {
    fn new(purpose: &str) -> Result<Self> {
        let name = |part: &str| format!("bench-{}-{purpose}-{part}", std::process::id());
        let names = ["node", "pod1", "pod2"].map(name).to_vec();
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
            names,
        };
        sysctl::set_in(&rig.node, &[("net/ipv4/conf/all/forwarding", "1")])?;
        rig.open()?;
        for address in PODS {
            rig.add_pod(address)?;
        }
        rig.serve()?;
        Ok(rig)
    }

    /// Opens an engine in the place of the last one; how long that took.
    fn open(&mut self) -> Result<Duration> {
        self.engine = None;
        let config = self.config.clone();
        let start = Instant::now();
        self.engine = Some(self.node.run(|| EbpfEngine::open(config))??);
        Ok(start.elapsed())
    }

    fn run<T>(&mut self, f: impl FnOnce(&mut EbpfEngine) -> T) -> Result<T> {
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
            container_id: name.clone(),
            addresses,
            host_ifindex,
            host_ifname,
            mac,
            host_ports: Vec::new(),
        };
        self.pods.push(netns);
        self.run(|engine| engine.add_pod(&pod))??;
        Ok(())
    }

    /// The service in front of the second pod.
    fn serve(&mut self) -> Result<()> {
        let frontend = Frontend {
            address: SERVICE.parse()?,
            protocol: Protocol::Tcp,
            port: PORT,
        };
        let row = FrontendRow {
            backends: vec![Backend {
                address: PODS[1].parse()?,
                port: PORT,
            }],
            ..FrontendRow::new(ObjectKey::new("bench", "near"))
        };
        let mut change = Change::default();
        change.frontends.insert(frontend, Some(row));
        self.run(|engine| engine.apply(&change))??;
        Ok(())
    }

    /// A command in a pod's namespace and the node's cgroup.
    fn command(&self, bench: &str, args: &[&str]) -> Command {
        let mut command = Command::new("/bin/sh");
        let procs = self.config.cgroup_root.join("cgroup.procs");
        command
            .args(["-c", "echo $$ > \"$0\" && exec \"$@\""])
            .arg(procs)
            .arg(bench)
            .args(args);
        command
    }

    fn spawn_server(&self, bench: &str) -> Result<Child> {
        let mut command = self.command(bench, &["load-serve", &format!("0.0.0.0:{PORT}")]);
        Ok(self.pods[1].run(|| command.stdout(Stdio::null()).spawn())??)
    }

    fn sample(&self, bench: &str, target: SocketAddr, load: [&str; 3]) -> Result<Sample> {
        let target = target.to_string();
        let mut command = self.command(bench, &["load-run", &target, load[0], load[1], load[2]]);
        let output = self.pods[0].run(|| command.output())??;
        if !output.status.success() {
            bail!("client: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

impl Drop for Rig {
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

pub(crate) fn measure(repetitions: usize, seconds: u64, report: &mut Report) -> Result<()> {
    // In a thread of its own, with mounts of its own.
    std::thread::scope(|scope| {
        let measured = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
            measure_here(repetitions, seconds, report)
        });
        measured
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn measure_here(repetitions: usize, seconds: u64, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    report.progress("engine: loading");
    opening(&mut Rig::new("opening")?, report)?;
    let mut rig = Rig::new("load")?;
    let _server = Server(rig.spawn_server(bench)?);
    let routed = Routed::new()?;
    let _on_routed = routed.serve(bench, PORT)?;
    let pod = SocketAddr::new(PODS[1].parse()?, PORT);
    let service = SocketAddr::new(SERVICE.parse()?, PORT);
    let seconds = seconds.to_string();
    for (pattern, what, goals) in [
        (
            Pattern::Crr,
            "engine, connections/s, 4 clients",
            ["1.10", "0.98"],
        ),
        (
            Pattern::Rr,
            "engine, requests/s, 16 connections",
            ["1.35", ""],
        ),
    ] {
        let load = match pattern {
            Pattern::Crr => ["crr", "4", &seconds],
            Pattern::Rr => ["rr", "16", &seconds],
        };
        let mut samples = [const { Vec::new() }; 3];
        for repetition in 1..=repetitions {
            report.progress(&format!("{what}, repetition {repetition} of {repetitions}"));
            let target = routed.target(PORT);
            let peer = [bench, "load-run", &target, load[0], load[1], load[2]];
            samples[0].push(serde_json::from_str(&routed.run_client(&peer)?)?);
            samples[1].push(rig.sample(bench, pod, load)?);
            samples[2].push(rig.sample(bench, service, load)?);
        }
        let names = ["routed veth", "pod", "ClusterIP"];
        for (ours, goal) in [1, 2].into_iter().zip(goals) {
            let (mine, peer) = (&samples[ours], &samples[ours - 1]);
            report.add(Row {
                what: format!("{what}: {}", names[ours]),
                ours: figure(mine),
                peer: format!("{}: {}", names[ours - 1], figure(peer)),
                ratio: Some(median(mine.iter().zip(peer).map(|(a, b)| a.rate / b.rate))),
                goal: goal.into(),
            });
        }
    }
    report.progress("engine: run time of the programs");
    let _stats = enable_stats()?;
    rig.sample(bench, service, ["crr", "4", "1"])?;
    rig.sample(bench, service, ["rr", "16", "1"])?;
    run_times(&mut rig, report)
}

/// How long an engine takes from nothing, and to adopt what is there.
fn opening(rig: &mut Rig, report: &mut Report) -> Result<()> {
    let adopting: Vec<Duration> = (0..5).map(|_| rig.open()).collect::<Result<_>>()?;
    let loading: Vec<Duration> = (0..5)
        .map(|_| {
            // Without the record of what they are, the pins are not adopted.
            std::fs::remove_file(rig.config.bpffs.join("state"))?;
            rig.open()
        })
        .collect::<Result<_>>()?;
    for (what, times, goal) in [
        (
            "engine, tables made and programs verified",
            loading,
            "50 ms",
        ),
        ("engine, adopted by a new agent", adopting, ""),
    ] {
        report.add(Row {
            what: what.into(),
            ours: format!(
                "{:.1} ms",
                median(times.iter().map(|t| t.as_secs_f64() * 1e3))
            ),
            peer: String::new(),
            ratio: None,
            goal: goal.into(),
        });
    }
    Ok(())
}

fn run_times(rig: &mut Rig, report: &mut Report) -> Result<()> {
    for program in rig.run(|engine| engine.program_stats())?? {
        #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
        let run_time = match program.runs {
            0 => "not run".to_owned(),
            runs => format!("{:.0} ns a run", program.run_time_ns as f64 / runs as f64),
        };
        let goal = if program.name.starts_with("from") {
            "150 ns"
        } else {
            "400 ns"
        };
        report.add(Row {
            what: format!("engine, program {}", program.name),
            ours: format!(
                "{run_time}, {} instructions verified",
                program.verified_instructions
            ),
            peer: String::new(),
            ratio: None,
            goal: format!("{goal}, 50,000"),
        });
    }
    Ok(())
}
