//! ServiceCIDR.

use ripstop_model::{ObjectKind, ObjectRef, ServiceCidr};

use super::{Converted, Reader};
use crate::objects::ServiceCidrObject;

/// Ranges of ClusterIPs.
pub fn service_cidr(object: &ServiceCidrObject) -> Converted<ServiceCidr> {
    let name = object.metadata.name.clone().unwrap_or_default();
    let mut read = Reader::new(ObjectRef::of_cluster(ObjectKind::ServiceCidr, name.clone()));
    let texts = object.spec.iter().flat_map(|spec| spec.cidrs.iter());
    let cidrs = texts
        .flatten()
        .enumerate()
        .filter_map(|(i, text)| read.range(|| format!("spec.cidrs[{i}]"), text))
        .collect();
    read.give(ServiceCidr { name, cidrs })
}
