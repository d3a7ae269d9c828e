//! What can be said before there is an engine.

use ipnet::IpNet;
use ripstop_model::Protocol;
use ripstop_netlink::nftables::Nftables;
use ripstop_plan::{Frontend, FrontendRow};

use super::{Config, NftEngine, TABLE, refused, unsupported};
use crate::engine::{Datapath, Error};

/// Other people's chains that drop forwarded packets which they do not know, in
/// the calling thread's network namespace: pods' packets, too, whatever our rules
/// say. (Every chain of a hook has to let a packet pass.)
///
/// # Errors
/// If the kernel has no nf_tables, or cannot be asked.
pub fn foreign_drops() -> Result<Vec<String>, Error> {
    let mut nftables = Nftables::new().map_err(unsupported)?;
    let chains = nftables.forward_drops().map_err(refused)?;
    let foreign = chains.into_iter().filter(|chain| chain.table != TABLE);
    Ok(foreign
        .map(|chain| {
            format!(
                "chain {} of table {} {}",
                chain.chain, chain.family, chain.table
            )
        })
        .collect())
}

/// Makes a table like ours under another name, and removes it: in a network
/// namespace of its own, where there is nothing else.
///
/// # Errors
/// [`Error::Unsupported`] with what the kernel refuses.
pub fn try_table() -> Result<(), Error> {
    let made = std::thread::scope(|scope| {
        // A thread of its own: unshare would otherwise move the caller.
        let thread = scope.spawn(|| -> Result<(), Error> {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).map_err(|error| {
                Error::Unsupported {
                    reason: format!("a network namespace to try in: {error}"),
                }
            })?;
            let mut engine = NftEngine::open(Config {
                node_addresses: Vec::new(),
                connections: None,
            })?;
            // One row with everything that a row can have.
            let row = FrontendRow {
                kind: ripstop_plan::FrontendKind::LoadBalancer,
                backends: [1, 2].map(try_backend).into_iter().collect(),
                affinity: Some(1),
                source_ranges: vec![IpNet::new(try_backend(0).address, 24).map_err(|error| {
                    Error::Unsupported {
                        reason: error.to_string(),
                    }
                })?],
                ..FrontendRow::new(ripstop_model::ObjectKey::new("try", "try"))
            };
            let frontend = Frontend {
                address: try_backend(3).address,
                protocol: Protocol::Tcp,
                port: 80,
            };
            engine.write([(frontend, Some((row, false)))])?;
            Box::new(engine).dismantle()
        });
        thread.join()
    });
    made.unwrap_or_else(|_| {
        Err(Error::Unsupported {
            reason: "trying it panicked".into(),
        })
    })
}

/// Of the range for documentation (RFC 5737).
fn try_backend(number: u8) -> ripstop_plan::Backend {
    ripstop_plan::Backend {
        address: [192, 0, 2, number].into(),
        port: 80,
    }
}
