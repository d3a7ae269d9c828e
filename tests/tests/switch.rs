//! From one engine to the other under load.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ripstop_tests::{Lab, eventually, ripstop, write_manifest};

/// A client on one of two nodes, a server on each, and a service.
const PAIR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node1
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec:
  nodeName: node1
  containers:
  - name: main
    image: web
    ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec:
  nodeName: node2
  containers:
  - name: main
    image: web
    ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: tcp, port: 80, nodePort: 30080}
  - {name: udp, port: 80, nodePort: 30080, protocol: UDP}
";

/// Requests over one connection to `$to`, a host and port with a slash between,
/// until standard input ends; then their number. The pause between them is the
/// wait for that end.
const KEPT: &str = r#"
exec 3<>/dev/tcp/$to
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    printf 'GET / HTTP/1.1\r\nHost: kept\r\n\r\n' >&3 || exit 1
    length=
    while read -r -t 5 -u 3 line; do
        line=${line%$'\r'}
        case $line in [Cc]ontent-[Ll]ength:*) length=${line#*: } ;; '') break ;; esac
    done
    [ -n "$length" ] || { echo "no answer after $n" >&2; exit 1; }
    LC_ALL=C read -r -t 5 -u 3 -N "$length" body || { echo "cut after $n" >&2; exit 1; }
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, datagrams of one connected socket: each has to be answered.
const KEPT_UDP: &str = r#"
exec 3<>/dev/udp/$to
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    printf x >&3 || { echo "not sent after $n" >&2; exit 1; }
    read -r -t 5 -u 3 -N 1 answer || { echo "no answer after $n" >&2; exit 1; }
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, each of a socket of its own.
const NEW_UDP: &str = r#"
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    exec 3<>/dev/udp/$to
    printf x >&3 || { echo "not sent after $n" >&2; exit 1; }
    read -r -t 5 -u 3 -N 1 answer || { echo "no answer after $n" >&2; exit 1; }
    exec 3>&-
    n=$((n + 1))
done
echo $n
"#;

/// Likewise, connections: the server's answer begins.
const NEW_TCP: &str = r#"
n=0
while read -r -t 0.002; [ $? -gt 128 ]; do
    exec 3<>/dev/tcp/$to || { echo "no connection after $n" >&2; exit 1; }
    printf 'GET / HTTP/1.0\r\n\r\n' >&3
    read -r -t 5 -u 3 -N 1 answer || { echo "no answer after $n" >&2; exit 1; }
    exec 3>&-
    n=$((n + 1))
done
echo $n
"#;

/// Where loops run, and whom they ask.
struct From {
    what: &'static str,
    place: &'static [&'static str],
    /// Host and port, as bash writes them.
    to: String,
}

/// A loop that goes on until it is told to stop.
struct Loop {
    what: String,
    child: Child,
}

impl Loop {
    fn start(lab: &Lab, from: &From, what: &str, script: &str) -> Self {
        let script = format!("to={}\n{script}", from.to);
        let args = [from.place, &["--", "bash", "-c", &script]].concat();
        let mut command = lab.command("exec", &args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Self {
            what: format!("{} {what}", from.what),
            child: command.spawn().expect("run ripstop lab exec"),
        }
    }

    /// How many requests were answered: all of them.
    fn end(mut self) -> u32 {
        if let Some(mut stdin) = self.child.stdin.take() {
            // Gone already is an error that its output explains.
            let _ = stdin.write_all(b"stop\n");
        }
        let output = self.child.wait_with_output().expect("the loop ends");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let error = text(&output.stderr);
        assert!(output.status.success(), "{}: {error}", self.what);
        text(&output.stdout).trim().parse().expect("a number")
    }
}

fn switch(lab: &Lab, engine: &str) -> String {
    let output = Command::new(ripstop())
        .args(["datapath", "set", engine, "--all", "--lab", lab.name()])
        .output()
        .expect("run ripstop datapath");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{engine}: {text}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// New connections to the service, one after the other.
fn connect_again_and_again(lab: &Lab, stop: &AtomicBool, done: &AtomicU32) {
    let ask = "for i in $(seq 25); do \
               wget -T 5 -t1 -nv -O /dev/null http://$WEB_SERVICE_HOST/ || exit 1; done";
    while !stop.load(Ordering::Relaxed) {
        lab.exec("client", &["sh", "-c", ask]);
        done.fetch_add(25, Ordering::Relaxed);
    }
}

fn ask_once(lab: &Lab) {
    let ask = "wget -T 5 -t1 -qO- http://$WEB_SERVICE_HOST/";
    let answer = lab.exec("client", &["sh", "-c", ask]);
    assert!(answer.contains("\"pod\""), "{answer}");
}

/// Tells threads to stop, however its owner ends.
struct StopAtEnd<'a>(&'a AtomicBool);
impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn new_connections_do_not_notice_a_switch() {
    switch_under_load(Kept::None);
}

/// Those of nftables' time are led on by the flow table of the eBPF engine.
#[test]
fn kept_connections_do_not_notice_a_switch() {
    switch_under_load(Kept::OfEachEngine);
}

/// Connections that stay open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    None,
    OfEachEngine,
}

fn switch_under_load(kept: Kept) {
    let manifest = write_manifest(PAIR);
    let lab = Lab::up(&["--nodes", "2", "-f", manifest.path().to_str().unwrap()]);
    let node = &lab.get(&["node", "node1"])["status"]["addresses"][0]["address"];
    let from = [
        From {
            what: "a pod's",
            place: &["client"],
            to: "$WEB_SERVICE_HOST/80".into(),
        },
        From {
            what: "from outside,",
            place: &["--outside"],
            to: format!("{}/30080", node.as_str().unwrap()),
        },
    ];
    let stop = AtomicBool::new(false);
    let new = AtomicU32::new(0);
    let mut answered = 0;
    std::thread::scope(|scope| {
        let _stop = StopAtEnd(&stop);
        let connects = scope.spawn(|| connect_again_and_again(&lab, &stop, &new));
        // Connections of each engine's time live through the next one's.
        let mut loops = Vec::new();
        if kept == Kept::None {
            for from in &from {
                loops.push(Loop::start(&lab, from, "datagrams", NEW_UDP));
            }
            loops.push(Loop::start(&lab, &from[1], "connections", NEW_TCP));
        }
        for engine in ["nftables", "ebpf", "nftables", "ebpf"] {
            if kept == Kept::OfEachEngine {
                for from in &from {
                    loops.push(Loop::start(&lab, from, "kept connection", KEPT));
                    loops.push(Loop::start(&lab, from, "kept datagram socket", KEPT_UDP));
                }
            }
            let before = new.load(Ordering::Relaxed);
            eventually("new connections go on", || {
                (new.load(Ordering::Relaxed) > before + 25).then_some(())
            });
            let said = switch(&lab, engine);
            assert!(said.contains(&format!("-> {engine} in")), "{said}");
            println!("{said}");
        }
        let before = new.load(Ordering::Relaxed);
        eventually("new connections go on", || {
            (new.load(Ordering::Relaxed) > before + 50).then_some(())
        });
        stop.store(true, Ordering::Relaxed);
        connects.join().unwrap();
        for running in loops {
            let what = running.what.clone();
            let count = running.end();
            assert!(count > 20, "{what}: only {count} requests");
            println!("{what}: {count} answers");
            answered += count;
        }
    });
    let new = new.load(Ordering::Relaxed);
    println!("{answered} answers to loops, {new} new connections of a pod, no error");
    ask_once(&lab);
    // Nothing of the other engine is left, on either node.
    for node in ["node/node1", "node/node2"] {
        let tables = lab.exec(node, &["nft", "list", "tables"]);
        assert!(!tables.contains("ripstop"), "{tables}");
    }
    switch(&lab, "nftables");
    ask_once(&lab);
    for node in ["node/node1", "node/node2"] {
        let filters = "for i in $(ls /proc/sys/net/ipv4/conf); do tc filter show dev $i ingress 2>/dev/null; done";
        let filters = lab.exec(node, &["sh", "-c", filters]);
        assert!(!filters.contains("ripstop"), "{filters}");
    }
    // And so it is after every start.
    let killed = lab.agents();
    for agent in &killed {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(*agent),
            nix::sys::signal::Signal::SIGKILL,
        )
        .unwrap();
    }
    eventually("the next agents have nftables", || {
        let status = lab.must("status", &[]);
        let now = lab.agents();
        let others = now.len() == 2 && now.iter().all(|agent| !killed.contains(agent));
        (others && status.matches("nftables").count() == 2).then_some(())
    });
    ask_once(&lab);
}
