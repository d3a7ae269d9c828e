//! A node boots: nothing is in its kernel, its pods are made anew while the agent
//! begins, and others have not stopped sending to their addresses.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use ripstop_tests::{Lab, Leftovers, Program, eventually, ripstop, write_manifest};

use super::{CROWD, Crowd, FAR, Seen, count, friends_reach, others, policies, seen_while, sniffer};
use crate::stage;
use crate::{ENGINES, loads_the_machine};

const PODS: usize = 40;

/// What the agent of a node that boots finds.
#[derive(Clone, Copy, Debug)]
enum Boot {
    /// Its files, from before: the run directory is on a disk.
    WithFiles,
    /// No file of its own: `/run` is empty after a boot.
    WithoutFiles,
    /// Its files, and no API server until pods have been made.
    WithoutApi,
}

#[test]
fn nothing_leaks_when_a_node_boots() {
    let _alone = loads_the_machine();
    for engine in ENGINES {
        let program = Program::this();
        let far = write_manifest(&others(&[FAR]));
        let manifest = far.path().to_str().unwrap();
        let args = ["--nodes", "2", "--datapath", engine, "-f", manifest];
        let lab = Lab::up(&[&args[..], &["--agent", program.link()]].concat());
        stage::apply(&lab, &policies(), (2, 0));
        let mut crowd = Crowd::new(&lab, PODS);
        let mut enemy = Crowd::of(&lab, &["enemy".to_owned()], "role: enemy");
        let mut friend = Crowd::of(&lab, &["friend".to_owned()], "role: friend");
        for all in [&crowd, &enemy, &friend] {
            all.attach(&all.members);
        }
        let boots = [Boot::WithFiles, Boot::WithoutFiles, Boot::WithoutApi];
        for (number, boot) in boots.into_iter().enumerate() {
            let held = hold_back(&lab, &program);
            wipe(&lab, boot);
            for all in [&mut crowd, &mut enemy, &mut friend] {
                all.boot(number);
            }
            let seen = begin(&lab, [&crowd, &enemy, &friend], &held, boot);
            eprintln!(
                "{engine}, {boot:?}: {PODS} pods; sent {} to them and {} by them, of these \
                 {} + {} leaked",
                seen.sent, seen.tried, seen.leaked_in, seen.leaked_out
            );
            assert_eq!(
                (seen.leaked_in, seen.leaked_out),
                (0, 0),
                "{engine}, {boot:?}:\n{}",
                seen.diary.join("\n")
            );
        }
        // Who would see a leak sees what is allowed.
        stage::no_policies(&lab, "crowd");
        let outside = stage::pod(&lab, "default", "enemy-far");
        let sniffer = sniffer(&outside.netns);
        eventually("pods without policies send", || {
            crowd.send_once(&outside.addresses, &AtomicU64::new(0));
            (count(&sniffer, CROWD) > 0).then_some(())
        });
    }
}

/// Ends the agents of node1 and holds the next one back until the file that is
/// returned is there.
fn hold_back(lab: &Lab, program: &Program) -> PathBuf {
    let (script, begin) = (program.beside("held"), program.beside("begin"));
    let _ = fs::remove_file(&begin);
    let wait = format!(
        "#!/bin/sh\nuntil [ -e {} ]; do sleep 0.02; done\nexec {} \"$@\"\n",
        begin.display(),
        ripstop().display()
    );
    fs::write(&script, wait).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    program.install(&script);
    let of_node = format!("{}/nodes/node1/", lab.root().display());
    eventually("nothing of the node runs but the script", || {
        let ids = Leftovers::processes(|command| {
            command.contains(&of_node) && !command.contains("held agent")
        });
        for id in &ids {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(*id), Signal::SIGKILL);
        }
        ids.is_empty().then_some(())
    });
    begin
}

/// Takes everything of node1 out of the kernel that a boot does. Its underlay stays:
/// it is the machine's, which has its network before pods have theirs.
fn wipe(lab: &Lab, boot: Boot) {
    let network = "
        for link in $(ip -o link show | cut -d: -f2 | cut -d@ -f1); do
            case $link in lo|eth0) ;; *) ip link del $link ;; esac
        done
        tc qdisc del dev eth0 clsact
        nft flush ruleset
        for family in -4 -6; do ip $family route flush proto 114; done
        ip addr flush dev lo
        ip addr add 127.0.0.1/8 dev lo
        echo 0 > /proc/sys/net/ipv4/ip_forward
        echo 0 > /proc/sys/net/ipv6/conf/all/forwarding
        ip -o link show | wc -l";
    let left = lab.exec("node/node1", &["sh", "-c", network]);
    assert_eq!(left.trim(), "2", "links");
    for pinned in fs::read_dir(lab.root().join("bpf/node1"))
        .unwrap()
        .flatten()
    {
        remove(&pinned.path());
    }
    if let Boot::WithoutFiles = boot {
        for file in fs::read_dir(lab.root().join("nodes/node1/agent"))
            .unwrap()
            .flatten()
        {
            remove(&file.path());
        }
    }
}

fn remove(path: &Path) {
    match path.is_dir() {
        true => fs::remove_dir_all(path).unwrap(),
        false => fs::remove_file(path).unwrap(),
    }
}

/// The agent begins, and the runtime makes all pods, while everybody sends to
/// everybody.
fn begin(lab: &Lab, [crowd, enemy, friend]: [&Crowd<'_>; 3], held: &Path, boot: Boot) -> Seen {
    let far = ["enemy-far", "friend-far"].map(|name| stage::pod(lab, "default", name));
    let outside = far.each_ref().map(|one| sniffer(&one.netns));
    let near = [enemy, friend].map(|one| &one.members[0]);
    let sniffers = [&near[0].sniffer, &outside[0], &near[1].sniffer, &outside[1]];
    // Also to those who have an address by and by.
    let range = (2..=254).map(|host| IpAddr::V4(Ipv4Addr::new(10, 244, 1, host)));
    let to = range.chain(far.iter().flat_map(|one| one.addresses.clone()));
    let to: Vec<IpAddr> = to.collect();
    let places = [&near[0].netns, &far[0].netns, &near[1].netns, &far[1].netns];
    seen_while(crowd, places, sniffers, &to, |_| {
        let api = std::thread::scope(|scope| {
            for all in [crowd, enemy, friend] {
                scope.spawn(|| all.attach(&all.members));
            }
            let api = match boot {
                Boot::WithoutApi => Some(Gap::new(lab)),
                Boot::WithFiles | Boot::WithoutFiles => None,
            };
            // The runtime is there first, and is told that it is too early.
            std::thread::sleep(Duration::from_millis(200));
            fs::write(held, "").unwrap();
            api
        });
        if let Some(api) = api {
            let reached = crowd.reached.load(Ordering::Relaxed);
            assert_eq!(reached, 0, "nobody knows who may");
            drop(api);
        }
        friends_reach(crowd);
    })
}

/// No way from node1 to the API server, as long as this lives.
struct Gap<'a> {
    lab: &'a Lab,
    api: String,
}

impl<'a> Gap<'a> {
    fn new(lab: &'a Lab) -> Self {
        let slices = lab.get(&["endpointslices", "-n", "default", "kubernetes"]);
        let api = stage::text(&slices["endpoints"][0]["addresses"][0]).to_owned();
        let gap = Self { lab, api };
        gap.route("add");
        gap
    }

    fn route(&self, what: &str) {
        let command = ["ip", "route", what, "blackhole", &self.api];
        self.lab.exec("node/node1", &command);
    }
}

impl Drop for Gap<'_> {
    fn drop(&mut self) {
        self.route("del");
    }
}
