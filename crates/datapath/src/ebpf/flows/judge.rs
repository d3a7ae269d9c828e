//! Which flows are over, and which of the others can be missed.

use ripstop_abi::{
    FLOW_CLOSING, FLOW_LINGERS, Flow, FlowKey, IPPROTO_SCTP, IPPROTO_TCP, IPPROTO_UDP,
    flow_patience,
};

/// Seconds after which an open connection can be missed where there are too many.
pub(super) const SILENT: u32 = 600;

/// Seconds for which a server that has ended a connection first remembers its name
/// (`TCP_TIMEWAIT_LEN`): until then its port is better not another flow's.
const LINGERING: u32 = 60;

/// What is to be done with a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Over {
        /// When the last answer came; 0: none has.
        answered: u32,
    },
    Alive {
        /// Seconds since its last packet.
        idle: u32,
        /// Likewise. Said if asked.
        answered: u32,
        /// It can be missed: it has most likely done what it was for. Said if asked.
        dispensable: bool,
    },
}

/// Judges a flow by the row of its requests. `answer` gives that of its answers, and
/// is asked if that can make a difference. `closely`: whether it can be missed is to
/// be known.
pub(super) fn judge<E>(
    key: &FlowKey,
    flow: &Flow,
    now: u32,
    closely: bool,
    answer: impl FnOnce() -> Result<Option<Flow>, E>,
) -> Result<Fate, E> {
    let closing = flow.flags & FLOW_CLOSING != 0;
    let idle = since(flow.last, now);
    if !closely && idle <= least_patience(key.protocol, closing) {
        return Ok(Fate::Alive {
            idle,
            answered: 0,
            dispensable: false,
        });
    }
    let answer = answer()?.unwrap_or_default();
    let idle = idle.min(since(answer.last, now));
    let replied = answer.last != 0;
    let closing = [closing, answer.flags & FLOW_CLOSING != 0];
    let patience = match closing {
        [true, true] if answer.flags & FLOW_LINGERS != 0 => LINGERING,
        _ => patience(key.protocol, replied, closing),
    };
    if idle > patience {
        let answered = answer.last;
        return Ok(Fate::Over { answered });
    }
    let open = replied && key.protocol == u32::from(IPPROTO_TCP) && closing == [false; 2];
    let dispensable = match open {
        true => idle >= SILENT,
        // A question is answered by then as a rule.
        false => idle >= if replied { 1 } else { 2 },
    };
    Ok(Fate::Alive {
        idle,
        answered: answer.last,
        dispensable,
    })
}

/// Key of a flow's other row.
pub(super) fn other(key: &FlowKey, flow: &Flow) -> FlowKey {
    FlowKey {
        source: flow.destination,
        destination: flow.source,
        source_port: flow.destination_port,
        destination_port: flow.source_port,
        protocol: key.protocol,
    }
}

/// Seconds without a packet after which a flow is over, as connection tracking of
/// the kernel has them (nf_conntrack-sysctl), with fewer states. A connection of
/// which both ends have ended is kept for what comes late.
fn patience(protocol: u32, replied: bool, closing: [bool; 2]) -> u32 {
    const TCP: u32 = IPPROTO_TCP as u32;
    const UDP: u32 = IPPROTO_UDP as u32;
    match (protocol, replied, closing) {
        (TCP, _, [true, true]) => 10,
        (TCP, _, [true, _] | [_, true]) => 120,
        (TCP, false, _) => 60,
        (TCP | UDP, true, _) => flow_patience(protocol, true),
        (UDP, false, _) => 30,
        (protocol, ..) if protocol == u32::from(IPPROTO_SCTP) => SILENT,
        _ => 30,
    }
}

/// The same, whatever the row of the answers says.
fn least_patience(protocol: u32, closing: bool) -> u32 {
    let of = |(replied, answer)| patience(protocol, replied, [closing, answer]);
    let answers = [(false, false), (false, true), (true, false), (true, true)];
    answers.map(of).into_iter().min().unwrap_or(0)
}

/// Clocks of CPUs may differ by a tick.
pub(super) fn since(last: u32, now: u32) -> u32 {
    now.saturating_sub(last)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use ripstop_abi::IPPROTO_ICMP;

    use super::*;

    const NOW: u32 = 100_000;

    fn fate(protocol: u8, last: [u32; 2], flags: [u32; 2], closely: bool) -> Fate {
        let key = FlowKey {
            protocol: protocol.into(),
            ..FlowKey::default()
        };
        let [request, answer] = [0, 1].map(|row| Flow {
            last: last[row],
            flags: flags[row],
            ..Flow::default()
        });
        let Ok(fate) = judge(&key, &request, NOW, closely, || {
            Ok::<_, Infallible>(Some(answer))
        });
        fate
    }

    #[test]
    fn flows_end_when_nothing_is_said_any_more() {
        let (open, closing) = ([0, 0], [FLOW_CLOSING; 2]);
        let lingering = [FLOW_CLOSING, FLOW_CLOSING | FLOW_LINGERS];
        for (protocol, answered, flags, stays) in [
            (IPPROTO_TCP, true, open, 86_400),
            (IPPROTO_TCP, false, open, 60),
            (IPPROTO_TCP, true, [FLOW_CLOSING, 0], 120),
            (IPPROTO_TCP, true, [0, FLOW_CLOSING], 120),
            (IPPROTO_TCP, true, closing, 10),
            (IPPROTO_TCP, true, lingering, 60),
            (IPPROTO_TCP, true, [0, lingering[1]], 120),
            (IPPROTO_UDP, true, open, 120),
            (IPPROTO_UDP, false, open, 30),
            (IPPROTO_SCTP, true, open, 600),
            (IPPROTO_ICMP, true, open, 30),
        ] {
            for (idle, over) in [(0, false), (stays, false), (stays + 1, true)] {
                for closely in [false, true] {
                    let last = NOW - idle;
                    let last = [last, if answered { last } else { 0 }];
                    let fate = fate(protocol, last, flags, closely);
                    let what = (protocol, answered, flags, idle);
                    assert_eq!(matches!(fate, Fate::Over { .. }), over, "{what:?}");
                }
            }
        }
    }

    #[test]
    fn a_packet_of_either_side_keeps_a_flow() {
        for last in [[NOW, NOW - 500], [NOW - 500, NOW]] {
            let fate = fate(IPPROTO_UDP, last, [0; 2], true);
            let expected = Fate::Alive {
                idle: 0,
                answered: last[1],
                dispensable: false,
            };
            assert_eq!(fate, expected);
        }
        // Of which nothing was answered, or the other row is gone.
        let over = Fate::Over { answered: 0 };
        assert_eq!(fate(IPPROTO_TCP, [NOW - 61, 0], [0; 2], false), over);
    }

    #[test]
    fn what_was_asked_can_be_missed_and_open_connections_cannot() {
        for (protocol, answered, flags, idle, expected) in [
            (IPPROTO_TCP, true, 0, 599, false),
            (IPPROTO_TCP, true, 0, 600, true),
            (IPPROTO_TCP, true, FLOW_CLOSING, 1, true),
            (IPPROTO_TCP, false, 0, 1, false),
            (IPPROTO_TCP, false, 0, 2, true),
            (IPPROTO_UDP, true, 0, 0, false),
            (IPPROTO_UDP, true, 0, 1, true),
            (IPPROTO_UDP, false, 0, 1, false),
            (IPPROTO_UDP, false, 0, 2, true),
        ] {
            let last = [NOW - idle, if answered { NOW - idle } else { 0 }];
            let fate = fate(protocol, last, [flags, 0], true);
            let expected = Fate::Alive {
                idle,
                answered: last[1],
                dispensable: expected,
            };
            assert_eq!(fate, expected, "{protocol} {answered} {idle}");
        }
    }
}
