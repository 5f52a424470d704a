//! Room for windows: the oldest go.

use anyhow::Result;
use redb::{ReadableTable, WriteTransaction};

use super::{FINDINGS, HEAPS, LOOKS, ORDER, PROFILES, SUMMARIES};

/// Takes out the oldest windows while there is more than `size` or one ended before `oldest`.
pub(super) fn make_room(transaction: &WriteTransaction, size: u64, oldest: u64) -> Result<()> {
    let mut order = transaction.open_table(ORDER)?;
    let mut kept: u64 = 0;
    for entry in order.iter()? {
        kept += entry?.1.value();
    }
    loop {
        let first = order.first()?;
        let first = first.map(|(key, bytes)| {
            let (ended, service) = key.value();
            (ended, service.to_owned(), bytes.value())
        });
        let Some((ended, service, bytes)) = first else {
            return Ok(());
        };
        if kept <= size && ended >= oldest {
            return Ok(());
        }
        kept = kept.saturating_sub(bytes);
        order.remove((ended, service.as_str()))?;
        let key = (service.as_str(), ended);
        transaction.open_table(SUMMARIES)?.remove(key)?;
        transaction.open_table(PROFILES)?.remove(key)?;
        transaction.open_table(FINDINGS)?.remove(key)?;
        transaction.open_table(LOOKS)?.remove(key)?;
        transaction.open_table(HEAPS)?.remove(key)?;
    }
}
