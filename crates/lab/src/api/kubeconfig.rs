//! Reads the kubeconfigs that a lab writes.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;

#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("no kubeconfig at {path}: {source}; is the lab running? ripstop lab list")]
    Read { path: PathBuf, source: io::Error },
    #[error("kubeconfig {path}: {what}")]
    Content { path: PathBuf, what: String },
}

/// Where the API is and how to prove who we are.
pub(super) struct Access {
    pub(super) url: String,
    pub(super) address: SocketAddr,
    pub(super) tls: ClientConfig,
}

/// The part of `clientcmd.k8s.io` that a lab writes: one cluster, one user.
#[derive(Deserialize)]
struct Kubeconfig {
    clusters: Vec<NamedCluster>,
    users: Vec<NamedUser>,
}

#[derive(Deserialize)]
struct NamedCluster {
    cluster: Cluster,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority_data: String,
}

#[derive(Deserialize)]
struct NamedUser {
    user: User,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate_data: String,
    client_key_data: String,
}

impl Access {
    pub(super) fn read(path: &Path) -> Result<Self, KubeconfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| KubeconfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::parse(&text).map_err(|what| KubeconfigError::Content {
            path: path.to_owned(),
            what,
        })
    }

    fn parse(text: &str) -> Result<Self, String> {
        let config: Kubeconfig = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        let (Some(cluster), Some(user)) = (config.clusters.first(), config.users.first()) else {
            return Err("expected a cluster and a user".to_owned());
        };
        let (cluster, user) = (&cluster.cluster, &user.user);
        let address = cluster
            .server
            .strip_prefix("https://")
            .and_then(|address| address.parse().ok())
            .ok_or_else(|| format!("server {:?}: expected https://IP:PORT", cluster.server))?;
        Ok(Self {
            url: cluster.server.clone(),
            address,
            tls: tls(cluster, user)?,
        })
    }
}

fn tls(cluster: &Cluster, user: &User) -> Result<ClientConfig, String> {
    let pem = |name: &str, data: &str| {
        BASE64_STANDARD
            .decode(data)
            .map_err(|error| format!("{name}: {error}"))
    };
    let certificate = |name: &str, data: &str| {
        CertificateDer::from_pem_slice(&pem(name, data)?).map_err(|e| format!("{name}: {e}"))
    };
    let mut roots = RootCertStore::empty();
    let name = "certificate-authority-data";
    roots
        .add(certificate(name, &cluster.certificate_authority_data)?)
        .map_err(|error| format!("{name}: {error}"))?;
    let key = pem("client-key-data", &user.client_key_data)?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|e| format!("client-key-data: {e}"))?;
    let own = certificate("client-certificate-data", &user.client_certificate_data)?;
    let mut config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![own], key)
            .map_err(|error| format!("client-certificate-data: {error}"))?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ripstop_apiserver::pki::Pki;

    #[test]
    fn what_a_lab_writes_is_understood() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &["127.0.0.1".to_owned()]).unwrap();
        let text = pki.kubeconfig("ripstop-x", "https://127.0.0.1:6443");
        let access = Access::parse(&text).unwrap();
        assert_eq!(access.url, "https://127.0.0.1:6443");
        assert_eq!(access.address.port(), 6443);
    }

    #[test]
    fn mistakes_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let pki = Pki::open(dir.path(), &[]).unwrap();
        let text = pki.kubeconfig("x", "http://example");
        let error = Access::parse(&text).err().unwrap();
        assert!(error.contains("expected https://IP:PORT"), "{error}");
        let missing = Access::read(Path::new("/nonexistent/kubeconfig"))
            .err()
            .unwrap();
        assert!(missing.to_string().contains("is the lab running?"));
    }
}
