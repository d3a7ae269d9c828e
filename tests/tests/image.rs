//! The image of `deploy/Dockerfile`: built, and run on every node of a lab as the
//! DaemonSet of our manifests says.

use std::fmt::Display;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ripstop_tests::{Lab, Leftovers, Printed, eventually, ripstop, visible_folder, write_manifest};
use serde_json::Value;
use tempfile::TempDir;

const IMAGE: &str = "localhost/ripstop:test";

/// A pod on each of two nodes, and their service.
const PAIR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: main, image: web, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec:
  nodeName: node2
  containers: [{name: main, image: web, ports: [{containerPort: 80}]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

/// A store of images, with ours in it, and everything of it in one folder.
struct Store(TempDir);

impl Store {
    /// `None`, with the reason printed, where there is no podman.
    fn new() -> Option<Self> {
        if !Path::new("/usr/bin/podman").exists() {
            eprintln!("skipped: podman is not installed");
            return None;
        }
        let programs = ripstop().with_file_name("../image");
        assert!(
            programs.join("ripstop").exists(),
            "no static programs: cargo xtask image --programs --debug"
        );
        let this = Self(visible_folder());
        let storage = format!(
            "[storage]\ndriver = \"overlay\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            this.path("graph"),
            this.path("run"),
        );
        fs::write(this.path("storage.conf"), storage).unwrap();
        let containers = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             tmp_dir = {:?}\n[containers]\nlog_driver = \"none\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            this.path("tmp"),
        );
        fs::write(this.path("containers.conf"), containers).unwrap();
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/Dockerfile");
        let built = ["build", "--quiet", "--tag", IMAGE, "--file", file];
        this.must(&[&built[..], &[programs.to_str().unwrap()]].concat());
        Some(this)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn podman(&self, words: &[&str]) -> Printed {
        let mut podman = Command::new("podman");
        podman
            .args(words)
            .env("CONTAINERS_CONF", self.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"))
            .stdin(Stdio::null());
        podman.output().unwrap().into()
    }

    fn must(&self, words: &[&str]) -> String {
        let printed = self.podman(words);
        assert!(printed.ok, "podman {words:?}: {}", printed.stderr);
        printed.stdout
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.podman(&["rm", "--all", "--force", "--time=0"]);
        // The layers' place is mounted onto itself.
        let _ = Command::new("umount")
            .arg("--recursive")
            .arg(self.path("graph/overlay"))
            .output();
    }
}

/// The container of the DaemonSet that `ripstop install --print` writes.
fn daemon_set() -> Value {
    let output = Command::new(ripstop())
        .args(["install", "--print", "--api-server=https://192.0.2.1:6443"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let set = objects.into_iter().find(|o| o["kind"] == "DaemonSet");
    set.unwrap()["spec"]["template"]["spec"].take()
}

/// Flags of `podman run` that say what the container's `securityContext` says.
fn security(container: &Value) -> Vec<String> {
    let context = &container["securityContext"];
    let words = |value: &Value| -> Vec<String> {
        let words = value.as_array().unwrap().iter();
        words
            .map(|word| word.as_str().unwrap().to_owned())
            .collect()
    };
    // What is left out here is podman's default, as it is the manifest's.
    assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    assert_eq!(context["readOnlyRootFilesystem"], true);
    assert!(context.get("privileged").is_none());
    let mut flags = vec!["--read-only".to_owned()];
    let drop = words(&context["capabilities"]["drop"]);
    flags.extend(drop.iter().map(|name| format!("--cap-drop={name}")));
    let add = words(&context["capabilities"]["add"]);
    flags.extend(add.iter().map(|name| format!("--cap-add={name}")));
    flags
}

/// Flags of `podman run` for the volumes; `at` says which of the machine's folders
/// stands for one of the node's.
fn volumes(spec: &Value, at: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let list = |value: &Value| value.as_array().unwrap().clone();
    let named = |name: &Value| {
        let volumes = list(&spec["volumes"]);
        volumes.into_iter().find(|volume| volume["name"] == *name)
    };
    let mut flags = Vec::new();
    for mount in list(&spec["containers"][0]["volumeMounts"]) {
        let volume = named(&mount["name"]).unwrap();
        // Settings come by flags, in a lab.
        let Some(path) = volume["hostPath"]["path"].as_str() else {
            continue;
        };
        let to = mount["mountPath"].as_str().unwrap();
        let propagation = match mount["mountPropagation"].as_str() {
            Some("HostToContainer") => ":rslave",
            _ => "",
        };
        let (from, to) = match at(path) {
            // A lab keeps its nodes' apart by folder, below one place.
            Some(other) if path == "/run/ripstop" => (other.clone(), other),
            Some(other) => (other, to.to_owned()),
            None => (path.to_owned(), to.to_owned()),
        };
        flags.push(format!("--volume={from}:{to}{propagation}"));
    }
    flags
}

/// A lab whose agents are containers.
struct Contained {
    lab: Lab,
    store: Store,
}

impl Contained {
    fn up(store: Store, engine: &str) -> Self {
        let lab = Lab::unborn();
        let spec = daemon_set();
        let container = &spec["containers"][0];
        assert_eq!(spec["hostNetwork"], true);
        assert_eq!(spec["hostPID"], true);
        let folder = store.0.path().to_str().unwrap();
        for node in ["node1", "node2"] {
            fs::create_dir_all(store.path(&format!("{node}/bin"))).unwrap();
            fs::create_dir_all(store.path(&format!("{node}/net.d"))).unwrap();
        }
        let mounts = volumes(&spec, |path| match path {
            "/run/ripstop" => Some(lab.root().display().to_string()),
            "/opt/cni/bin" => Some(format!("{folder}/$node/bin")),
            "/etc/cni/net.d" => Some(format!("{folder}/$node/net.d")),
            _ => None,
        });
        let flags = [security(container), mounts].concat();
        let flags: Vec<_> = flags.iter().map(|flag| format!("\"{flag}\"")).collect();
        // The lab starts it in the node's network, which so is the "host's".
        let script = format!(
            "#!/bin/sh\nnode=$3\nif [ -e {folder}/stop ]; then exec sleep 60; fi\n\
             export CONTAINERS_CONF={folder}/containers.conf\n\
             export CONTAINERS_STORAGE_CONF={folder}/storage.conf\n\
             podman rm --force --time=0 --ignore $node >/dev/null 2>&1\n\
             exec podman run --rm --name $node --network=host --pid=host --cgroupns=private \\\n\
             {} {IMAGE} \"$@\" --cni-bin-dir=/opt/cni/bin --cni-conf-dir=/etc/cni/net.d\n",
            flags.join(" ")
        );
        let agent = store.path("agent");
        fs::write(&agent, script).unwrap();
        fs::set_permissions(&agent, fs::Permissions::from_mode(0o755)).unwrap();
        let manifest = write_manifest(PAIR);
        let this = Self { lab, store };
        this.lab.must(
            "up",
            &[
                "--nodes=2",
                "--dual-stack",
                "--datapath",
                engine,
                "--agent",
                agent.to_str().unwrap(),
                "-f",
                manifest.path().to_str().unwrap(),
            ],
        );
        this
    }

    /// The processes of a node's container, by their first argument.
    fn processes(&self, verb: &str) -> Vec<i32> {
        let root = self.lab.root().display().to_string();
        Leftovers::processes(|command| {
            command.starts_with(&format!("/ripstop {verb} ")) && command.contains(&root)
        })
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        // No container is started any more, and those that run are ended, or are on
        // their way.
        let _ = fs::write(self.store.path("stop"), "");
        let root = self.lab.root().display().to_string();
        let starts = ["podman run ", "/ripstop agent ", "/bin/sh "];
        for _ in 0..100 {
            self.store.podman(&["rm", "--all", "--force", "--time=0"]);
            let left = Leftovers::processes(|command| {
                command.contains(&root) && starts.iter().any(|start| command.starts_with(start))
            });
            if left.is_empty() {
                break;
            }
        }
    }
}

/// A line of `/proc/PID/status`.
fn status(pid: impl Display, field: &str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap().trim_start_matches(':').trim().to_owned()
}

#[test]
fn the_programs_need_nothing_else() {
    let Some(store) = Store::new() else { return };
    let spec = daemon_set();
    let security = security(&spec["containers"][0]);
    let run = |words: &[&str]| {
        let mut all = vec!["run", "--rm", "--network=none"];
        all.extend(security.iter().map(String::as_str));
        all.extend(["--volume=/proc/sys/net:/host/proc/sys/net", IMAGE]);
        store.must(&[&all[..], words].concat())
    };
    let version = run(&["--version"]);
    assert_eq!(version, format!("ripstop {}\n", env!("CARGO_PKG_VERSION")));
    assert!(run(&["config", "default"]).contains("clusterDns"));
    let found: Value = serde_json::from_str(&run(&["preflight", "--output=json"])).unwrap();
    for engine in found["engines"].as_array().unwrap() {
        // What this kernel has not, no container can have.
        let here = Command::new(ripstop())
            .args(["preflight", "--output=json"])
            .output()
            .unwrap();
        let here: Value = serde_json::from_slice(&here.stdout).unwrap();
        let here = here["engines"].as_array().unwrap().iter();
        let here = here.clone().find(|e| e["name"] == engine["name"]).unwrap();
        assert_eq!(engine["refused"], here["refused"], "{}", engine["name"]);
    }
    let all = store.must(&["image", "inspect", "--format={{len .RootFS.Layers}}", IMAGE]);
    assert_eq!(all.trim(), "1");
}

fn agents_run_from_the_image(engine: &str) {
    let Some(store) = Store::new() else { return };
    let contained = Contained::up(store, engine);
    let lab = &contained.lab;
    let told: Value = serde_json::from_str(&lab.agent("node1", &["status", "-o", "json"]).stdout)
        .expect("a status");
    assert_eq!(told["datapath"]["mode"], engine, "{told}");
    for (from, name) in [("near", "web"), ("far", "web.default.svc")] {
        let said = lab.exec(
            from,
            &["wget", "-q", "-T5", "-O-", &format!("http://{name}/")],
        );
        assert!(said.contains("\"pod\""), "{said}");
    }

    // They have given up what they need no more.
    let agents = contained.processes("agent");
    assert_eq!(agents.len(), 2);
    for pid in agents {
        for set in ["CapEff", "CapPrm", "CapBnd"] {
            // NET_BIND_SERVICE, NET_ADMIN, NET_RAW, DAC_OVERRIDE, SYS_PTRACE,
            // SYS_ADMIN, PERFMON, BPF.
            assert_eq!(status(pid, set), "000000c000283402", "{set}");
        }
        assert_eq!(status(pid, "CapInh"), "0000000000000000");
        assert_eq!(status(pid, "NoNewPrivs"), "1");
        assert_eq!(status(pid, "Seccomp"), "2");
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let tasks = tasks.map(|task| task.unwrap().file_name());
        let reading = tasks.filter_map(|task| {
            let task = format!("{pid}/task/{}", task.to_str()?);
            let name = fs::read_to_string(format!("/proc/{task}/comm")).ok()?;
            matches!(name.trim(), "dns" | "health" | "metrics" | "starter").then_some(task)
        });
        let reading: Vec<_> = reading.collect();
        // A socket for datagrams of each family, streams, load balancers, metrics,
        // and who started them.
        assert_eq!(reading.len(), 6);
        for task in reading {
            for set in ["CapEff", "CapPrm", "CapBnd"] {
                assert_eq!(status(&task, set), "0000000000000000");
            }
            for ids in ["Uid", "Gid"] {
                assert_eq!(status(&task, ids), ["65529"; 4].join("\t"));
            }
            assert_eq!(status(&task, "Groups"), "");
            assert_eq!(status(&task, "NoNewPrivs"), "1");
        }
    }

    // What the runtime needs is in its folders, and works from there.
    let plugin = contained.store.path("node1/bin/ripstop-cni");
    let image = ripstop().with_file_name("../image/ripstop-cni");
    assert!(fs::read(&plugin).unwrap() == fs::read(image).unwrap());
    let list = contained.store.path("node1/net.d/05-ripstop.conflist");
    let list: Value = serde_json::from_slice(&fs::read(list).unwrap()).unwrap();
    let mut config = list["plugins"][0].clone();
    config["cniVersion"] = "1.1.0".into();
    config["name"] = list["name"].clone();
    let file = contained.store.path("config.json");
    fs::write(&file, config.to_string()).unwrap();
    let asked = Command::new(&plugin)
        .env("CNI_COMMAND", "STATUS")
        .env("CNI_PATH", plugin.parent().unwrap())
        .stdin(fs::File::open(file).unwrap())
        .output()
        .unwrap();
    assert!(asked.status.success(), "{asked:?}");

    // Killed, it is started in another container; the sockets are still there.
    let holders = contained.processes("socket-holder");
    assert_eq!(holders.len(), 2);
    for pid in &holders {
        assert_eq!(status(*pid, "CapPrm"), "0000000000000000");
        assert_eq!(status(*pid, "CapBnd"), "0000000000000000");
        assert_eq!(status(*pid, "Uid"), ["65534"; 4].join("\t"));
    }
    contained
        .store
        .must(&["rm", "--force", "--time=0", "node1"]);
    let log = lab.root().join("nodes/node1/agent.log");
    let read = || fs::read_to_string(&log).unwrap();
    eventually("the next agent is ready", || {
        let ready = read().matches("the node is ready for pods").count();
        (ready == 2).then_some(())
    });
    // Where controllers have hierarchies of their own, a runtime finds and ends the
    // holder by those.
    if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        let taken = "the DNS sockets of the agent before this one are taken over";
        assert!(read().contains(taken), "{}", read());
        let mut now = contained.processes("socket-holder");
        let mut before = holders;
        now.sort_unstable();
        before.sort_unstable();
        assert_eq!(now, before);
    } else {
        eprintln!("not tried: a holder over a restart needs control groups of version 2");
    }
    let said = lab.exec("near", &["wget", "-q", "-T5", "-O-", "http://web/"]);
    assert!(said.contains("\"pod\""), "{said}");
}

#[test]
fn agents_run_from_the_image_with_ebpf() {
    agents_run_from_the_image("ebpf");
}

#[test]
fn agents_run_from_the_image_with_nftables() {
    agents_run_from_the_image("nftables");
}
