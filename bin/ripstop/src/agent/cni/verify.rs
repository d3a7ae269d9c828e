//! CHECK: is everything still as ADD made it?

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use ripstop_cni_types::{Code, Error};
use ripstop_host::records::Record;
use ripstop_netlink::netns::Netns;
use serde_json::Value;

use super::call::Call;
use super::{CniServer, describe, link_of};

impl CniServer {
    /// Compares an attachment with the kernel and with the result of its ADD.
    pub(super) fn check(&self, call: &Call, config: &Value) -> Result<(), Error> {
        let _busy = self.attachments.lock(&call.key.container_id);
        let record = self.attachments.get(&call.key).ok_or_else(|| {
            Error::new(
                Code::UnknownContainer,
                format!(
                    "container {} has no interface {} of this network",
                    call.key.container_id, call.key.ifname
                ),
            )
        })?;
        let differs = |what: String| {
            Error::new(
                Code::Differs,
                format!("pod {}: {what}", describe(&record.pod)),
            )
        };
        if let Some(expected) = previous_addresses(config) {
            let found: BTreeSet<IpAddr> = record.pod.addresses.iter().copied().collect();
            if expected != found {
                return Err(differs(format!(
                    "it has {found:?}, prevResult has {expected:?}"
                )));
            }
        }
        let difference = self.compare(&record, call).map_err(|error| {
            Error::new(Code::Io, format!("pod {}", describe(&record.pod))).details(error)
        })?;
        if let Some(difference) = difference {
            return Err(differs(difference));
        }
        match self.datapath().check_pod(&record.pod) {
            Ok(None) => Ok(()),
            Ok(Some(difference)) => Err(differs(difference)),
            Err(error) => Err(Error::new(
                Code::Io,
                format!("datapath of pod {}", describe(&record.pod)),
            )
            .details(error.to_string())),
        }
    }

    fn compare(&self, record: &Record, call: &Call) -> Result<Option<String>, String> {
        let path = call.netns.as_ref().unwrap_or(&record.netns);
        let netns = Netns::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let mut netlink = self.sockets.take().map_err(|error| error.to_string())?;
        let found = link_of(record).verify(&mut netlink, &netns);
        self.sockets.put(netlink);
        found
            .map(|difference| difference.map(|difference| difference.to_string()))
            .map_err(|error| error.to_string())
    }
}

/// The addresses in `prevResult`, if the runtime gave it.
fn previous_addresses(config: &Value) -> Option<BTreeSet<IpAddr>> {
    let ips = config.get("prevResult")?.get("ips")?.as_array()?;
    let addresses = ips
        .iter()
        .filter_map(|ip| ip.get("address")?.as_str()?.parse::<IpNet>().ok());
    Some(addresses.map(|net| net.addr()).collect())
}
