//! From nothing to all pods Ready, and what an agent then weighs.

use std::io::Write;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};

use crate::lab::Lab;
use crate::report::{Report, Row, median, quantile};

pub(crate) fn boutique(
    binaries: &Path,
    manifests: &Path,
    repetitions: usize,
    report: &mut Report,
) -> Result<()> {
    if !manifests.exists() {
        eprintln!("skipped: Online Boutique (no {})", manifests.display());
        return Ok(());
    }
    let file = manifests.to_str().context("path of the manifests")?;
    let (mut times, mut memory) = (Vec::new(), Vec::new());
    for repetition in 1..=repetitions {
        report.progress(&format!(
            "Online Boutique on 3 nodes, {repetition} of {repetitions}"
        ));
        let start = Instant::now();
        let lab = Lab::up(binaries, "bench-boutique", &["--nodes", "3", "-f", file])?;
        times.push(start.elapsed().as_secs_f64());
        memory.extend(agents_mib(&lab)?);
    }
    report.add(Row {
        what: "Online Boutique on 3 nodes, nothing to all Ready".into(),
        ours: format!(
            "median {:.2} s, worst {:.2} s",
            median(times.iter().copied()),
            quantile(times, 1.0)
        ),
        peer: String::new(),
        ratio: None,
        goal: "<= 3 s (aim 1.5)".into(),
    });
    report.add(Row {
        what: "agent's resident memory with it".into(),
        ours: format!(
            "median {:.1} MiB, largest {:.1} MiB",
            median(memory.iter().copied()),
            quantile(memory, 1.0)
        ),
        peer: String::new(),
        ratio: None,
        goal: "<= 30 MB".into(),
    });
    Ok(())
}

pub(crate) fn scale(binaries: &Path, report: &mut Report) -> Result<()> {
    const NODES: usize = 20;
    const PODS: usize = 200;
    report.progress(&format!("{PODS} pods on {NODES} nodes"));
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    write!(
        file,
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: many}}\nspec:\n  \
         replicas: {PODS}\n  selector: {{matchLabels: {{app: many}}}}\n  template:\n    \
         metadata: {{labels: {{app: many}}}}\n    spec:\n      containers:\n      \
         - {{name: main, image: many, ports: [{{containerPort: 80}}]}}\n\
         ---\napiVersion: v1\nkind: Service\nmetadata: {{name: many}}\n\
         spec: {{selector: {{app: many}}, ports: [{{port: 80}}]}}\n"
    )?;
    let start = Instant::now();
    let path = file.path().to_str().context("temporary path")?;
    let lab = Lab::up(
        binaries,
        "bench-scale",
        &["--nodes", &NODES.to_string(), "-f", path],
    )?;
    let up = start.elapsed().as_secs_f64();
    let start = Instant::now();
    lab.run("probe", &[])?;
    let probed = start.elapsed().as_secs_f64();
    report.add(Row {
        what: format!("{PODS} pods on {NODES} nodes: all Ready, and probed without error"),
        ours: format!("up {up:.2} s, probe {probed:.2} s"),
        peer: String::new(),
        ratio: None,
        goal: "no error".into(),
    });
    Ok(())
}

/// Resident memory of each of the lab's agents, MiB.
fn agents_mib(lab: &Lab) -> Result<Vec<f64>> {
    let mut sizes = Vec::new();
    for process in std::fs::read_dir("/proc")? {
        let path = process?.path();
        let Ok(command) = std::fs::read_to_string(path.join("cmdline")) else {
            continue;
        };
        let mut words = command.split('\0');
        let agent = words.nth(1) == Some("agent");
        if !agent || !command.contains(&format!("/lab/{}/", lab.name())) {
            continue;
        }
        let status = std::fs::read_to_string(path.join("status"))?;
        let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse::<f64>().ok());
        sizes.push(kib.context("VmRSS of an agent")? / 1024.0);
    }
    Ok(sizes)
}
