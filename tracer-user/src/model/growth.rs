//! Where memory was first touched, in a run that follows allocations too (`--overhead`).

use serde::{Deserialize, Serialize};

use super::{Balance, Site};

/// What page faults told beside the allocations.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Growth {
    /// The call paths that touched new memory, as with `--growth`; in no total.
    pub sites: Vec<Site>,
    /// How the resident sets grew, and whose pages came in.
    pub balance: Vec<Balance>,
}

impl Growth {
    /// Without its call paths, which have no names yet.
    pub fn of(balance: Vec<Balance>) -> Self {
        Self {
            sites: Vec::new(),
            balance,
        }
    }
}
