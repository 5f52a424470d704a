//! The kernel side of USDT probes: which places are watched, and what they
//! told.

use anyhow::{Context, Result};
use aya::maps::{HashMap, MapData, RingBuf};
use tracer_ebpf::class_name::ClassName;
use tracer_ebpf::compiled::{Compiled, Gone};
use tracer_ebpf::usdt::{Place, PlaceKey, Told};
use tracer_ebpf::{as_bytes, read_record};

/// A [`Place`] as the plain words that aya's map type takes.
type PlaceWords = [u64; size_of::<Place>() / 8];

/// A [`ClassName`] in the same way.
type NameWords = [u64; size_of::<ClassName>() / 8];

/// What a JVM tells of compiled code.
pub enum CodeTold {
    /// A method was compiled.
    Compiled(Box<Compiled>),
    /// Code was freed.
    Gone(Gone),
}

/// The maps of USDT probes.
pub struct UsdtMaps {
    pub(super) places: HashMap<MapData, [u64; 2], PlaceWords>,
    pub(super) told: RingBuf<MapData>,
    pub(super) names: HashMap<MapData, u64, NameWords>,
    pub(super) compiled: RingBuf<MapData>,
}

impl UsdtMaps {
    /// Watches a place.
    ///
    /// # Errors
    /// Fails if there is no room.
    pub fn watch(&mut self, key: PlaceKey, place: &Place) -> Result<()> {
        let words = words::<PlaceWords>(as_bytes(place));
        self.places
            .insert([key.image, key.ip], words, 0)
            .context("there is no room for more probed places")
    }

    /// How often a place was hit.
    pub fn hits(&self, key: PlaceKey) -> u64 {
        let words = self.places.get(&[key.image, key.ip], 0);
        words.map_or(0, |[hits, ..]| hits)
    }

    /// Watches a place no longer.
    pub fn forget(&mut self, key: PlaceKey) {
        // Gone already is fine.
        let _ = self.places.remove(&[key.image, key.ip]);
    }

    /// What was told next of compiled code, if there is anything.
    pub fn next_code(&mut self) -> Option<CodeTold> {
        loop {
            let item = self.compiled.next()?;
            if item.len() >= size_of::<Compiled>() {
                return read_record(&item).map(|told| CodeTold::Compiled(Box::new(told)));
            }
            if let Some(gone) = read_record(&item) {
                return Some(CodeTold::Gone(gone));
            }
        }
    }

    /// The class of a word that stands for one by its name; `None` if there
    /// was no room for it.
    pub fn class_name(&self, word: u64) -> Option<ClassName> {
        let words = self.names.get(&word, 0).ok()?;
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        read_record(&bytes)
    }

    /// What the next hit told, if there is one.
    pub fn next(&mut self) -> Option<Told> {
        loop {
            let item = self.told.next()?;
            if let Some(told) = read_record(&item) {
                return Some(told);
            }
        }
    }
}

/// Bytes as words.
fn words<W: AsMut<[u64]> + Default>(bytes: &[u8]) -> W {
    let mut words = W::default();
    for (word, bytes) in words.as_mut().iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_ne_bytes(*bytes);
    }
    words
}

const _: () = assert!(size_of::<Place>() == size_of::<PlaceWords>(), "whole words");
