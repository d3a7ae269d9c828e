//! Connections and requests per second: same node, through a service, across
//! nodes; against two namespaces joined by plain routed veth, and against the
//! nodes themselves.

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::load::{Pattern, Sample};
use crate::paired::{Rounds, compare};
use crate::report::{Report, Row, median};
use crate::rig::{DIRECT_PORT, PORT, Server};
use crate::routed::{LOOPBACK, Routed};

/// The pods: a server and a client on one node, a server on the other.
fn manifest(bench: &Path) -> String {
    let pod = |name: &str, node: &str, command: &str| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
             spec:\n  nodeName: {node}\n  containers:\n  - name: main\n    image: bench\n    \
             command: {command}\n"
        )
    };
    let serve = format!(
        "[\"{}\", \"load-serve\", \"0.0.0.0:{PORT}\", \"0.0.0.0:{DIRECT_PORT}\"]",
        bench.display()
    );
    [
        pod("near", "node1", &serve),
        pod("far", "node2", &serve),
        pod("client", "node1", "[\"sleep\", \"3600\"]"),
        format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{name: near}}\n\
             spec:\n  selector: {{app: near}}\n  ports: [{{port: {PORT}}}]\n"
        ),
    ]
    .concat()
}

/// One path to measure: who runs the client, and what it connects to.
struct Route<'a> {
    name: &'static str,
    from: From<'a>,
    target: String,
}

enum From<'a> {
    Pod(&'a Lab, &'static str),
    Routed(&'a Routed),
}

impl Route<'_> {
    fn sample(&self, bench: &str, pattern: Pattern, time: Duration) -> Result<Sample> {
        let target = self.target.parse()?;
        match self.from {
            From::Pod(lab, pod) => {
                let load = pattern.run(target, time);
                let load = load.iter().map(String::as_str);
                let command: Vec<&str> = [pod, "--", bench].into_iter().chain(load).collect();
                let out = lab.run("exec", &command)?;
                serde_json::from_str(&out).with_context(|| format!("{}: {out}", self.name))
            }
            From::Routed(routed) => routed.sample(bench, target, pattern, time),
        }
    }
}

pub(crate) fn measure(binaries: &Path, rounds: Rounds, report: &mut Report) -> Result<()> {
    let bench = std::env::current_exe()?;
    let bench_path = bench.to_str().context("path of the benchmark")?;
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    file.write_all(manifest(&bench).as_bytes())?;

    report.progress("throughput: a lab of two nodes");
    let lab = Lab::up(
        binaries,
        "bench",
        &[
            "--nodes",
            "2",
            "-f",
            file.path().to_str().context("temporary path")?,
        ],
    )?;
    let address = |kind: &str, name: &str, field: &str| -> Result<String> {
        let object = lab.get(&[kind, name])?;
        let ip = object.pointer(field).and_then(|ip| ip.as_str());
        let ip = ip.with_context(|| format!("{kind} {name} has no {field}"))?;
        let port = if kind == "pod" { DIRECT_PORT } else { PORT };
        Ok(format!("{ip}:{port}"))
    };
    let near = address("pod", "near", "/status/podIP")?;
    let far = address("pod", "far", "/status/podIP")?;
    let service = address("service", "near", "/spec/clusterIP")?;
    let node2 = address("node", "node2", "/status/addresses/0/address")?;
    let on_node2 = lab.spawn(
        "exec",
        &["node/node2", "--", bench_path, "load-serve", &node2],
    )?;
    let _on_node2 = Server(on_node2);

    report.progress("throughput: two namespaces joined by routed veth");
    let routed = Routed::new()?;
    let _on_routed = routed.serve(bench_path, PORT)?;

    let paths = [
        Route {
            name: "routed veth",
            from: From::Routed(&routed),
            target: routed.target(PORT),
        },
        Route {
            name: "pod",
            from: From::Pod(&lab, "client"),
            target: near,
        },
        Route {
            name: "ClusterIP",
            from: From::Pod(&lab, "client"),
            target: service,
        },
        Route {
            name: "node to node",
            from: From::Pod(&lab, "node/node1"),
            target: node2,
        },
        Route {
            name: "pod across nodes",
            from: From::Pod(&lab, "client"),
            target: far,
        },
        // What no pod network that goes through TCP can be faster than.
        Route {
            name: "loopback",
            from: From::Routed(&routed),
            target: LOOPBACK.to_owned(),
        },
    ];
    for (pattern, what) in [
        (Pattern::Crr, "connections/s, 4 clients"),
        (Pattern::Rr, "requests/s, 16 connections"),
    ] {
        report.progress(what);
        let samples =
            rounds.measure(&paths, |path, time| path.sample(bench_path, pattern, time))?;
        let goals = match pattern {
            Pattern::Crr => [(1, 0, "1.10"), (2, 1, "0.98"), (4, 3, "0.95"), (1, 5, "")],
            Pattern::Rr => [(1, 0, "1.35"), (2, 1, ""), (4, 3, ""), (1, 5, "")],
        };
        for (ours, peer, goal) in goals {
            report.add(Row {
                what: format!("{what}: {}", paths[ours].name),
                ours: figure(&samples[ours]),
                peer: format!("{}: {}", paths[peer].name, figure(&samples[peer])),
                ratio: Some(compare(&samples[ours], &samples[peer])),
                goal: goal.to_owned(),
            });
        }
    }
    Ok(())
}

pub(crate) fn figure(samples: &[Sample]) -> String {
    let errors: u64 = samples.iter().map(|sample| sample.errors).sum();
    let failed = if errors == 0 {
        String::new()
    } else {
        format!(", {errors} errors")
    };
    format!(
        "{:.1}k/s, {:.1} µs CPU{failed}",
        median(samples.iter().map(|sample| sample.rate)) / 1000.0,
        median(samples.iter().map(|sample| sample.cpu_us)),
    )
}
