//! The plugin as foreign runtimes run it: containerd and podman from Debian, on
//! the nodes of a lab whose agents do not know the difference.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use ripstop_tests::{Lab, Printed, eventually, ripstop, visible_folder};
use serde_json::{Value, json};
use tempfile::TempDir;

const IMAGE: &str = "docker.io/library/box:1";
/// Answers each connection with a line, until it is stopped.
const SERVER: &[&str] = &[
    "/bin/busybox",
    "nc",
    "-ll",
    "-p",
    "8080",
    "-e",
    "/bin/busybox",
    "echo",
    "from the container",
];

/// False, with the reason printed, where a program is missing.
fn has(programs: &[&str]) -> bool {
    let folders = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];
    let there = |program: &&&str| {
        folders
            .iter()
            .any(|at| Path::new(at).join(program).exists())
    };
    let missing: Vec<_> = programs.iter().filter(|one| !there(one)).collect();
    if !missing.is_empty() {
        eprintln!("skipped: {missing:?} not installed");
    }
    missing.is_empty()
}

#[test]
fn containerd_runs_the_plugin() {
    if !has(&["containerd", "ctr", "runc", "busybox"]) {
        return;
    }
    let lab = Lab::pair();
    let used = used_addresses(&lab, "node2");
    let (one, two) = (
        Containerd::start(&lab, "node1"),
        Containerd::start(&lab, "node2"),
    );
    let mut server = two.run("server", SERVER);
    let address = eventually("the server's address", || two.address("server"));
    assert_eq!(used_addresses(&lab, "node2"), used + 1);

    let said = one.once("to-container", &ask(&address, 8080));
    assert_eq!(said, "from the container\n", "across nodes");
    let said = two.once("to-neighbour", &ask(&address, 8080));
    assert_eq!(said, "from the container\n", "on one node");
    for pod in ["near", "far"] {
        let said = lab.exec(pod, &ask(&address, 8080).each_ref().map(String::as_str));
        assert_eq!(said, "from the container\n", "from pod {pod}");
    }
    let service = lab.get(&["service", "web"]);
    let service = service.pointer("/spec/clusterIP").and_then(Value::as_str);
    let get = format!(
        "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | /bin/busybox nc -w 5 {} 80",
        service.unwrap()
    );
    let said = one.once("to-service", &["/bin/busybox", "sh", "-c", &get]);
    assert!(said.contains("\"pod\""), "through a service: {said}");

    two.ctr(&["task", "kill", "-s", "KILL", "server"]);
    server.wait().unwrap();
    eventually("DEL gives the address back", || {
        (used_addresses(&lab, "node2") == used).then_some(())
    });
}

#[test]
fn podman_runs_the_plugin() {
    if !has(&["podman", "runc", "busybox"]) {
        return;
    }
    let lab = Lab::pair();
    let used = used_addresses(&lab, "node1");
    let podman = Podman::new(&lab, "node1");
    let detached = ["-d", "--name", "server", "-p", "8088:8080", IMAGE];
    podman.run(&[&detached[..], SERVER].concat());
    let said = podman.must(&["exec", "server", "/bin/busybox", "ip", "-o", "-4", "addr"]);
    let address = eth0(&said).expect("an address");
    assert_eq!(used_addresses(&lab, "node1"), used + 1);

    let question = ask(&address, 8080);
    let question = question.each_ref().map(String::as_str);
    let said = podman.run(&[&["--rm", IMAGE], &question[..]].concat());
    assert_eq!(said, "from the container\n", "on one node");
    assert_eq!(
        lab.exec("far", &question),
        "from the container\n",
        "across nodes"
    );
    // A published port is a port of the node.
    let node = lab.get(&["node", "node1"]);
    let node = node
        .pointer("/status/addresses/0/address")
        .and_then(Value::as_str);
    let question = ask(node.unwrap(), 8088);
    let question = question.each_ref().map(String::as_str);
    for from in ["far", "node/node2"] {
        assert_eq!(
            lab.exec(from, &question),
            "from the container\n",
            "from {from}"
        );
    }

    podman.must(&["rm", "-f", "-t", "0", "server"]);
    eventually("DEL gives the address back", || {
        (used_addresses(&lab, "node1") == used).then_some(())
    });
}

fn ask(address: &str, port: u16) -> [String; 6] {
    ["/bin/busybox", "nc", "-w", "5", address, &port.to_string()].map(str::to_owned)
}

/// The IPv4 address in what `ip -o -4 addr` says.
fn eth0(said: &str) -> Option<String> {
    let line = said.lines().find(|line| line.contains("eth0"))?;
    let cidr = line
        .split_whitespace()
        .skip_while(|word| *word != "inet")
        .nth(1)?;
    Some(cidr.split('/').next()?.to_owned())
}

/// Addresses of the node's pod ranges that are given out, as its agent says.
fn used_addresses(lab: &Lab, node: &str) -> u64 {
    let status = lab.agent(node, &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status.stdout).expect("JSON of the status");
    let ranges = status["podRanges"].as_array().expect("pod ranges");
    ranges
        .iter()
        .map(|range| range["used"].as_u64().unwrap())
        .sum()
}

/// A folder with what a runtime wants on a node: network list, plugin, image.
struct Place {
    folder: TempDir,
    node: String,
}

impl Place {
    fn new(lab: &Lab, node: &str) -> Self {
        let folder = visible_folder();
        let path = |name: &str| folder.path().join(name);
        for name in ["net.d", "bin", "image"] {
            fs::create_dir(path(name)).unwrap();
        }
        // Which versions there are is for the runtime to choose from: libcni
        // before 1.2 knows 1.0.0 and ignores the list.
        let written = lab
            .root()
            .join("nodes")
            .join(node)
            .join("cni/net.d/10-ripstop.conflist");
        fs::copy(written, path("net.d/10-ripstop.conflist")).unwrap();
        fs::copy(
            ripstop().with_file_name("ripstop-cni"),
            path("bin/ripstop-cni"),
        )
        .unwrap();
        make_image(&path("image"), &path("image.tar"));
        Self {
            folder,
            node: format!("node/{node}"),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }
}

/// An image with nothing but a static busybox, as `docker save` writes it.
fn make_image(work: &Path, image: &Path) {
    let tar = |folder: &Path, to: &Path| {
        let made = Command::new("tar")
            .arg("-C")
            .arg(folder)
            .arg("-cf")
            .arg(to)
            .arg(".")
            .status();
        assert!(made.unwrap().success());
    };
    fs::create_dir_all(work.join("root/bin")).unwrap();
    fs::copy("/bin/busybox", work.join("root/bin/busybox")).unwrap();
    fs::create_dir(work.join("saved")).unwrap();
    let layer = work.join("saved/layer.tar");
    tar(&work.join("root"), &layer);
    let sum = Command::new("sha256sum")
        .arg(&layer)
        .output()
        .unwrap()
        .stdout;
    let sum = String::from_utf8(sum).unwrap();
    let sum = sum.split(' ').next().unwrap();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{sum}")]},
    });
    let manifest = json!([{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer.tar"]}]);
    fs::write(work.join("saved/config.json"), config.to_string()).unwrap();
    fs::write(work.join("saved/manifest.json"), manifest.to_string()).unwrap();
    tar(&work.join("saved"), image);
}

/// A containerd on a node, with everything of it in one folder.
struct Containerd<'a> {
    lab: &'a Lab,
    place: Place,
    daemon: Child,
}

impl<'a> Containerd<'a> {
    fn start(lab: &'a Lab, node: &str) -> Self {
        let place = Place::new(lab, node);
        let config = format!(
            "version = 2\nroot = {:?}\nstate = {:?}\n\
             disabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = {:?}\n",
            place.path("root"),
            place.path("state"),
            place.path("socket"),
        );
        fs::write(place.path("config.toml"), config).unwrap();
        let log = fs::File::create(place.path("log")).unwrap();
        let daemon = lab
            .command(
                "exec",
                &[
                    &place.node,
                    "--",
                    "containerd",
                    "-c",
                    &place.text("config.toml"),
                ],
            )
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let this = Self { lab, place, daemon };
        eventually("containerd answers", || {
            this.try_ctr(&["version"]).ok.then_some(())
        });
        let image = this.place.text("image.tar");
        this.ctr(&["image", "import", "--snapshotter", "native", &image]);
        this
    }

    fn command(&self, words: &[&str]) -> Command {
        // What `ctr run --cni` reads is at fixed places, so it gets them for
        // itself: nobody else sees these mounts.
        let script = "mount --make-rprivate / && mount -t tmpfs tmpfs /etc && mkdir -p /etc/cni && \
                      cp -r \"$0/net.d\" /etc/cni && mount -t tmpfs tmpfs /opt && \
                      mkdir -p /opt/cni && cp -r \"$0/bin\" /opt/cni && exec ctr -a \"$0/socket\" \"$@\"";
        let folder = self.place.folder.path().to_str().unwrap();
        let way = [
            &self.place.node,
            "--",
            "unshare",
            "-m",
            "sh",
            "-c",
            script,
            folder,
        ];
        self.lab.command("exec", &[&way[..], words].concat())
    }

    fn try_ctr(&self, words: &[&str]) -> Printed {
        self.command(words).output().unwrap().into()
    }

    fn ctr(&self, words: &[&str]) -> String {
        let printed = self.try_ctr(words);
        let log = || fs::read_to_string(self.place.path("log")).unwrap_or_default();
        assert!(printed.ok, "ctr {words:?}: {}\n{}", printed.stderr, log());
        printed.stdout
    }

    /// A container that goes on until it is killed.
    fn run(&self, name: &str, command: &[&str]) -> Child {
        let words = [
            "run",
            "--snapshotter",
            "native",
            "--cni",
            "--rm",
            IMAGE,
            name,
        ];
        let mut run = self.command(&[&words[..], command].concat());
        run.stdout(Stdio::null()).spawn().unwrap()
    }

    /// What a container prints until it ends by itself.
    fn once<T: AsRef<str>>(&self, name: &str, command: &[T]) -> String {
        let words = [
            "run",
            "--snapshotter",
            "native",
            "--cni",
            "--rm",
            IMAGE,
            name,
        ];
        let command = command.iter().map(AsRef::as_ref);
        self.ctr(&words.into_iter().chain(command).collect::<Vec<_>>())
    }

    fn address(&self, name: &str) -> Option<String> {
        let ip = ["/bin/busybox", "ip", "-o", "-4", "addr"];
        let words = ["task", "exec", "--exec-id", "address", name];
        eth0(&self.try_ctr(&[&words[..], &ip[..]].concat()).stdout)
    }
}

impl Drop for Containerd<'_> {
    fn drop(&mut self) {
        for task in self.try_ctr(&["task", "ls", "-q"]).stdout.lines() {
            self.try_ctr(&["task", "rm", "-f", task]);
        }
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// Podman on a node, with everything of it in one folder.
struct Podman<'a> {
    lab: &'a Lab,
    place: Place,
}

impl<'a> Podman<'a> {
    fn new(lab: &'a Lab, node: &str) -> Self {
        let place = Place::new(lab, node);
        let containers = format!(
            "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [{:?}]\n\
             network_config_dir = {:?}\ndefault_network = \"ripstop\"\n\
             [engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"none\"\n\
             [containers]\nlog_driver = \"none\"\n\
             default_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n",
            place.path("bin"),
            place.path("net.d"),
        );
        fs::write(place.path("containers.conf"), containers).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = {:?}\nrunroot = {:?}\n",
            place.path("graph"),
            place.path("run"),
        );
        fs::write(place.path("storage.conf"), storage).unwrap();
        let this = Self { lab, place };
        let image = this.place.text("image.tar");
        this.must(&["load", "-q", "-i", &image]);
        this
    }

    fn must(&self, words: &[&str]) -> String {
        let way = [self.place.node.as_str(), "--", "podman"];
        let mut command = self.lab.command("exec", &[&way[..], words].concat());
        let command = command
            .env("CONTAINERS_CONF", self.place.path("containers.conf"))
            .env("CONTAINERS_STORAGE_CONF", self.place.path("storage.conf"));
        let printed = Printed::from(command.output().unwrap());
        assert!(printed.ok, "podman {words:?}: {}", printed.stderr);
        printed.stdout
    }

    fn run(&self, words: &[&str]) -> String {
        self.must(&[&["run", "--network", "ripstop"], words].concat())
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let way = [
                self.place.node.as_str(),
                "--",
                "podman",
                "rm",
                "-f",
                "-a",
                "-t",
                "0",
            ];
            let mut command = self.lab.command("exec", &way);
            let _ = command
                .env("CONTAINERS_CONF", self.place.path("containers.conf"))
                .env("CONTAINERS_STORAGE_CONF", self.place.path("storage.conf"))
                .output();
        }
    }
}
