//! Certificates of one cluster: an authority, the server's and an
//! administrator's. Made once and kept, so that a kubeconfig outlives restarts.

mod kubeconfig;
mod make;

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

pub use kubeconfig::kubeconfig;
use make::Pair;

/// Why certificates cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    #[error("cannot use {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("cannot make a certificate: {0}")]
    Make(#[from] rcgen::Error),
    #[error("cannot read the PEM of {what}: {source}")]
    Pem {
        what: &'static str,
        source: rustls::pki_types::pem::Error,
    },
    #[error("cannot use the certificates for TLS: {0}")]
    Tls(String),
}

/// The certificates and keys, as PEM.
#[derive(Clone)]
pub struct Pki {
    ca: String,
    server: Pair,
    client: Pair,
    token: String,
}

impl std::fmt::Debug for Pki {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pki(keys not shown)")
    }
}

impl Pki {
    /// Reads what is in `dir` and makes what is missing. The server's
    /// certificate is valid for `names` (DNS names and IP addresses) and is made
    /// again when they are others than before.
    pub fn open(dir: &Path, names: &[String]) -> Result<Self, PkiError> {
        fs::create_dir_all(dir).map_err(|source| PkiError::File {
            path: dir.to_owned(),
            source,
        })?;
        let ca = match (read(dir, "ca.crt")?, read(dir, "ca.key")?) {
            (Some(certificate), Some(key)) => Pair { certificate, key },
            _ => {
                // Certificates of an earlier authority are worth nothing.
                for leaf in ["server.crt", "client.crt"] {
                    remove(dir, leaf)?;
                }
                keep(dir, "ca", make::authority()?)?
            }
        };
        let wanted = names.join("\n");
        if read(dir, "server.names")?.as_ref() != Some(&wanted) {
            remove(dir, "server.crt")?;
            write(dir, "server.names", &wanted)?;
        }
        let leaf = |name: &str, make: &dyn Fn() -> Result<Pair, rcgen::Error>| match (
            read(dir, &format!("{name}.crt"))?,
            read(dir, &format!("{name}.key"))?,
        ) {
            (Some(certificate), Some(key)) => Ok(Pair { certificate, key }),
            _ => keep(dir, name, make()?),
        };
        let server = leaf("server", &|| make::server(&ca, names))?;
        let client = leaf("client", &|| {
            make::client(&ca, "kubernetes-admin", "system:masters")
        })?;
        let token = match read(dir, "token")? {
            Some(token) => token,
            None => {
                let token = format!("{:032x}", rand::random::<u128>());
                write(dir, "token", &token)?;
                token
            }
        };
        Ok(Self {
            ca: ca.certificate,
            server,
            client,
            token,
        })
    }

    /// Text of a kubeconfig for a server at `url`, with the administrator's
    /// certificate inside. `cluster` names cluster, user and context.
    pub fn kubeconfig(&self, cluster: &str, url: &str) -> String {
        kubeconfig(
            cluster,
            url,
            &self.ca,
            &self.client.certificate,
            &self.client.key,
        )
    }

    /// The authority's certificate, as PEM.
    pub fn ca(&self) -> &str {
        &self.ca
    }

    /// A bearer token that is as good as the administrator's certificate.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// What the server needs: its certificate, and whom it trusts.
    pub fn tls(&self) -> Result<Tls, PkiError> {
        let tls = |error: &dyn std::fmt::Display| PkiError::Tls(error.to_string());
        let mut roots = RootCertStore::empty();
        roots
            .add(certificate(&self.ca, "the authority")?)
            .map_err(|error| tls(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                // Bearer tokens come without a certificate.
                .allow_unauthenticated()
                .build()
                .map_err(|error| tls(&error))?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key.as_bytes()).map_err(|source| {
            PkiError::Pem {
                what: "the server's key",
                source,
            }
        })?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate(&self.server.certificate, "the server")?],
                key,
            )
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            config: Arc::new(config),
            token: self.token.clone(),
        })
    }
}

/// The server's side of TLS and the token it accepts.
#[derive(Clone)]
pub struct Tls {
    pub(crate) config: Arc<ServerConfig>,
    pub(crate) token: String,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls(keys not shown)")
    }
}

fn certificate(pem: &str, what: &'static str) -> Result<CertificateDer<'static>, PkiError> {
    CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|source| PkiError::Pem { what, source })
}

fn read(dir: &Path, name: &str) -> Result<Option<String>, PkiError> {
    let path = dir.join(name);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PkiError::File { path, source }),
    }
}

/// Atomic: a file that is there is whole. Readable by its owner only.
fn write(dir: &Path, name: &str, text: &str) -> Result<(), PkiError> {
    let path = dir.join(name);
    let beside = dir.join(format!("{name}.new"));
    let attempt = || {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&beside, &path)
    };
    attempt().map_err(|source| PkiError::File {
        path: path.clone(),
        source,
    })
}

fn remove(dir: &Path, name: &str) -> Result<(), PkiError> {
    let path = dir.join(name);
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PkiError::File { path, source })
        }
        _ => Ok(()),
    }
}

/// The key goes first: a certificate that is there has its key.
fn keep(dir: &Path, name: &str, pair: Pair) -> Result<Pair, PkiError> {
    write(dir, &format!("{name}.key"), &pair.key)?;
    write(dir, &format!("{name}.crt"), &pair.certificate)?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_until_names_change() {
        let dir = tempfile::tempdir().unwrap();
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let first = Pki::open(dir.path(), &names).unwrap();
        first.tls().unwrap();
        let second = Pki::open(dir.path(), &names).unwrap();
        assert_eq!(
            first.kubeconfig("lab", "https://127.0.0.1:1"),
            second.kubeconfig("lab", "https://127.0.0.1:1")
        );
        assert_eq!(first.server.certificate, second.server.certificate);
        let third = Pki::open(dir.path(), &["fd00::1".to_owned()]).unwrap();
        third.tls().unwrap();
        assert_ne!(first.server.certificate, third.server.certificate);
        assert_eq!(first.client.certificate, third.client.certificate);
    }
}
