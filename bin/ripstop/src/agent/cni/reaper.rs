//! Deletes links after DEL has been answered. The kernel waits some 25 ms for
//! packets in flight, for one link or for many: they are deleted together.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ripstop_host::records::Record;
use ripstop_netlink::{Error, Netlink, link};

use super::attachments::Attachments;

/// After a failure, which has no known cause.
const RETRY: Duration = Duration::from_secs(1);

/// The thread that deletes links.
pub(super) struct Reaper(Sender<Record>);

impl Reaper {
    /// Starts it in the calling thread's network namespace.
    pub(super) fn start(attachments: Arc<Attachments>) -> anyhow::Result<Self> {
        let (sender, receiver) = channel();
        let netlink = Netlink::new()?;
        std::thread::Builder::new()
            .name("cni-reaper".to_owned())
            .spawn(move || reap(&receiver, &attachments, netlink))?;
        Ok(Self(sender))
    }

    /// Deletes the record's link soon, and then forgets the attachment.
    pub(super) fn delete(&self, record: Record) {
        // The thread lives as long as this sender.
        let _ = self.0.send(record);
    }
}

fn reap(queue: &Receiver<Record>, attachments: &Attachments, mut netlink: Netlink) {
    let mut leaving: Vec<Record> = Vec::new();
    loop {
        let next = if leaving.is_empty() {
            queue.recv().map_err(RecvTimeoutError::from)
        } else {
            queue.recv_timeout(RETRY)
        };
        match next {
            Ok(record) => leaving.push(record),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        leaving.extend(queue.try_iter());
        match delete(&mut netlink, &leaving) {
            Ok(()) => {
                for record in leaving.drain(..) {
                    attachments.forget(&record);
                }
            }
            Err(error) => tracing::warn!(%error, "links of deleted pods stay for now"),
        }
    }
}

fn delete(netlink: &mut Netlink, leaving: &[Record]) -> Result<(), Error> {
    let names = leaving.iter().map(|record| record.pod.host_ifname.as_str());
    netlink.execute(link::delete_together(names))
}
