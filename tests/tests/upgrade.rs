//! Agents end and begin, of this version and of others, under load that may not
//! notice it.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use ripstop_tests::load::{From, KEPT, KEPT_UDP, Loop, NEW_TCP, NEW_UDP};
use ripstop_tests::{Lab, PAIR, Program, eventually, next_version, ripstop, write_manifest};

/// Both ends of what the load asks for are under policies that allow it: answers
/// pass because their connection is remembered.
const POLICIES: &str = "
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: servers}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress: [{ports: [{port: 80}, {port: 80, protocol: UDP}]}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: everybody}
spec:
  podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [web]}]}
  policyTypes: [Ingress, Egress]
  egress: [{ports: [{port: 80}, {port: 80, protocol: UDP}, {port: 53, protocol: UDP}]}]
";

/// Names asked for, each by a process of its own, which asks again as the resolvers
/// of C libraries do: a question that was read by who is killed then is lost. Each
/// may wait for the next agent, so there are some even after the end.
const LOOKUPS: &str = r#"
n=0
while read -r -t 0.002; [ $? -gt 128 ] || [ $n -lt 6 ]; do
    found=$(dig +tries=2 +time=5 +short web.default.svc.cluster.local) ||
        { echo "no answer after $n: $found" >&2; exit 1; }
    [ -n "$found" ] || { echo "no such name after $n" >&2; exit 1; }
    n=$((n + 1))
done
echo $n
"#;

/// A lab whose agents can be of another version.
struct Upgraded {
    lab: Lab,
    program: Program,
    /// Addresses that are asked from outside and directly.
    from: Vec<From>,
}

impl Upgraded {
    fn up() -> Self {
        let program = Program::this();
        let manifest = write_manifest(&format!("{PAIR}{POLICIES}"));
        let manifest = manifest.path().to_str().unwrap();
        let lab = Lab::up(&["--nodes", "2", "--agent", program.link(), "-f", manifest]);
        let from = from(&lab);
        Self { lab, program, from }
    }

    /// Every kind of request, from everywhere. New ones not as fast as can be: a
    /// flow of datagrams keeps its port for minutes, and there are 12,605.
    fn load(&self, lookups: bool) -> Vec<Loop> {
        let mut loops = Vec::new();
        for from in &self.from {
            loops.push(Loop::start(&self.lab, from, "kept connection", KEPT));
            loops.push(Loop::start(
                &self.lab,
                from,
                "kept datagram socket",
                KEPT_UDP,
            ));
            for (what, script) in [("connections", NEW_TCP), ("datagrams", NEW_UDP)] {
                let script = script.replace("-t 0.002", "-t 0.02");
                loops.push(Loop::start(&self.lab, from, what, &script));
            }
        }
        if lookups {
            loops.push(Loop::start(&self.lab, &self.from[0], "lookups", LOOKUPS));
        }
        loops
    }
}

fn from(lab: &Lab) -> Vec<From> {
    let ip = |pod: &str| {
        let pod = lab.get(&["pod", pod]);
        pod["status"]["podIP"].as_str().unwrap().to_owned()
    };
    let node = &lab.get(&["node", "node1"])["status"]["addresses"][0]["address"];
    let service = lab.get(&["service", "web"]);
    let service = service["spec"]["clusterIP"].as_str().unwrap().to_owned();
    let one = |what, place, host: &str, port| {
        let to = format!("{host}/{port}");
        From { what, place, to }
    };
    vec![
        one("a pod's, to a service,", &["client"], &service, 80),
        one("a pod's, on its node,", &["client"], &ip("near"), 80),
        one("a pod's, to the other node,", &["client"], &ip("far"), 80),
        one("a node's, to a service,", &["node/node1"], &service, 80),
        one(
            "a node's, to the other node's pod,",
            &["node/node1"],
            &ip("far"),
            80,
        ),
        one(
            "from outside,",
            &["--outside"],
            node.as_str().unwrap(),
            30080,
        ),
    ]
}

/// All of them were answered.
fn end(loops: Vec<Loop>) {
    let mut answered = 0;
    for running in loops {
        let what = running.what.clone();
        let count = running.end();
        assert!(count > 5, "{what}: only {count} requests");
        answered += count;
    }
    println!("{answered} answers, no error");
}

#[test]
fn nobody_notices_that_agents_were_killed() {
    let upgraded = Upgraded::up();
    let loops = upgraded.load(true);
    for _ in 0..3 {
        upgraded.lab.restart_agents();
    }
    end(loops);
}

#[test]
fn nobody_notices_a_version_with_other_tables() {
    let Some(next) = next_version() else {
        return;
    };
    let upgraded = Upgraded::up();
    let mut loops = upgraded.load(true);
    let took_over = |times| {
        let logs = upgraded.lab.agent_logs();
        let found = logs.matches("took over from the programs").count();
        assert_eq!(found, times, "{logs}");
    };
    upgraded.program.install(&next);
    upgraded.lab.restart_agents();
    took_over(2);
    // Connections of each version live through the next one.
    loops.extend(upgraded.load(false));
    upgraded.program.install(&ripstop());
    upgraded.lab.restart_agents();
    took_over(4);
    end(loops);
}

/// The kernel refuses them because of what the process may not do: the verifier
/// lets only who may look at the kernel's memory do arithmetic with addresses.
#[test]
fn programs_that_do_not_load_leave_those_that_work() {
    let Some(next) = next_version() else {
        return;
    };
    let upgraded = Upgraded::up();
    let refused = upgraded.program.beside("refused");
    let script = format!(
        "#!/bin/sh\nexec setpriv --bounding-set -sys_admin,-perfmon {} \"$@\"\n",
        next.display()
    );
    fs::write(&refused, script).unwrap();
    fs::set_permissions(&refused, fs::Permissions::from_mode(0o755)).unwrap();
    // Without an agent there is nobody to look names up for long.
    let loops = upgraded.load(false);
    let ready = upgraded.lab.times_ready();
    upgraded.program.install(&refused);
    upgraded.lab.kill_agents();
    let reason = "the programs of this version do not load on this kernel";
    eventually("both say why, again and again", || {
        (upgraded.lab.agent_logs().matches(reason).count() > 4).then_some(())
    });
    assert_eq!(upgraded.lab.times_ready(), ready);
    let status = upgraded.lab.agent("node1", &["status"]);
    assert!(!status.ok, "nobody is ready: {}", status.stdout);
    // Back to the version that works, which goes on with what it left.
    upgraded.program.install(&ripstop());
    upgraded.lab.kill_agents();
    upgraded.lab.await_ready(ready + 2);
    end(loops);
}
