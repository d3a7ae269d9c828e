//! `ripstop install --print`: what a cluster applies, and the chart that makes the
//! same. Both come from `ripstop.yaml` beside this file.

use std::net::IpAddr;

use anyhow::{Result, ensure};
use ipnet::IpNet;

use crate::agent;

const SOURCE: &str = include_str!("ripstop.yaml");
const CONTROLLER: &str = include_str!("controller.yaml");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What is different from cluster to cluster.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Cluster {
    /// Image with the two programs.
    #[arg(long, default_value = concat!("ripstop:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// The API server's URL: no service's address, as services need the agent.
    #[arg(long, value_name = "URL", required_if_eq("print", "true"))]
    api_server: Option<String>,
    /// Ranges of all pods, at most one per family.
    #[arg(long, value_delimiter = ',', default_value = "10.244.0.0/16")]
    cluster_cidr: Vec<IpNet>,
    /// Ranges of ClusterIPs, at most one per family.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.0/12")]
    service_cidr: Vec<IpNet>,
    /// Addresses at which pods ask for names, at most one per family.
    #[arg(long, value_delimiter = ',', default_value = "10.96.0.10")]
    cluster_dns: Vec<IpAddr>,
    #[arg(long, default_value = "cluster.local")]
    cluster_domain: String,
    /// Nobody else gives nodes their ranges: a controller does.
    #[arg(long)]
    allocate_node_cidrs: bool,
}

impl Cluster {
    /// # Errors
    /// If the cluster's DNS is at no service's address.
    pub(super) fn manifests(&self) -> Result<String> {
        for dns in &self.cluster_dns {
            let inside = self.service_cidr.iter().any(|range| range.contains(dns));
            ensure!(inside, "--cluster-dns {dns} is in no --service-cidr");
        }
        let first = self.cluster_dns.first().map(ToString::to_string);
        let joined: Vec<String> = self.cluster_cidr.iter().map(IpNet::to_string).collect();
        let value = |key: &str| match key {
            "version" => VERSION.to_owned(),
            "image" => self.image.clone(),
            "apiServer" => self.api_server.clone().unwrap_or_default(),
            "clusterCidr" => quoted(&self.cluster_cidr),
            "serviceCidr" => quoted(&self.service_cidr),
            "clusterDns" => quoted(&self.cluster_dns),
            "firstClusterDns" => format!("{:?}", first.clone().unwrap_or_default()),
            "joinedClusterCidr" => joined.join(","),
            "capabilities" => agent::capabilities(),
            _ => self.cluster_domain.clone(),
        };
        let mut text = fill(SOURCE, value);
        if self.allocate_node_cidrs {
            text.push_str(&fill(CONTROLLER, value));
        }
        Ok(text)
    }
}

/// As a YAML list, in helm's words.
fn quoted<T: ToString>(values: &[T]) -> String {
    let all: Vec<String> = values
        .iter()
        .map(|v| format!("{:?}", v.to_string()))
        .collect();
    format!("[{}]", all.join(","))
}

/// The source with each `@{key}` replaced.
fn fill(source: &str, value: impl Fn(&str) -> String) -> String {
    let mut parts = source.split("@{");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (key, rest) = part.split_once('}').unwrap_or((part, ""));
        text.push_str(&value(key));
        text.push_str(rest);
    }
    text
}

/// Files of the Helm chart, by their paths in it.
#[cfg(test)]
fn chart() -> Vec<(&'static str, String)> {
    let value = |key: &str| match key {
        "version" => "{{ .Chart.AppVersion }}".to_owned(),
        "image" => "{{ .Values.image | default (printf \"ripstop:%s\" .Chart.AppVersion) }}".into(),
        "apiServer" => "{{ required \"apiServer: the API server's URL, \
                        like https://192.0.2.1:6443\" .Values.apiServer }}"
            .to_owned(),
        "clusterCidr" | "serviceCidr" | "clusterDns" => {
            format!("{{{{ .Values.{key} | toJson }}}}")
        }
        "firstClusterDns" => "{{ first .Values.clusterDns | quote }}".to_owned(),
        "capabilities" => agent::capabilities(),
        "joinedClusterCidr" => "{{ join \",\" .Values.clusterCidr }}".to_owned(),
        key => format!("{{{{ .Values.{key} }}}}"),
    };
    let controller = fill(CONTROLLER, value);
    let template = format!(
        "{}{{{{- if .Values.allocateNodeCidrs }}}}\n{controller}{{{{- end }}}}\n",
        fill(SOURCE, value)
    );
    let about = format!(
        "apiVersion: v2\nname: ripstop\ndescription: The network of a Kubernetes cluster in one program\n\
         type: application\nversion: {VERSION}\nappVersion: \"{VERSION}\"\n"
    );
    let values = "# Image with the two programs; ripstop:VERSION without.\nimage: \"\"\n\n\
         # The API server's URL: no service's address, as services need the agent.\napiServer: \"\"\n\n\
         # At most one per family each.\nclusterCidr: [10.244.0.0/16]\nserviceCidr: [10.96.0.0/12]\n\
         clusterDns: [10.96.0.10]\n\nclusterDomain: cluster.local\n\n\
         # Nobody else gives nodes their ranges: a controller does.\nallocateNodeCidrs: false\n";
    vec![
        ("Chart.yaml", about),
        ("values.yaml", values.to_owned()),
        ("templates/ripstop.yaml", template),
    ]
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::{Args as _, Command, FromArgMatches as _};
    use serde_json::Value;

    use super::*;

    fn cluster(flags: &[&str]) -> Cluster {
        let command = Command::new("print").arg(clap::arg!(--print));
        let flags = [
            &["print", "--print", "--api-server=https://192.0.2.1:6443"],
            flags,
        ]
        .concat();
        let matches = Cluster::augment_args(command).try_get_matches_from(flags);
        Cluster::from_arg_matches(&matches.unwrap()).unwrap()
    }

    /// `deploy/` is what is printed; `RIPSTOP_UPDATE=1` writes it.
    #[test]
    fn deploy_is_what_is_printed() {
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        let plain = ("ripstop.yaml".to_owned(), cluster(&[]).manifests().unwrap());
        let controller = fill(CONTROLLER, |_| String::new());
        let all = cluster(&["--allocate-node-cidrs"]).manifests().unwrap();
        let last = controller.lines().last().unwrap();
        assert!(
            all.starts_with(&plain.1) && all.trim_end().ends_with(last),
            "{all}"
        );
        let chart = chart().into_iter();
        let chart = chart.map(|(name, text)| (format!("helm/ripstop/{name}"), text));
        for (name, text) in chart.chain([plain]) {
            let path = deploy.join(&name);
            if std::env::var_os("RIPSTOP_UPDATE").is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(&path, &text).unwrap();
            }
            let there = fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(there, text, "{name}: RIPSTOP_UPDATE=1 cargo test deploy_is");
        }
    }

    /// A value of the chart's template: the few words of helm's language that it is
    /// written in, and a panic for any other.
    fn evaluated(expression: &str, values: &Value) -> Value {
        let field = |path: &str| match path.trim().strip_prefix(".Values.") {
            Some(key) => values[key].clone(),
            None if path.trim() == ".Chart.AppVersion" => VERSION.into(),
            None => panic!("{path:?} in the chart"),
        };
        let mut parts = expression.split(" | ");
        let begin = parts.next().unwrap().trim();
        let mut value = match begin.split_once(' ') {
            None => field(begin),
            Some(("first", list)) => field(list)[0].clone(),
            Some(("join", rest)) => {
                let list = field(rest.strip_prefix("\",\"").unwrap());
                let list = list.as_array().unwrap().iter();
                let words: Vec<_> = list.map(|word| word.as_str().unwrap()).collect();
                words.join(",").into()
            }
            Some(("required", rest)) => {
                let value = field(rest.rsplit_once(' ').unwrap().1);
                assert_ne!(value, "", "{rest}");
                value
            }
            Some(_) => panic!("{begin:?} in the chart"),
        };
        for filter in parts {
            value = match filter.trim() {
                "quote" | "toJson" => value.to_string().into(),
                r#"default (printf "ripstop:%s" .Chart.AppVersion)"# if value == "" => {
                    format!("ripstop:{VERSION}").into()
                }
                filter if filter.starts_with("default ") => value,
                filter => panic!("{filter:?} in the chart"),
            };
        }
        value
    }

    /// The chart's template with those values.
    fn rendered(values: &Value) -> String {
        let chart = chart();
        let template = &chart.iter().find(|(name, _)| name.contains("templates/"));
        let mut parts = template.unwrap().1.split("{{");
        let mut text = parts.next().unwrap().to_owned();
        let mut shown = true;
        for part in parts {
            let (action, rest) = part.split_once("}}").unwrap();
            let trimmed = action.strip_prefix('-');
            if trimmed.is_some() {
                text.truncate(text.trim_end().len());
            }
            let action = trimmed.unwrap_or(action).trim();
            match action.strip_prefix("if ") {
                Some(condition) => shown = evaluated(condition, values) == true,
                None if action == "end" => shown = true,
                None if shown => match evaluated(action, values) {
                    Value::String(word) => text.push_str(&word),
                    other => text.push_str(&other.to_string()),
                },
                None => {}
            }
            if shown {
                text.push_str(rest);
            }
        }
        text
    }

    #[test]
    fn the_chart_makes_what_is_printed() {
        let parsed = |text: &str| serde_saphyr::from_multiple::<Value>(text).unwrap();
        let values = chart().into_iter().find(|(name, _)| *name == "values.yaml");
        let mut values: Value = serde_saphyr::from_str(&values.unwrap().1).unwrap();
        values["apiServer"] = "https://192.0.2.1:6443".into();
        let printed = cluster(&[]).manifests().unwrap();
        assert_eq!(parsed(&rendered(&values)), parsed(&printed));

        values["image"] = "example/ripstop:2".into();
        values["clusterCidr"] = serde_json::json!(["10.32.0.0/16", "fd00:32::/48"]);
        values["clusterDomain"] = "example.cluster".into();
        values["allocateNodeCidrs"] = true.into();
        let printed = cluster(&[
            "--image=example/ripstop:2",
            "--cluster-cidr=10.32.0.0/16,fd00:32::/48",
            "--cluster-domain=example.cluster",
            "--allocate-node-cidrs",
        ]);
        let printed = printed.manifests().unwrap();
        assert_eq!(parsed(&rendered(&values)), parsed(&printed));
    }

    #[test]
    fn the_agent_takes_its_configuration() {
        let flags = [
            "--cluster-cidr=10.32.0.0/16,fd00:32::/48",
            "--service-cidr=10.112.0.0/16,fd00:112::/112",
            "--cluster-dns=10.112.0.10,fd00:112::a",
            "--cluster-domain=example.cluster",
        ];
        let text = cluster(&flags).manifests().unwrap();
        assert!(!text.contains("@{"), "{text}");
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let map = objects.iter().find(|o| o["kind"] == "ConfigMap").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.yaml");
        fs::write(&path, map["data"]["agent.yaml"].as_str().unwrap()).unwrap();
        crate::config::check(&path).unwrap();
        let service = objects.iter().find(|o| o["kind"] == "Service").unwrap();
        assert_eq!(service["spec"]["clusterIP"], "10.112.0.10");
        let wrong = cluster(&["--cluster-dns=10.0.0.10"]).manifests();
        let said = wrong.unwrap_err().to_string();
        assert_eq!(said, "--cluster-dns 10.0.0.10 is in no --service-cidr");
    }
}
