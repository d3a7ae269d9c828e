//! Transactions, and which rules connections have to pass after them.

use ripstop_plan::policy::PolicyChange;

use super::readback::Scope;
use super::sets::Set;
use super::write::Changes;
use super::{NftEngine, policy, refused};
use crate::engine::Error;

impl NftEngine {
    /// Sends what was gathered, and begins anew.
    pub(super) fn commit(&mut self, changes: &mut Changes) -> Result<(), Error> {
        if changes.is_empty() {
            return Ok(());
        }
        let blocks = changes.touches(&[Set::PolicyBlocks]);
        if changes.touches(&policy::SETS) && !changes.is_anew() {
            self.policies.renew(changes);
        }
        self.send(std::mem::take(changes))?;
        if blocks {
            // The kernel puts sets of ranges in place after all the rest: until
            // then connections passed the old ones, under the new generation.
            let mut again = Changes::default();
            self.policies.renew(&mut again);
            self.send(again)?;
        }
        Ok(())
    }

    fn send(&mut self, changes: Changes) -> Result<(), Error> {
        let batch = changes.into_batch();
        self.nftables.get_mut().commit(&batch).map_err(refused)
    }

    /// Large changes are several transactions; each is whole by itself. Rows of
    /// policies are not: a packet would meet some without the others.
    pub(super) fn is_large(&mut self, changes: &Changes) -> bool {
        const LARGE: usize = 8 << 20;
        changes.size() > LARGE.min(self.nftables.get_mut().batch_limit() / 2)
    }

    pub(super) fn apply_policies(&mut self, change: &PolicyChange) -> Result<(), Error> {
        // Before, the first audit gets everything.
        if change.is_empty() || !self.policies.known {
            return Ok(());
        }
        for part in policy::in_turn(change) {
            let mut changes = Changes::default();
            let before = self.policies.apply(&mut changes, &part);
            if let Err(error) = self.commit(&mut changes) {
                self.policies.undo(&before);
                self.read_back(Scope::ButBlocks)?;
                return Err(error);
            }
        }
        Ok(())
    }
}
