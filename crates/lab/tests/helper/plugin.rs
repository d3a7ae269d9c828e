//! A CNI plugin of the simplest kind. It keeps its state in a directory, where
//! tests look at it and put a file `refuse` with a reason to fail.

use std::fs::{self, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use ipnet::IpNet;
use ripstop_netlink::Netlink;
use ripstop_netlink::address;
use ripstop_netlink::link::{self, VethEnd};
use ripstop_netlink::netns::Netns;
use ripstop_netlink::route::Route;
use serde_json::{Value, json};

/// The node's address on every link to a pod.
const GATEWAYS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 1, 1)),
    IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
];

type Error = Box<dyn std::error::Error>;

pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(result) => {
            println!("{result}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!(
                "{}",
                json!({"cniVersion": "1.1.0", "code": 11, "msg": error.to_string()})
            );
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<Value, Error> {
    let config: Value = serde_json::from_reader(io::stdin())?;
    let state = PathBuf::from(config["state"].as_str().ok_or("no state")?);
    let id = std::env::var("CNI_CONTAINERID").unwrap_or_default();
    match std::env::var("CNI_COMMAND")?.as_str() {
        "ADD" => add(&config, &state, &id),
        "DEL" => {
            release(&state, |holder| holder == id)?;
            Ok(Value::Null)
        }
        "STATUS" => refuse(&state).map(|()| Value::Null),
        "GC" => {
            let valid: Vec<&str> = config["cni.dev/valid-attachments"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|attachment| attachment["containerID"].as_str())
                .collect();
            release(&state, |holder| !valid.contains(&holder))?;
            Ok(Value::Null)
        }
        "CHECK" => Ok(Value::Null),
        other => Err(format!("what is {other}?").into()),
    }
}

fn refuse(state: &Path) -> Result<(), Error> {
    match fs::read_to_string(state.join("refuse")) {
        Ok(reason) => Err(reason.into()),
        Err(_) => Ok(()),
    }
}

fn add(config: &Value, state: &Path, id: &str) -> Result<Value, Error> {
    refuse(state)?;
    fs::write(state.join("config.json"), config.to_string())?;
    let number = take_number(state, id)?;
    let ips: [IpNet; 2] = [
        IpNet::new(Ipv4Addr::new(10, 99, 1, number).into(), 32)?,
        IpNet::new(
            Ipv6Addr::new(0xfd99, 0, 0, 1, 0, 0, 0, number.into()).into(),
            128,
        )?,
    ];
    let node = Netns::open(config["node"].as_str().ok_or("no node")?)?;
    let path = std::env::var("CNI_NETNS")?;
    let pod = Netns::open(&path)?;
    let (mut in_node, mut in_pod) = (Netlink::in_netns(&node)?, Netlink::in_netns(&pod)?);
    let name = format!("t{number}");
    let [here, there] = [
        VethEnd {
            name: &name,
            mac: None,
            netns: None,
        },
        VethEnd {
            name: "eth0",
            mac: None,
            netns: Some(std::os::fd::AsFd::as_fd(&pod)),
        },
    ];
    in_node.execute([link::create_veth(&here, &there, 1500)])?;
    let missing = || io::Error::from(io::ErrorKind::NotFound);
    let here = in_node.link(&name)?.ok_or_else(missing)?.index;
    let there = in_pod.link("eth0")?.ok_or_else(missing)?.index;
    in_node.execute([link::up(here)])?;
    in_pod.execute([link::up(there)])?;
    for (ip, gateway) in ips.iter().zip(GATEWAYS) {
        in_node.execute([
            address::add(here, host(gateway)),
            Route::new(*ip, here).add(),
        ])?;
        let default = IpNet::new(
            if gateway.is_ipv4() {
                Ipv4Addr::UNSPECIFIED.into()
            } else {
                Ipv6Addr::UNSPECIFIED.into()
            },
            0,
        )?;
        in_pod.execute([
            address::add(there, *ip),
            Route::new(default, there).via(gateway).onlink().add(),
        ])?;
    }
    Ok(json!({
        "cniVersion": "1.1.0",
        "interfaces": [{"name": "eth0", "sandbox": path}],
        "ips": ips.map(|ip| json!({"address": ip, "interface": 0})),
    }))
}

fn host(address: IpAddr) -> IpNet {
    IpNet::from(address)
}

/// The lowest number that nobody has.
fn take_number(state: &Path, id: &str) -> Result<u8, Error> {
    for number in 2..=250 {
        match File::create_new(state.join(number.to_string())) {
            Ok(mut file) => {
                io::Write::write_all(&mut file, id.as_bytes())?;
                return Ok(number);
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err("no address left".into())
}

fn release(state: &Path, whose: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs::read_dir(state)?.flatten() {
        let is_number = entry.file_name().to_string_lossy().parse::<u8>().is_ok();
        if is_number && whose(&fs::read_to_string(entry.path())?) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
