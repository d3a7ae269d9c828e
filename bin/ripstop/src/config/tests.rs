//! What files mean, and what is said of those that mean nothing.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args as _, Command, FromArgMatches as _};

use super::*;

const CLUSTER: &str = "clusterDns: [10.96.0.10]\nclusterCidr: 10.244.0.0/16\n\
                       serviceCidr: [10.96.0.0/16]\n";

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.yaml");
    std::fs::write(&path, text).unwrap();
    (dir, path)
}

/// The arguments of an agent with this file and these flags.
fn agent(text: &str, flags: &[&str]) -> Result<agent::Args, String> {
    let (_dir, path) = written(text);
    let line = ["ripstop", "agent", "--node-name", "n1", "--config"];
    let line = line.iter().copied().chain([path.to_str().unwrap()]);
    let line = line.chain(flags.iter().copied()).map(OsString::from);
    let shown =
        |error: &dyn std::fmt::Display| error.to_string().replace(path.to_str().unwrap(), "FILE");
    let line = expand(line.collect()).map_err(|error| shown(&error))?;
    let command = agent::Args::augment_args(Command::new("agent"));
    let matches = command.try_get_matches_from(&line[1..]);
    let matches = matches.map_err(|error| shown(&error))?;
    agent::Args::from_arg_matches(&matches).map_err(|error| shown(&error))
}

#[test]
fn a_file_is_as_good_as_flags() {
    let text = format!(
        "{CLUSTER}# a comment\ndnsTtl: 30\ndnsExpandSearch: true\ndatapath: nftables\n\
         upstreamDns: [192.0.2.1, \"tls://192.0.2.2#dns.example\"]\nkubeconfig: null\n\
         nodeportAddresses: [primary, 192.0.2.0/24]\n"
    );
    let from_file = agent(&text, &[]).unwrap();
    let flags = [
        "--cluster-dns=10.96.0.10",
        "--cluster-cidr=10.244.0.0/16",
        "--service-cidr=10.96.0.0/16",
        "--dns-ttl=30",
        "--dns-expand-search",
        "--datapath=nftables",
        "--upstream-dns=192.0.2.1",
        "--upstream-dns=tls://192.0.2.2#dns.example",
        "--nodeport-addresses=primary,192.0.2.0/24",
    ];
    let mut from_flags = agent("# nothing\n", &flags).unwrap();
    assert_ne!(from_file.config, from_flags.config);
    from_flags.config.clone_from(&from_file.config);
    assert_eq!(format!("{from_file:?}"), format!("{from_flags:?}"));
}

#[test]
fn flags_override_the_file() {
    let flags = ["--dns-ttl=7", "--cluster-dns=10.96.0.11"];
    let args = agent(&format!("{CLUSTER}dnsTtl: 30\nnodeName: n2\n"), &flags).unwrap();
    assert_eq!(args.dns_ttl, 7);
    assert_eq!(args.cluster_dns.len(), 1);
    assert_eq!(args.cluster_dns[0].to_string(), "10.96.0.11");
    assert_eq!(args.node_name, "n1");
}

#[test]
fn what_means_nothing_is_said_with_what_would() {
    for (text, expected) in [
        (
            "clusterDNS: [10.96.0.10]\n",
            "configuration FILE, line 1: there is no setting clusterDNS; did you mean clusterDns?",
        ),
        (
            "dnsTtl: 5\nreplicas: 3\n",
            "configuration FILE, line 2: there is no setting replicas; \
             `ripstop config default` lists all settings",
        ),
        (
            "\ndnsTtl: 4000\n",
            "configuration FILE, line 2: dnsTtl: \"4000\" is no value for it: \
             4000 is not in 0..=3600",
        ),
        (
            "datapath: iptables\n",
            "configuration FILE, line 1: datapath: \"iptables\" is no value for it: \
             right would be: auto, ebpf, nftables",
        ),
        (
            "clusterCidr: [10.244.0.0]\n",
            "configuration FILE, line 1: clusterCidr: \"10.244.0.0\" is no value for it: \
             invalid IP address syntax",
        ),
        (
            "dnsExpandSearch: 1\n",
            "configuration FILE, line 1: dnsExpandSearch is true or false",
        ),
        (
            "dnsTtl: [1, 2]\n",
            "configuration FILE, line 1: dnsTtl has one value, not a list",
        ),
        (
            "clusterDns: {v4: 10.96.0.10}\n",
            "configuration FILE, line 1: clusterDns has no settings below it",
        ),
        (
            "config: other.yaml\n",
            "configuration FILE, line 1: there is no setting config; \
             `ripstop config default` lists all settings",
        ),
    ] {
        assert_eq!(agent(text, &[]).unwrap_err(), expected);
    }
    let error = agent("dnsTtl: 5\ndnsTtl: 6\n", &[]).unwrap_err();
    assert!(error.contains("duplicate"), "{error}");
    let line = ["ripstop", "agent", "--config=/nowhere/agent.yaml"];
    let error = expand(line.map(OsString::from).to_vec()).unwrap_err();
    assert!(error.to_string().contains("/nowhere/agent.yaml"), "{error}");
    let line = ["ripstop", "status", "--config=/nowhere/agent.yaml"];
    let other = line.map(OsString::from).to_vec();
    assert_eq!(
        expand(other.clone()).unwrap(),
        other,
        "only the agent has one"
    );
}

#[test]
fn the_file_of_defaults_changes_nothing() {
    let text = template::all(&settings());
    for setting in settings() {
        let line = format!("\n{}: ", setting.key);
        let required = format!("\n# {}: ", setting.key);
        assert!(text.contains(&line) || text.contains(&required), "{text}");
    }
    let flags = [
        "--cluster-dns=10.96.0.10",
        "--cluster-cidr=10.244.0.0/16",
        "--service-cidr=10.96.0.0/16",
    ];
    let mut with = agent(&text, &flags).unwrap();
    let without = agent("", &flags).unwrap();
    with.config.clone_from(&without.config);
    assert_eq!(format!("{with:?}"), format!("{without:?}"));
}

#[test]
fn a_file_is_checked_as_the_agent_would() {
    let (_dir, path) = written(CLUSTER);
    check(&path).unwrap();
    let (_dir, path) = written(&CLUSTER.replace("10.96.0.10", "10.97.0.10"));
    let error = check(&path).unwrap_err();
    assert!(
        format!("{error:#}").contains("is in no --service-cidr"),
        "{error:#}"
    );
    let (_dir, path) = written("dnsTtl: 5\n");
    let error = check(&path).unwrap_err();
    assert!(format!("{error:#}").contains("--cluster-dns"), "{error:#}");
}
