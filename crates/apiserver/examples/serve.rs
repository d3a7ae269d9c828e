//! An API server without nodes, to try clients against:
//! `cargo run -p ripstop-apiserver --example serve -- DIR`, then
//! `kubectl --kubeconfig DIR/kubeconfig ...`. Objects survive in DIR.

use std::path::PathBuf;
use std::sync::Arc;

use ripstop_apiserver::pki::Pki;
use ripstop_apiserver::pods::NoPods;
use ripstop_apiserver::{Store, serve};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = PathBuf::from(std::env::args().nth(1).ok_or("usage: serve DIR")?);
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("https://{}", listener.local_addr()?);
    let pki = Pki::open(&dir.join("pki"), &["127.0.0.1".to_owned()])?;
    std::fs::write(dir.join("kubeconfig"), pki.kubeconfig("example", &url))?;
    let store = Store::open(Some(&dir.join("journal")))?;
    println!("{url}, {}", dir.join("kubeconfig").display());
    serve(store.client(), vec![listener], pki.tls()?, Arc::new(NoPods)).await?;
    Ok(())
}
