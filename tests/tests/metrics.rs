//! What tools expect of a node: health and metrics at kube-proxy's ports.

use std::collections::BTreeMap;
use std::process::Command;

use ripstop_tests::{Lab, eventually, write_manifest};

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: main, image: web, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: far}
spec: {ports: [{port: 80}]}
";

/// As an endpoint slice controller writes it.
fn slice(changed: &str) -> String {
    format!(
        "
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: far-1
  labels: {{kubernetes.io/service-name: far}}
  annotations: {{endpoints.kubernetes.io/last-change-trigger-time: '{changed}'}}
addressType: IPv4
ports: [{{port: 80, protocol: TCP}}]
endpoints: [{{addresses: [192.0.2.7]}}]
"
    )
}

/// Samples by name and labels; each has a type and is said once.
fn samples(page: &str) -> BTreeMap<String, f64> {
    let mut found = BTreeMap::new();
    let mut typed = Vec::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# ") {
            if let Some((name, _)) = rest.strip_prefix("TYPE ").and_then(|t| t.split_once(' ')) {
                typed.push(name.to_owned());
            }
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').unwrap();
        let name = sample.split('{').next().unwrap();
        assert!(typed.iter().any(|typed| name.starts_with(typed)), "{line}");
        let before = found.insert(sample.to_owned(), value.parse().unwrap());
        assert_eq!(before, None, "{line} twice");
    }
    found
}

#[test]
fn a_node_tells_what_tools_ask() {
    let manifest = write_manifest(WEB);
    let lab = Lab::up(&["--nodes", "1", "-f", manifest.path().to_str().unwrap()]);
    let ask = |url: &str| {
        let args = ["node/node1", "--", "curl", "-s", "-m", "5", url];
        lab.run("exec", &args).stdout
    };
    let engine = lab.agent("node1", &["status", "-o", "json"]).stdout;
    let engine: serde_json::Value = serde_json::from_str(&engine).unwrap();
    assert_eq!(
        ask("http://127.0.0.1:10249/proxyMode"),
        engine["datapath"]["mode"].as_str().unwrap()
    );
    assert_eq!(ask("http://127.0.0.1:10249/healthz"), "ok");
    for path in ["healthz", "livez"] {
        let health = ask(&format!("http://127.0.0.1:10256/{path}"));
        assert!(health.contains("\"nodeEligible\": true"), "{health}");
    }
    lab.exec("deploy/web", &["getent", "hosts", "web"]);
    let now = Command::new("date").args(["-u", "+%FT%T.%NZ"]).output();
    let now = String::from_utf8(now.unwrap().stdout).unwrap();
    let changed = write_manifest(&slice(now.trim()));
    lab.must("apply", &["-f", changed.path().to_str().unwrap()]);
    let metrics = eventually("the change is measured", || {
        let found = samples(&ask("http://127.0.0.1:10249/metrics"));
        (found["kubeproxy_network_programming_duration_seconds_count"] > 0.0).then_some(found)
    });
    for (sample, least) in [
        ("ripstop_api_up", 1.0),
        ("ripstop_synced", 1.0),
        ("ripstop_pods", 1.0),
        ("ripstop_services", 3.0),
        ("kubeproxy_sync_proxy_rules_duration_seconds_count", 1.0),
        ("kubeproxy_sync_proxy_rules_last_timestamp_seconds", 1e9),
        ("process_resident_memory_bytes", 1e6),
    ] {
        assert!(metrics[sample] >= least, "{sample} {}", metrics[sample]);
    }
    for start in [
        "ripstop_build_info{version=",
        "ripstop_ipam_addresses{range=",
        "ripstop_table_rows{table=",
        "ripstop_dns_questions_total{zone=\"cluster\",type=\"A\",rcode=\"NOERROR\"}",
        "ripstop_dns_client_questions_total{client=\"default/web-",
    ] {
        assert!(
            metrics.keys().any(|sample| sample.starts_with(start)),
            "{start} in {metrics:#?}"
        );
    }
    let status = engine["datapath"]["tables"].as_array().unwrap();
    for table in status {
        let name = table["name"].as_str().unwrap();
        let sample = format!("ripstop_table_rows{{table=\"{name}\"}}");
        assert!(metrics.contains_key(&sample), "{sample}");
    }
    assert_eq!(metrics["ripstop_degraded"], 0.0);
}
