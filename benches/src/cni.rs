//! CNI ADD and DEL of one pod, as a runtime executes them, beside the reference
//! plugins `bridge` with `host-local` (Debian's containernetworking-plugins).

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use ripstop_netlink::netns::Netns;
use serde_json::{Value, json};

use crate::lab::Lab;
use crate::report::{Report, Row, median, quantile};

const PODS: usize = 100;

/// A plugin as a runtime sees it.
struct Plugin {
    executable: PathBuf,
    config: Value,
    /// The namespace it is executed in.
    node: Netns,
}

pub(crate) fn measure(binaries: &Path, report: &mut Report) -> Result<()> {
    let reference = Path::new("/usr/lib/cni");
    if !reference.join("bridge").exists() {
        eprintln!(
            "skipped: CNI (no reference plugins; apt-get install containernetworking-plugins)"
        );
        return Ok(());
    }
    report.progress(&format!(
        "CNI: {PODS} pods, one after the other, alternating with the reference"
    ));
    let lab = Lab::up::<&str>(binaries, "bench-cni", &["--nodes", "1"])?;
    let run_dir = format!("/run/ripstop/lab/{}/nodes/node1/agent", lab.name());
    let ours = Plugin {
        executable: binaries.join("ripstop-cni"),
        config: json!({
            "cniVersion": "1.0.0", "name": "ripstop", "type": "ripstop-cni",
            "socket": format!("{run_dir}/cni.sock"),
        }),
        node: Netns::current()?,
    };
    let state = tempfile::tempdir()?;
    let host = Namespace::new("bench-bridge-node")?;
    let theirs = Plugin {
        executable: reference.join("bridge"),
        config: json!({
            "cniVersion": "1.0.0", "name": "reference", "type": "bridge",
            "bridge": "cni0", "isGateway": true,
            "ipam": {
                "type": "host-local", "dataDir": state.path(),
                "ranges": [[{"subnet": "10.88.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}],
            },
        }),
        node: Netns::open(host.path())?,
    };
    let mut times = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for pod in 0..PODS {
        for (plugin, [add, del]) in [&ours, &theirs].into_iter().zip(&mut times) {
            let netns = Namespace::new(&format!("bench-pod{pod}"))?;
            add.push(plugin.run("ADD", &netns)?);
            del.push(plugin.run("DEL", &netns)?);
        }
    }
    let [ours, theirs] = times;
    for ((verb, goal), (ours, theirs)) in [("ADD", "<= 5 ms (aim 2.5), < 0.5"), ("DEL", "")]
        .into_iter()
        .zip(ours.into_iter().zip(theirs))
    {
        let figure = |times: &[f64]| {
            format!(
                "p50 {:.2} ms, p99 {:.2} ms",
                median(times.iter().copied()),
                quantile(times.iter().copied(), 0.99)
            )
        };
        report.add(Row {
            what: format!("CNI {verb} of one pod"),
            ours: figure(&ours),
            peer: format!("bridge + host-local: {}", figure(&theirs)),
            ratio: Some((median(ours.iter().copied()) / median(theirs.iter().copied())).into()),
            goal: goal.to_owned(),
        });
    }
    Ok(())
}

impl Plugin {
    /// Milliseconds from exec to exit.
    fn run(&self, command: &str, netns: &Namespace) -> Result<f64> {
        let start = Instant::now();
        let spawn = || {
            Command::new(&self.executable)
                .env_clear()
                .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
                .env("CNI_COMMAND", command)
                .env("CNI_CONTAINERID", &netns.0)
                .env("CNI_NETNS", netns.path())
                .env("CNI_IFNAME", "eth0")
                .env(
                    "CNI_PATH",
                    self.executable.parent().unwrap_or(Path::new("/")),
                )
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
        };
        let mut child = self.node.run(spawn)?.context("start the plugin")?;
        let config = serde_json::to_vec(&self.config)?;
        child
            .stdin
            .take()
            .context("plugin's input")?
            .write_all(&config)?;
        let output = child.wait_with_output()?;
        let time = start.elapsed().as_secs_f64() * 1000.0;
        if !output.status.success() {
            bail!(
                "{} {command}: {}",
                self.executable.display(),
                String::from_utf8_lossy(&output.stdout)
            );
        }
        Ok(time)
    }
}

/// A named namespace; dropped, it goes.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Result<Self> {
        let name = format!("{name}-{}", std::process::id());
        Netns::create(&name)?;
        Ok(Self(name))
    }

    fn path(&self) -> String {
        format!("/run/netns/{}", self.0)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let Err(error) = Netns::remove(&self.0) {
            eprintln!("namespace {} is still there: {error}", self.0);
        }
    }
}
