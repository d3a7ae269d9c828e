//! The plugin under the name `loopback`, as containerd 1.x runs it.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;
use serde_json::{Value, json};

/// Runs it, with no agent anywhere; its exit status and what it printed.
fn call(program: &Path, command: &str, netns: &str, config: &Value) -> (bool, Value) {
    let mut plugin = Command::new(program)
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "lo")
        .env("CNI_PATH", "/opt/cni/bin")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = plugin.stdin.take().unwrap();
    stdin.write_all(config.to_string().as_bytes()).unwrap();
    drop(stdin);
    let output = plugin.wait_with_output().unwrap();
    let printed = match output.stdout.as_slice() {
        [] => Value::Null,
        text => serde_json::from_slice(text).unwrap(),
    };
    (output.status.success(), printed)
}

#[test]
fn takes_lo_up_without_an_agent() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("loopback");
    symlink(env!("CARGO_BIN_EXE_ripstop-cni"), &program).unwrap();
    let name = format!("cni-lo-{}", std::process::id());
    let netns = Netns::create(&name).unwrap();
    let path = netns.path().to_str().unwrap();
    let lo_is_up = || {
        let mut inside = Netlink::in_netns(&netns).unwrap();
        inside.link("lo").unwrap().unwrap().up
    };
    let config = |version: &str| json!({"cniVersion": version, "name": "lo", "type": "loopback"});

    let (well, error) = call(&program, "CHECK", path, &config("1.0.0"));
    assert!(
        !well && error["msg"].to_string().contains("not up"),
        "{error}"
    );
    for (version, has_family) in [("0.3.1", true), ("1.0.0", false), ("1.1.0", false)] {
        let (well, result) = call(&program, "ADD", path, &config(version));
        assert!(well, "{result}");
        assert_eq!(result["cniVersion"], version);
        assert_eq!(result["interfaces"][0]["sandbox"], path);
        assert_eq!(result["ips"][1]["address"], "::1/128");
        assert_eq!(result["ips"][1].get("version").is_some(), has_family);
    }
    assert!(lo_is_up());
    assert_eq!(
        call(&program, "CHECK", path, &config("1.0.0")),
        (true, Value::Null)
    );
    // In a list with others before it: their result goes on.
    let mut chained = config("1.0.0");
    chained["prevResult"] = json!({"cniVersion": "1.0.0", "ips": [{"address": "192.0.2.1/24"}]});
    let (well, result) = call(&program, "ADD", path, &chained);
    assert!(well && result == chained["prevResult"], "{result}");

    Netns::remove(&name).unwrap();
    let (well, error) = call(&program, "ADD", path, &config("1.0.0"));
    assert!(!well && error["code"] == 4, "{error}");
    // A runtime that has lost the namespace says DEL all the same.
    assert_eq!(
        call(&program, "DEL", path, &config("1.0.0")),
        (true, Value::Null)
    );
    let (well, versions) = call(&program, "VERSION", "", &json!({"cniVersion": "1.0.0"}));
    assert!(
        well && versions["supportedVersions"].is_array(),
        "{versions}"
    );
}
