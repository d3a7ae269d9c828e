//! Pods that are of this test, with their objects.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use nix::sys::socket::{MsgFlags, recv};
use ripstop_netlink::netns::Netns;
use ripstop_tests::{Lab, eventually, ripstop, write_manifest};
use serde_json::json;

use super::{CROWD, Diary, ENEMY, FRIEND, PORT, again, sniffer};
use crate::stage;

/// Pods that are of this test, with their objects.
pub(super) struct Crowd<'a> {
    lab: &'a Lab,
    pub(super) members: Vec<Member>,
    /// How many of them got what they may.
    pub(super) reached: AtomicU64,
}

pub(super) struct Member {
    /// Of its object.
    name: String,
    uid: String,
    /// Of its network namespace, and what the runtime calls it.
    id: String,
    pub(super) netns: Netns,
    pub(super) sniffer: OwnedFd,
    sender: UdpSocket,
}

impl Member {
    /// A namespace with sockets and without a link.
    fn new(name: &str, uid: &str, id: String) -> Self {
        let netns = Netns::create(&id).unwrap();
        let sender = netns.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)));
        let sender = sender.unwrap().unwrap();
        sender.set_nonblocking(true).unwrap();
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            sniffer: sniffer(&netns),
            id,
            netns,
            sender,
        }
    }

    /// Ends as pods of a node that is switched off: nobody is told.
    fn vanish(&self) {
        let _ = Netns::remove(&self.id);
    }
}

impl<'a> Crowd<'a> {
    /// Pods under the policies.
    pub(super) fn new(lab: &'a Lab, size: usize) -> Self {
        let names = (0..size).map(|number| format!("p{number}"));
        Self::of(lab, &names.collect::<Vec<_>>(), "turn: even")
    }

    /// Objects with a label, and namespaces; no pod is attached yet.
    pub(super) fn of(lab: &'a Lab, names: &[String], label: &str) -> Self {
        let mut yaml = String::new();
        for name in names {
            // Writing to a string cannot fail. No kubelet has this node.
            let _ = writeln!(
                yaml,
                "apiVersion: v1\nkind: Pod\n\
                 metadata: {{namespace: crowd, name: {name}, labels: {{{label}}}}}\n\
                 spec: {{nodeName: nowhere, containers: [{{name: main, image: none}}]}}\n---"
            );
        }
        let file = write_manifest(&yaml);
        lab.kubectl(&["apply", "-f", file.path().to_str().unwrap()]);
        let list = lab.get(&["pods", "-n", "crowd", "-l", &label.replace(": ", "=")]);
        let objects = list["items"].as_array().unwrap().iter();
        let members = objects.map(|object| {
            let (name, uid) = (&object["metadata"]["name"], &object["metadata"]["uid"]);
            let name = stage::text(name);
            Member::new(
                name,
                stage::text(uid),
                format!("{}.crowd-{name}", lab.name()),
            )
        });
        Self {
            lab,
            members: members.collect(),
            reached: AtomicU64::new(0),
        }
    }

    /// The same pods after their node has booted for the `boot`th time: nothing is
    /// left of what they had there.
    pub(super) fn boot(&mut self, boot: usize) {
        for member in &mut self.members {
            member.vanish();
            let id = format!("{}.crowd-{}-{boot}", self.lab.name(), member.name);
            *member = Member::new(&member.name, &member.uid, id);
        }
        self.reached.store(0, Ordering::Relaxed);
    }

    /// ADD for each, some at once; again where the agent was killed.
    pub(super) fn attach(&self, members: &[Member]) {
        const AT_ONCE: usize = 20;
        std::thread::scope(|scope| {
            for some in members.chunks(members.len().div_ceil(AT_ONCE)) {
                scope.spawn(move || {
                    for member in some {
                        eventually("the pod is attached", || {
                            if self.plugin("ADD", member) {
                                return Some(());
                            }
                            self.plugin("DEL", member);
                            None
                        });
                    }
                });
            }
        });
    }

    pub(super) fn plugin(&self, command: &str, member: &Member) -> bool {
        let socket = self.lab.root().join("nodes/node1/agent/cni.sock");
        let config = json!({
            "cniVersion": "1.1.0", "name": "ripstop", "type": "ripstop-cni", "socket": socket,
        });
        let Member { name, uid, id, .. } = member;
        let mut plugin = Command::new(ripstop().with_file_name("ripstop-cni"))
            .env("CNI_COMMAND", command)
            .env("CNI_CONTAINERID", id)
            .env("CNI_NETNS", member.netns.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", "/")
            .env(
                "CNI_ARGS",
                format!("K8S_POD_NAMESPACE=crowd;K8S_POD_NAME={name};K8S_POD_UID={uid}"),
            )
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // A plugin that cannot reach the agent may not read.
        let _ = plugin
            .stdin
            .take()
            .unwrap()
            .write_all(config.to_string().as_bytes());
        let output = plugin.wait_with_output().unwrap();
        if !output.status.success() {
            // Why, for who reads that it did not work in time.
            eprintln!(
                "{command} {id}: {}",
                String::from_utf8_lossy(&output.stdout)
            );
        }
        output.status.success()
    }

    /// Every pod sends to everybody, from before it has a link.
    pub(super) fn send(&self, to: &[IpAddr], stop: &AtomicBool, tried: &AtomicU64) {
        again(stop, || self.send_once(to, tried));
    }

    pub(super) fn send_once(&self, to: &[IpAddr], tried: &AtomicU64) {
        for member in &self.members {
            for address in to {
                if member.sender.send_to(CROWD, (*address, PORT)).is_ok() {
                    tried.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    /// Counts what came in that must not, and notes who got what may.
    pub(super) fn watch(&self, stop: &AtomicBool, diary: &Diary) -> u64 {
        let mut leaked = 0;
        let mut reached = BTreeSet::new();
        again(stop, || {
            for member in &self.members {
                let (bad, good) = self.frames(member);
                leaked += bad;
                diary.note(bad, || format!("{bad} came into {}", member.name));
                if good > 0 {
                    reached.insert(&member.name);
                }
            }
            self.reached.store(reached.len() as u64, Ordering::Relaxed);
        });
        leaked
    }

    fn frames(&self, member: &Member) -> (u64, u64) {
        let mut frame = [0; 256];
        let (mut bad, mut good) = (0, 0);
        while let Ok(length) = recv(member.sniffer.as_raw_fd(), &mut frame, MsgFlags::empty()) {
            let has = |word: &[u8]| frame[..length].windows(word.len()).any(|part| part == word);
            bad += u64::from(has(ENEMY));
            good += u64::from(has(FRIEND));
        }
        (bad, good)
    }

    /// Turns the crowd's labels, and its namespace's.
    pub(super) fn relabel(&self, stop: &AtomicBool, changes: &AtomicU64) {
        for turn in ["odd", "even"].iter().cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let label = format!("turn={turn}");
            self.lab.kubectl(&[
                "label",
                "pods",
                "-n",
                "crowd",
                "--all",
                "--overwrite",
                &label,
            ]);
            self.lab
                .kubectl(&["label", "namespace", "crowd", "--overwrite", &label]);
            changes.fetch_add(2, Ordering::Relaxed);
        }
    }
}

impl Drop for Crowd<'_> {
    fn drop(&mut self) {
        for member in &self.members {
            self.plugin("DEL", member);
            member.vanish();
        }
    }
}
