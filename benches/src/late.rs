//! Connections out of the cluster, to one server that ends them first: how many begin
//! late, as the server still remembers another one by that name.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::lab::Lab;
use crate::load;
use crate::report::{Report, Row};
use crate::rig::{PORT, Server};

const CLIENTS: u32 = 10;
/// Connections of each, a second.
const RATE: u32 = 40;
/// As long as a server remembers (`TCP_TIMEWAIT_LEN`).
const TIME: Duration = Duration::from_secs(60);
/// A first packet that is not answered comes again after a second (RFC 6298, 2.1).
const LATE: Duration = Duration::from_millis(500);
/// Of the machine that is not of the cluster.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(172, 31, 0, 2);

/// What the connections of one or several clients were.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Paced {
    done: u32,
    late: u32,
    failed: u32,
    worst_ms: u128,
}

pub(crate) fn measure(binaries: &Path, report: &mut Report) -> Result<()> {
    for engine in ["ebpf", "nftables"] {
        report.progress(&format!("late: {engine}"));
        let paced = of(binaries, engine)?;
        let asked = CLIENTS * RATE * TIME.as_secs() as u32;
        ensure!(paced.done > asked / 2, "{paced:?} of {asked}: too slow");
        let Paced {
            done,
            late,
            failed,
            worst_ms,
        } = paced;
        report.add(Row {
            what: format!(
                "{engine}: connections of {CLIENTS} pods to one server outside, which ends them, \
                 {} a second",
                CLIENTS * RATE
            ),
            ours: format!("{late} late, {failed} failed of {done}; the slowest {worst_ms} ms"),
            peer: String::new(),
            ratio: None,
            goal: "0 late".to_owned(),
        });
    }
    Ok(())
}

fn of(binaries: &Path, engine: &str) -> Result<Paced> {
    let bench = std::env::current_exe()?;
    let bench = bench.to_str().context("path of the benchmark")?;
    let pod = |n| {
        format!(
            "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: client{n}}}\n\
             spec:\n  containers:\n  - name: main\n    image: bench\n    command: [sleep, \"3600\"]\n"
        )
    };
    let mut file = tempfile::NamedTempFile::with_suffix(".yaml")?;
    file.write_all((0..CLIENTS).map(pod).collect::<String>().as_bytes())?;
    let file = file.path().to_str().context("temporary path")?;
    let args = ["--nodes", "1", "--datapath", engine, "-f", file];
    let lab = Lab::up(binaries, "late", &args)?;
    let any = format!("0.0.0.0:{PORT}");
    let serve = ["--outside", "--", bench, "load-serve", &any];
    let _server = Server(lab.spawn("exec", &serve)?);
    let target = format!("{OUTSIDE}:{PORT}");
    let run = |n: u32| {
        let pod = format!("client{n}");
        let said = lab.run("exec", &[&pod, "--", bench, "load-paced", &target])?;
        Ok(serde_json::from_str::<Paced>(&said)?)
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|n| scope.spawn(move || run(n))).collect();
        let mut all = Paced::default();
        for client in clients {
            let one: Result<Paced> = client.join().expect("no client panics");
            let one = one?;
            all.done += one.done;
            all.late += one.late;
            all.failed += one.failed;
            all.worst_ms = all.worst_ms.max(one.worst_ms);
        }
        Ok(all)
    })
}

/// One client: a connection after the other, so many a second.
pub(crate) fn run(target: SocketAddr) -> Result<()> {
    load::wait_until_served(target)?;
    let mut paced = Paced::default();
    let start = Instant::now();
    for number in 0..RATE * TIME.as_secs() as u32 {
        let due = start + Duration::from_secs(1) / RATE * number;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if start.elapsed() > TIME {
            break;
        }
        let began = Instant::now();
        match load::once(target) {
            Ok(()) => paced.done += 1,
            Err(_) => paced.failed += 1,
        }
        let took = began.elapsed();
        paced.late += u32::from(took >= LATE);
        paced.worst_ms = paced.worst_ms.max(took.as_millis());
    }
    println!("{}", serde_json::to_string(&paced)?);
    Ok(())
}
