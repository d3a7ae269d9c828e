//! The file that clients find a server and their credentials in.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

/// A kubeconfig with everything inside. It is JSON, which is YAML too.
/// Certificates and key are PEM.
pub fn kubeconfig(cluster: &str, url: &str, ca: &str, certificate: &str, key: &str) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": cluster,
        "clusters": [{
            "name": cluster,
            "cluster": { "server": url, "certificate-authority-data": STANDARD.encode(ca) },
        }],
        "contexts": [{ "name": cluster, "context": { "cluster": cluster, "user": cluster } }],
        "users": [{
            "name": cluster,
            "user": {
                "client-certificate-data": STANDARD.encode(certificate),
                "client-key-data": STANDARD.encode(key),
            },
        }],
    });
    format!("{config:#}\n")
}
