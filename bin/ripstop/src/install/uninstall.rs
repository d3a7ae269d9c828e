//! A node without Ripstop: no rule, link, pinned object or file is left.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Result, anyhow, ensure};
use ripstop_datapath::ebpf;
use ripstop_host::pod::is_host_end;
use ripstop_host::routes::{NodeRoutes, is_tunnel};
use ripstop_host::sysctl;
use ripstop_netlink::{Netlink, address, link};

use super::files::Folders;
use super::made::{Made, Setting};
use crate::agent;

/// Index of `lo` in every network namespace.
const LOOPBACK: u32 = 1;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run directory of the agent.
    #[arg(long, default_value = "/run/ripstop")]
    run_dir: PathBuf,
    /// Also when pods are attached: they lose their network.
    #[arg(long)]
    with_pods: bool,
}

/// Goes on after what cannot be undone, and tells of all of it.
#[derive(Debug, Default)]
struct Undo {
    failed: Vec<String>,
}

impl Undo {
    fn did(&mut self, what: &str, result: Result<()>) {
        match result {
            Ok(()) => println!("{what}: gone"),
            Err(error) => self.failed.push(format!("{what}: {error:#}")),
        }
    }
}

pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let run_dir = &args.run_dir;
    ensure!(
        agent::ask_status(run_dir).is_err(),
        "the agent at {} still runs: end it first, it would make everything again",
        run_dir.display()
    );
    let mut netlink = Netlink::new()?;
    let pods = host_ends(&mut netlink)?;
    ensure!(
        pods.is_empty() || args.with_pods,
        "{} pods are attached to this node: drain it first, or say --with-pods",
        pods.len()
    );
    let made = Made::read(run_dir)?;
    let mut undo = Undo::default();
    for folders in folders(&made) {
        undo.did("files of the CNI", folders.remove().map(drop));
    }
    undo.did("the DNS sockets", agent::end_holder(run_dir));
    for (bpffs, cgroup_root) in datapaths(&made) {
        for result in agent::dismantle(run_dir, &bpffs, &cgroup_root) {
            undo.did("datapath", result);
        }
        undo.did(&bpffs.display().to_string(), remove_folder(&bpffs));
        let group = agent::holder_group(&cgroup_root);
        undo.did(&group.display().to_string(), remove_group(&group));
    }
    undo.did("routes", routes());
    for index in pods.into_iter().chain(tunnels(&mut netlink)?) {
        let deleted = netlink.execute([link::delete(index).if_exists()]);
        undo.did(&format!("link {index}"), deleted.map_err(Into::into));
    }
    let prepared = prepared(&mut netlink, &made)?;
    let unprepared = ebpf::unprepare(&prepared);
    undo.did("places for programs", unprepared.map_err(Into::into));
    for (name, setting) in &made.sysctls {
        undo.did(&format!("sysctl {name}"), set_back(name, setting));
    }
    for ip in &made.cluster_dns {
        let removed = remove_address(&mut netlink, *ip);
        undo.did(&format!("address {ip}"), removed);
    }
    undo.did(&run_dir.display().to_string(), remove_folder(run_dir));
    match undo.failed.as_slice() {
        [] => Ok(ExitCode::SUCCESS),
        failed => Err(anyhow!("something is left: {}", failed.join("; "))),
    }
}

fn folders(made: &Made) -> impl Iterator<Item = Folders> {
    let conf = made.cni_conf_dirs.iter().map(|folder| Folders {
        conf: Some(folder.clone()),
        bin: None,
    });
    let bin = made.cni_bin_dirs.iter().map(|folder| Folders {
        bin: Some(folder.clone()),
        conf: None,
    });
    // The lists first: without the plugin they would be errors.
    conf.chain(bin)
}

/// Where tables may be pinned, with the cgroups that programs are attached to.
fn datapaths(made: &Made) -> Vec<(PathBuf, PathBuf)> {
    let of = |bpffs: &PathBuf| {
        let groups = made.cgroup_roots.iter();
        groups
            .map(|group| (bpffs.clone(), group.clone()))
            .collect::<Vec<_>>()
    };
    made.bpffs.iter().flat_map(of).collect()
}

fn host_ends(netlink: &mut Netlink) -> Result<Vec<u32>> {
    let links = netlink.links()?.into_iter();
    let ends = links.filter(|link| is_host_end(&link.name));
    Ok(ends.map(|link| link.index).collect())
}

fn prepared(netlink: &mut Netlink, made: &Made) -> Result<Vec<u32>> {
    let links = netlink.links()?.into_iter();
    let prepared = links.filter(|link| made.prepared.contains(&link.name));
    Ok(prepared.map(|link| link.index).collect())
}

/// Unless somebody else has changed it since.
fn set_back(name: &str, setting: &Setting) -> Result<()> {
    match sysctl::get(name) {
        Ok(now) if now == setting.ours => Ok(sysctl::set(name, &setting.before)?),
        // Of an interface that is gone.
        Err(error) if error.source.kind() == ErrorKind::NotFound => Ok(()),
        other => Ok(other.map(drop)?),
    }
}

fn tunnels(netlink: &mut Netlink) -> Result<Vec<u32>> {
    let links = netlink.links()?.into_iter();
    let tunnels = links.filter(|link| is_tunnel(&link.name));
    Ok(tunnels.map(|link| link.index).collect())
}

/// Ways to other nodes' pods; those to pods go with their links.
fn routes() -> Result<()> {
    let mut routes = NodeRoutes::new(Netlink::new()?, Vec::new());
    routes.audit(&Default::default()).map(drop)?;
    Ok(())
}

fn remove_address(netlink: &mut Netlink, ip: std::net::IpAddr) -> Result<()> {
    let there = netlink.addresses()?.into_iter();
    let mut there = there.filter(|a| a.index == LOOPBACK && a.address.addr() == ip);
    match there.next() {
        None => Ok(()),
        Some(found) => Ok(netlink.execute([address::delete(LOOPBACK, found.address)])?),
    }
}

/// One that is not there is gone.
fn remove_folder(path: &Path) -> Result<()> {
    gone(fs::remove_dir_all(path))
}

/// Its process ends a moment after it was told to.
fn remove_group(path: &Path) -> Result<()> {
    for _ in 0..100 {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            other => return gone(other),
        }
    }
    gone(fs::remove_dir(path))
}

fn gone(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
