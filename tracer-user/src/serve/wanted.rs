//! Services whose memory somebody wants searched: from who answers to who looks.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// More wait at no time.
const MOST: usize = 64;

/// Those that wait.
#[derive(Debug, Default)]
pub struct Wanted(Mutex<BTreeSet<String>>);

impl Wanted {
    /// One more, if there is room. Who asks twice is answered once.
    pub fn add(&self, service: &str) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let has_room = all.len() < MOST || all.contains(service);
        if has_room {
            all.insert(service.to_owned());
        }
        has_room
    }

    /// All of them; nobody waits any more.
    pub fn take(&self) -> BTreeSet<String> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_waits_once_and_no_more_than_there_is_room_for() {
        let wanted = Wanted::default();
        assert!(wanted.add("a") && wanted.add("a"));
        assert_eq!(wanted.take(), BTreeSet::from(["a".to_owned()]));
        assert!(wanted.take().is_empty());
        for number in 0..MOST {
            assert!(wanted.add(&number.to_string()));
        }
        assert!(wanted.add("0") && !wanted.add("one more"));
    }
}
