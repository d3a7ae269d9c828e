//! Policy rules: which packets are routed by which table, or not at all
//! (`RTM_NEWRULE`, ip-rule(8)).

use ipnet::IpNet;
use netlink_packet_route::RouteNetlinkMessage as Rtnl;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};

use super::Request;
use super::route::family_of;

/// Refuses to forward what comes in by interface `from` and goes to
/// `destination`: the sender is told that it is unreachable. Packets of the
/// namespace's own are not affected.
pub fn refuse(from: &str, destination: IpNet, priority: u32) -> Request {
    let mut message = RuleMessage::default();
    message.header.family = family_of(destination.addr());
    message.header.dst_len = destination.prefix_len();
    message.header.action = RuleAction::Unreachable;
    message.attributes = vec![
        RuleAttribute::Iifname(from.to_owned()),
        RuleAttribute::Destination(destination.network()),
        RuleAttribute::Priority(priority),
    ];
    Request::create(
        Rtnl::NewRule(message),
        format!("refuse {destination} from {from}"),
    )
}
