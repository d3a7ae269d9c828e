//! `ripstop preflight`: what this kernel offers, and which engine it would get.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;
use ripstop_datapath::{Error, ebpf, nftables};
use ripstop_netlink::conntrack::Conntrack;
use serde::Serialize;

/// Arguments of `ripstop preflight`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Output form.
    #[arg(long, short, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What was found; nothing is attached, and nothing stays.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    kernel: String,
    engines: Vec<EngineFound>,
    features: Vec<Feature>,
    /// Chains of others that drop what pods send to each other, unless told
    /// otherwise; with eBPF, what goes through the host's stack alone.
    foreign_drops: Vec<String>,
    /// Of `--datapath auto`; `None` if the kernel refuses both.
    engine: Option<&'static str>,
    why: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EngineFound {
    name: &'static str,
    /// What the kernel said against it.
    refused: Option<String>,
    /// Of its programs, if it has any.
    programs: Vec<ProgramFound>,
    load_micros: Option<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct ProgramFound {
    name: &'static str,
    /// None where the kernel does not say.
    verified_instructions: Option<u32>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Feature {
    name: &'static str,
    there: bool,
    /// Who needs it and what for.
    what_for: &'static str,
}

/// Prints what was found; exit status 1 if the kernel refuses both engines.
///
/// # Errors
/// If the output cannot be written.
pub(crate) fn run(args: &Args) -> Result<ExitCode> {
    let found = find();
    match args.output {
        Output::Json => println!("{}", serde_json::to_string_pretty(&found)?),
        Output::Table => print!("{}", table(&found)),
    }
    Ok(match found.engine {
        Some(_) => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
    })
}

fn find() -> Found {
    let engines = vec![ebpf_engine(), nftables_engine()];
    let first = engines.iter().find(|engine| engine.refused.is_none());
    let (engine, why) = match (first, &engines[0].refused) {
        (Some(engine), None) => (Some(engine.name), "the kernel takes eBPF".to_owned()),
        (Some(engine), Some(reason)) => (
            Some(engine.name),
            format!("the kernel refuses eBPF: {reason}"),
        ),
        (None, _) => (None, "the kernel refuses every engine".to_owned()),
    };
    let kernel = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_default();
    Found {
        kernel,
        engine,
        why,
        features: features(),
        foreign_drops: nftables::foreign_drops().unwrap_or_default(),
        engines,
    }
}

fn ebpf_engine() -> EngineFound {
    let mut found = EngineFound {
        name: "ebpf",
        refused: None,
        programs: Vec::new(),
        load_micros: None,
    };
    match ebpf::try_load() {
        Ok(loaded) => {
            found.load_micros = u64::try_from(loaded.took.as_micros()).ok();
            let program = |stats: ebpf::ProgramStats| ProgramFound {
                name: stats.name,
                verified_instructions: stats.verified_instructions,
            };
            found.programs = loaded.programs.into_iter().map(program).collect();
        }
        Err(error) => found.refused = Some(reason(error)),
    }
    found
}

fn nftables_engine() -> EngineFound {
    EngineFound {
        name: "nftables",
        refused: nftables::try_table().err().map(reason),
        programs: Vec::new(),
        load_micros: None,
    }
}

fn reason(error: Error) -> String {
    match error {
        Error::Unsupported { reason } => reason,
        other => other.to_string(),
    }
}

/// What can be seen without trying; trying is what counts.
fn features() -> Vec<Feature> {
    let exists = |path: &str| Path::new(path).exists();
    let filesystems = std::fs::read_to_string("/proc/filesystems").unwrap_or_default();
    let has_filesystem = |name: &str| {
        filesystems
            .lines()
            .any(|line| line.split('\t').next_back() == Some(name))
    };
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mounted = |kind: &str| mounts.contains(&format!(" - {kind} "));
    let feature = |name, there, what_for| Feature {
        name,
        there,
        what_for,
    };
    vec![
        feature(
            "bpf file system",
            has_filesystem("bpf"),
            "ebpf: keeps programs and tables while no agent runs",
        ),
        feature(
            "cgroup2",
            mounted("cgroup2"),
            "ebpf: services are translated at the sockets of a control group",
        ),
        feature(
            "BTF",
            exists("/sys/kernel/btf/vmlinux"),
            "ebpf: storage at sockets is described by it",
        ),
        feature(
            "BPF JIT",
            std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable")
                .is_ok_and(|text| text.trim() != "0"),
            "ebpf: speed",
        ),
        feature(
            "conntrack",
            exists("/proc/sys/net/netfilter/nf_conntrack_max"),
            "nftables: translation",
        ),
        feature(
            "conntrack netlink",
            Conntrack::new().is_ok_and(|mut conntrack| conntrack.list(|_| false).is_ok()),
            "nftables: flows of backends that are gone, and the switch between engines",
        ),
        feature(
            "route_localnet",
            exists("/proc/sys/net/ipv4/conf/all/route_localnet"),
            "nftables: ports of the node at 127.0.0.1",
        ),
    ]
}

fn table(found: &Found) -> String {
    use std::fmt::Write;
    let mut text = String::new();
    let mut line = |what: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{what:<20} {value}");
    };
    line("kernel", found.kernel.clone());
    for engine in &found.engines {
        let state = match (&engine.refused, engine.load_micros) {
            (Some(reason), _) => format!("refused: {reason}"),
            (None, Some(micros)) => {
                let millis = micros / 1000;
                let count = engine.programs.len();
                format!("works; {count} programs loaded in {millis} ms")
            }
            (None, None) => "works".to_owned(),
        };
        line(engine.name, state);
        for program in &engine.programs {
            let walked = match program.verified_instructions {
                Some(count) => format!("{count:>7} verified instructions"),
                None => "  loads".to_owned(),
            };
            line("", format!("{:<16} {walked}", program.name));
        }
    }
    for feature in &found.features {
        let there = if feature.there { "yes" } else { "no" };
        line(feature.name, format!("{there:<4} {}", feature.what_for));
    }
    for chain in &found.foreign_drops {
        line(
            "firewall",
            format!("{chain} drops forwarded packets that it does not accept: pods need a rule"),
        );
    }
    let engine = found.engine.unwrap_or("none");
    line("--datapath auto", format!("{engine}: {}", found.why));
    text
}
