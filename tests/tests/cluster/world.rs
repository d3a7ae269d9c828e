//! A server on each node, which says who it is and who asks, and their services.

use ripstop_tests::{Cluster, Printed};
use serde_json::Value;

use crate::strings;

/// Who is asked says its name and the asker's address.
const SERVER: &str = r#"
mkdir -p /tmp/site/cgi-bin
cat > /tmp/site/cgi-bin/index.cgi <<'CGI'
#!/bin/sh
printf 'Content-Type: text/plain\r\n\r\n'
echo "$HOSTNAME $REMOTE_ADDR"
CGI
chmod +x /tmp/site/cgi-bin/index.cgi
exec httpd -f -p '[::]:8080' -h /tmp/site
"#;

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// One on each node.
    pub(crate) pods: Vec<Pod>,
    /// One more, which is behind no service.
    pub(crate) asker: Pod,
}

pub(crate) struct Pod {
    pub(crate) name: String,
    pub(crate) addresses: Vec<String>,
}

pub(crate) fn url(address: &str, port: u16) -> String {
    match address.contains(':') {
        true => format!("http://[{address}]:{port}/"),
        false => format!("http://{address}:{port}/"),
    }
}

impl World {
    /// `None` where no cluster is to be tested.
    pub(crate) fn up() -> Option<Self> {
        let cluster = Cluster::find()?;
        cluster.apply(&manifest(&Cluster::image()));
        cluster.kubectl(&[
            "rollout",
            "status",
            "daemonset/everywhere",
            "--timeout=180s",
        ]);
        let pods = cluster.get(&["pods", "-l", "app=everywhere"]);
        let pods = pods["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(Pod::of)
            .collect();
        cluster.kubectl(&[
            "wait",
            "pod/asker",
            "--for=condition=Ready",
            "--timeout=180s",
        ]);
        let asker = Pod::of(&cluster.get(&["pod", "asker"]));
        Some(Self {
            cluster,
            pods,
            asker,
        })
    }

    pub(crate) fn clients(&self) -> impl Iterator<Item = &Pod> {
        self.pods.iter().chain([&self.asker])
    }

    pub(crate) fn ask(&self, client: &Pod, url: &str) -> Printed {
        self.cluster.sh(&client.name, &wget(url))
    }

    /// As [`World::ask`], until there is an answer.
    pub(crate) fn must_ask(&self, client: &Pod, url: &str) -> String {
        let what = format!("{} asks {url}", client.name);
        self.cluster.eventually(&what, || {
            let said = self.ask(client, url);
            if said.ok {
                Ok(said.stdout)
            } else {
                Err(said.stderr)
            }
        })
    }

    /// One answer a line, and nothing for a question that has none.
    pub(crate) fn ask_often(&self, client: &Pod, url: &str, times: usize) -> String {
        let line = format!("for i in $(seq {times}); do {}; done; true", wget(url));
        self.cluster.sh(&client.name, &line).stdout
    }

    pub(crate) fn node_addresses(&self) -> Vec<String> {
        let nodes = self.cluster.get(&["nodes"]);
        let nodes = nodes["items"].as_array().unwrap().iter();
        nodes
            .flat_map(|node| node["status"]["addresses"].as_array().unwrap())
            .filter(|address| address["type"] == "InternalIP")
            .map(|address| address["address"].as_str().unwrap().to_owned())
            .collect()
    }
}

impl Pod {
    fn of(object: &Value) -> Self {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let addresses = object["status"]["podIPs"].as_array().unwrap();
        let addresses = addresses.iter().map(|ip| ip["ip"].clone()).collect();
        let addresses = strings(&Value::Array(addresses)).collect();
        Self { name, addresses }
    }
}

/// busybox's and GNU's understand it.
fn wget(url: &str) -> String {
    format!("timeout 5 wget -q -t 1 -T 3 -O - '{url}cgi-bin/index.cgi'")
}

fn manifest(image: &str) -> String {
    let spec = |indent: &str| {
        let server = SERVER.replace('\n', &format!("\n{indent}    "));
        format!(
            "terminationGracePeriodSeconds: 0
{indent}containers:
{indent}- name: main
{indent}  image: {image}
{indent}  command:
{indent}  - sh
{indent}  - -c
{indent}  - |{server}
{indent}  ports: [{{containerPort: 8080}}]
{indent}  readinessProbe: {{tcpSocket: {{port: 8080}}, periodSeconds: 1}}"
        )
    };
    let (template, pod) = (spec("      "), spec("  "));
    format!(
        "
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: everywhere}}
spec:
  selector: {{matchLabels: {{app: everywhere}}}}
  template:
    metadata: {{labels: {{app: everywhere}}}}
    spec:
      {template}
---
apiVersion: v1
kind: Pod
metadata: {{name: asker}}
spec:
  {pod}
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  type: NodePort
  ipFamilyPolicy: PreferDualStack
  selector: {{app: everywhere}}
  ports: [{{port: 80, targetPort: 8080}}]
---
apiVersion: v1
kind: Service
metadata: {{name: headless}}
spec:
  clusterIP: None
  ipFamilyPolicy: PreferDualStack
  selector: {{app: everywhere}}
  ports: [{{port: 8080}}]
"
    )
}
