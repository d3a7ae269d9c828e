//! Which version's table it is.

use super::class::{Class, Outside};
use super::policy::Generation;
use super::sets::FAMILIES;
use super::{NftEngine, policy, pressure, rules, sets};
use crate::engine::Deny;

impl NftEngine {
    /// What the table is like that this version makes: a word that differs when
    /// it is another.
    pub(super) fn schema(&self) -> String {
        let examples = [Outside::Spread(31), Outside::Local(2)].map(|outside| Class {
            backends: 2,
            outside,
            affinity: 1,
            ranges: true,
        });
        let remembers = self.policies.generation.is_some();
        let generation = remembers.then_some(Generation::ANY);
        let policies = policy::base(Deny::default(), generation);
        let mut text = format!("{:?}", rules::base(&self.config.node_addresses, policies));
        for family in FAMILIES {
            text += &format!(
                "{:?}",
                examples.map(|example| rules::class(family, example))
            );
            text += &format!("{:?}", sets::ALL.map(|set| set.spec(family)));
        }
        text += &format!("{:?}", pressure::SETS);
        let fold = |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        let digest = text.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
        format!("ripstop {digest:016x}")
    }
}
