//! `porter`: serves the text of `SERVE_PORT_<port>` variables over HTTP.

use std::collections::BTreeMap;

use super::super::drain::Drain;
use super::super::{Failure, http, listen, tcp};

const PREFIX: &str = "SERVE_PORT_";

/// What each port says.
pub(super) fn ports(env: &BTreeMap<String, String>) -> Result<Vec<(u16, String)>, Failure> {
    env.iter()
        .filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)))
        .map(|(port, value)| match port.parse() {
            Ok(port) => Ok((port, value.clone())),
            Err(_) => Err(Failure::Usage(format!(
                "{PREFIX}{port}: {port:?} is not a port"
            ))),
        })
        .collect()
}

pub(super) fn start(ports: &[(u16, String)], drain: &Drain) -> Result<(), Failure> {
    for (port, text) in ports {
        let (listener, text) = (listen::tcp(*port)?, text.clone());
        tokio::spawn(tcp::accept(
            listener,
            drain.work(),
            move |stream, _, work| {
                let text = text.clone();
                http::serve(stream, work, move |_| {
                    let text = text.clone();
                    async move { http::text(200, text) }
                })
            },
        ));
        println!("server on port {port}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_from_the_environment() {
        let env = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|&(k, v)| (k.to_owned(), v.to_owned()))
                .collect::<BTreeMap<_, _>>()
        };
        let found = ports(&env(&[("PATH", "/bin"), ("SERVE_PORT_80", "foo")])).unwrap();
        assert_eq!(found, [(80, "foo".to_owned())]);
        assert!(ports(&env(&[("SERVE_PORT_http", "foo")])).is_err());
    }
}
