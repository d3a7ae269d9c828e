//! Answers that were asked for before.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::message::Answer;
use super::resolver::Key;

/// Past its time, an answer serves for so long when nobody can be asked
/// (RFC 8767, 5 recommends 1 to 3 days; what clusters ask for moves faster).
const STALE: Duration = Duration::from_secs(24 * 3600);

/// Bounded by bytes. Answers are in two halves: a new one goes into the young
/// half; when that is full it becomes the old one, and what was in the old one
/// and not asked for since is gone.
#[derive(Debug)]
pub(crate) struct Cache {
    halves: Mutex<Halves>,
    half_bytes: usize,
}

#[derive(Debug, Default)]
struct Halves {
    young: HashMap<Key, Arc<Answer>>,
    old: HashMap<Key, Arc<Answer>>,
    young_bytes: usize,
}

impl Cache {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            halves: Mutex::default(),
            half_bytes: bytes / 2,
        }
    }

    /// An answer, fresh or stale.
    pub(crate) fn get(&self, key: &Key, now: Instant) -> Option<Arc<Answer>> {
        let mut halves = self.lock();
        let answer = match halves.young.get(key) {
            Some(answer) => Arc::clone(answer),
            None => {
                let answer = halves.old.remove(key)?;
                self.insert(&mut halves, key.clone(), Arc::clone(&answer));
                answer
            }
        };
        (answer.age(now) < STALE).then_some(answer)
    }

    /// Keeps an answer. A failure does not take the place of data.
    pub(crate) fn put(&self, key: Key, answer: Arc<Answer>, now: Instant) {
        if answer.is_failure() && self.get(&key, now).is_some_and(|known| !known.is_failure()) {
            return;
        }
        self.insert(&mut self.lock(), key, answer);
    }

    /// All that hold still, with what was asked.
    pub(crate) fn fresh(&self, now: Instant) -> Vec<(Key, Arc<Answer>)> {
        let halves = self.lock();
        let all = halves.old.iter().chain(&halves.young);
        let fresh = all.filter(|(_, answer)| answer.is_fresh(now));
        fresh
            .map(|(key, answer)| (key.clone(), Arc::clone(answer)))
            .collect()
    }

    /// Number of answers.
    pub(crate) fn len(&self) -> usize {
        let halves = self.lock();
        halves.young.len() + halves.old.len()
    }

    fn insert(&self, halves: &mut Halves, key: Key, answer: Arc<Answer>) {
        halves.old.remove(&key);
        let size = |key: &Key, answer: &Answer| key.size() + answer.size();
        halves.young_bytes += size(&key, &answer);
        let key_size = key.size();
        if let Some(before) = halves.young.insert(key, answer) {
            halves.young_bytes -= key_size + before.size();
        }
        if halves.young_bytes > self.half_bytes {
            halves.old = mem::take(&mut halves.young);
            halves.young_bytes = 0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Halves> {
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query as ForeignQuery, ResponseCode};
    use hickory_proto::rr::{Name as ForeignName, RecordType};

    use super::*;
    use crate::Name;
    use crate::query::Query;

    fn key(name: &str) -> Key {
        let name = Name::parse(name).unwrap();
        let packet = [
            &[0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0],
            name.wire(),
            &[0, 1, 0, 1],
        ]
        .concat();
        Key::new(&name, &Query::parse(&packet).unwrap())
    }

    fn answer(rcode: ResponseCode, now: Instant) -> Arc<Answer> {
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.metadata.response_code = rcode;
        let name = ForeignName::from_ascii("a.example.").unwrap();
        message.add_query(ForeignQuery::query(name, RecordType::A));
        Arc::new(Answer::new(message, false, now).unwrap())
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let now = Instant::now();
        let cache = Cache::new(64 << 10);
        let used = key("used.example");
        cache.put(used.clone(), answer(ResponseCode::NoError, now), now);
        for n in 0..5000 {
            let answer = answer(ResponseCode::NoError, now);
            cache.put(key(&format!("n{n}.example")), answer, now);
            assert!(cache.get(&used, now).is_some(), "after {n}");
        }
        let bytes = cache.len() * (used.size() + answer(ResponseCode::NoError, now).size());
        assert!(bytes <= 64 << 10, "{} answers", cache.len());
        assert!(cache.get(&key("n0.example"), now).is_none());
        assert!(cache.get(&used, now + STALE).is_none(), "a day is too old");
    }

    #[test]
    fn a_failure_does_not_take_the_place_of_data() {
        let now = Instant::now();
        let cache = Cache::new(64 << 10);
        let key = key("a.example");
        cache.put(key.clone(), answer(ResponseCode::ServFail, now), now);
        cache.put(key.clone(), answer(ResponseCode::NXDomain, now), now);
        cache.put(key.clone(), answer(ResponseCode::ServFail, now), now);
        assert!(!cache.get(&key, now).unwrap().is_failure());
    }
}
