//! What was acknowledged survives `kill -9`, whenever it comes.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::ConfigMap;
use ripstop_apiserver::{Client, OpenError, Store};
use serde_json::json;

/// Set for the process that is killed: where its journal is.
const JOURNAL: &str = "RIPSTOP_TEST_JOURNAL";

fn config_map(name: &str) -> ConfigMap {
    let object = json!({
        "metadata": { "name": name, "namespace": "default" },
        "data": { "k": "x".repeat(500) },
    });
    serde_json::from_value(object).unwrap()
}

/// Not a test of its own: writes for ever, and says what has been acknowledged.
#[test]
fn writer() {
    let Some(path) = std::env::var_os(JOURNAL) else {
        return;
    };
    let client = Store::open(Some(Path::new(&path))).unwrap().client();
    for round in client.list::<ConfigMap>(None).len().. {
        client.create(&config_map(&format!("c{round}"))).unwrap();
        println!("written c{round}");
    }
}

fn start(journal: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "writer", "--nocapture"])
        .env(JOURNAL, journal)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn there(client: &Client, name: &str) -> bool {
    client.get::<ConfigMap>(Some("default"), name).is_some()
}

#[test]
fn acknowledged_writes_survive() {
    let dir = tempfile::tempdir().unwrap();
    let journal = dir.path().join("journal");
    let mut acknowledged = Vec::new();
    // Killed after different numbers of writes, each run on the file of the last.
    for writes in [1, 7, 60, 200] {
        let mut child = start(&journal);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let before = acknowledged.len();
        while acknowledged.len() < before + writes {
            let line = lines.next().expect("the writer goes on").unwrap();
            if let Some((_, name)) = line.split_once("written ") {
                acknowledged.push(name.to_owned());
            }
        }
        let in_use = Store::open(Some(&journal)).unwrap_err();
        assert!(matches!(in_use, OpenError::InUse { .. }), "{in_use}");
        child.kill().unwrap();
        child.wait().unwrap();
        let client = Store::open(Some(&journal)).unwrap().client();
        for name in &acknowledged {
            assert!(there(&client, name), "{name} was acknowledged");
        }
    }
}
