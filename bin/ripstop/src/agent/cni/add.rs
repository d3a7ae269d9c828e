//! ADD: a pod gets its addresses and its link.

use std::time::Instant;

use ripstop_cni_types::{AddResult, Code, Error, Interface, Ip, Route};
use ripstop_host::pod::{HOST_MAC, derive_names, gateway, ignore_routers};
use ripstop_host::records::Record;
use ripstop_model::{LocalPod, ObjectKey};
use ripstop_netlink::Netlink;
use ripstop_netlink::netns::Netns;

use super::attachments::key_of;
use super::call::{Call, invalid};
use super::{CniServer, describe, link_of, ports};

impl CniServer {
    /// Attaches a pod. After an error nothing is left of it.
    pub(super) fn add(&self, call: &Call) -> Result<(Record, AddResult), Error> {
        let start = Instant::now();
        let netns = self.open_pod_netns(call)?;
        let record = self.attachments.reserve(draft(call, self.mtu)?)?;
        let reserved = start.elapsed();
        let (record, linked) = self.make(record, &netns, start)?;
        let attached = start.elapsed();
        self.open_up(&record);
        tracing::debug!(
            pod = describe(&record.pod),
            addresses = ?record.pod.addresses,
            reserved_us = reserved.as_micros(),
            linked_us = linked,
            attached_us = attached.as_micros(),
            planned_us = start.elapsed().as_micros(),
            "pod attached"
        );
        let result = result(&record);
        Ok((record, result))
    }

    fn make(
        &self,
        mut record: Record,
        netns: &Netns,
        start: Instant,
    ) -> Result<(Record, u128), Error> {
        let pod = describe(&record.pod);
        let refused = |what: &str, error: &dyn std::fmt::Display| {
            Error::new(Code::Refused, format!("{what} of pod {pod}")).details(error.to_string())
        };
        let link = link_of(&record);
        let made = self.with_netlink(|netlink| link.make(netlink, netns));
        let ends = match made {
            Ok(ends) => ends,
            Err(error) => {
                self.attachments.forget(&record);
                return Err(refused("link", &error));
            }
        };
        record.pod.host_ifindex = ends.host;
        self.attachments.linked(&record);
        if let Err(error) = ignore_routers(&record.pod.host_ifname) {
            let refused = refused("link", &error);
            self.attachments.leaving(&record);
            self.reaper.delete(record);
            return Err(refused);
        }
        let linked = start.elapsed().as_micros();

        // Before anything moves on the link, so that nothing ever moves but what
        // policies allow.
        let mut datapath = self.datapath();
        match datapath.add_pod(&record.pod) {
            Ok(()) => {
                self.attachments.attached(&record);
                self.tell_names(&record, true);
            }
            Err(error) => {
                self.attachments.leaving(&record);
                drop(datapath);
                let error = refused("datapath", &error);
                self.reaper.delete(record);
                return Err(error);
            }
        }
        drop(datapath);
        let opened = self.with_netlink(|netlink| link.open(netlink, netns, ends));
        if let Err(error) = opened {
            let error = refused("link", &error);
            // What of that fails as well is in the log, and audits go on with it.
            let _ = self.detach(record);
            return Err(error);
        }
        Ok((record, linked))
    }

    pub(super) fn with_netlink<T>(
        &self,
        work: impl FnOnce(&mut Netlink) -> Result<T, ripstop_netlink::Error>,
    ) -> Result<T, ripstop_netlink::Error> {
        let mut netlink = self.sockets.take()?;
        let done = work(&mut netlink);
        self.sockets.put(netlink);
        done
    }

    /// The pod is closed until what is in force on it is in the kernel.
    fn open_up(&self, record: &Record) {
        let Some(plan) = self.plan.get() else { return };
        if !plan.added(key_of(record), record.pod.clone()) {
            tracing::warn!(
                pod = describe(&record.pod),
                "its object is not known: nothing passes until it is"
            );
        }
    }

    fn open_pod_netns(&self, call: &Call) -> Result<Netns, Error> {
        let path = call.netns()?;
        let unusable =
            |problem: &str| invalid("CNI_NETNS", &format!("{}: {problem}", path.display()));
        let netns = Netns::open(path).map_err(|error| unusable(&error.to_string()))?;
        match netns.is_same(&self.node) {
            Ok(false) => Ok(netns),
            Ok(true) => Err(unusable("is the node's own namespace")),
            Err(error) => Err(unusable(&error.to_string())),
        }
    }
}

/// A record without addresses and interface index.
fn draft(call: &Call, mtu: u32) -> Result<Record, Error> {
    let (host_ifname, mac) = derive_names(&call.key.container_id, &call.key.ifname);
    Ok(Record {
        pod: LocalPod {
            pod: ObjectKey::new(call.pod.namespace.clone(), call.pod.name.clone()),
            uid: call.pod.uid.clone(),
            container_id: call.key.container_id.clone(),
            addresses: Vec::new(),
            host_ifindex: 0,
            host_ifname,
            mac,
            host_ports: ports::read(&call.config)?,
        },
        ifname: call.key.ifname.clone(),
        netns: call.netns()?.clone(),
        mtu,
        network: call.config.name.clone(),
        search: call.config.dns_search.clone(),
        taken_from: None,
    })
}

fn result(record: &Record) -> AddResult {
    let pod = &record.pod;
    AddResult {
        interfaces: vec![
            Interface {
                name: pod.host_ifname.clone(),
                mac: HOST_MAC.to_string(),
                mtu: record.mtu,
                sandbox: None,
            },
            Interface {
                name: record.ifname.clone(),
                mac: pod.mac.to_string(),
                mtu: record.mtu,
                sandbox: Some(record.netns.to_string_lossy().into_owned()),
            },
        ],
        ips: pod
            .addresses
            .iter()
            .map(|&address| Ip {
                address: address.into(),
                gateway: gateway(address),
                interface: 1,
            })
            .collect(),
        routes: pod
            .addresses
            .iter()
            .map(|&address| Route {
                destination: ripstop_host::pod::everything(address),
                gateway: gateway(address),
            })
            .collect(),
    }
}
