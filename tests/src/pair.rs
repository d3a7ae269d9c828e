//! The smallest cluster with everything on the way.

use crate::{Lab, write_manifest};

/// `client` and `near` on the first node, `far` on the second; a service `web`
/// with both servers, also at the nodes' port 30080, and `nobody` with none.
pub const PAIR: &str = "
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: node1
  containers: [{name: main, image: client}]
---
apiVersion: v1
kind: Pod
metadata: {name: near, labels: {app: web}}
spec:
  nodeName: node1
  containers:
  - name: main
    image: web
    ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, labels: {app: web}}
spec:
  nodeName: node2
  containers:
  - name: main
    image: web
    ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  selector: {app: web}
  ports:
  - {name: tcp, port: 80, nodePort: 30080}
  - {name: udp, port: 80, nodePort: 30080, protocol: UDP}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

impl Lab {
    /// Two nodes with [`PAIR`].
    pub fn pair() -> Self {
        let manifest = write_manifest(PAIR);
        Self::up(&["--nodes", "2", "-f", manifest.path().to_str().unwrap()])
    }
}
