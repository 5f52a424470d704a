//! V8 among the traced processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::javascript::JavaScriptNames;
use crate::jvm::frames::Named;
use crate::jvm::unnamed::Unnamed;
use crate::tables::Tables;
use crate::targets::images::Images;

/// Names of functions by their images.
#[derive(Default)]
pub struct JavaScripts {
    images: HashMap<u64, Result<JavaScriptNames, Unnamed>>,
}

impl JavaScripts {
    /// The name of a word of an image's stack; `None` while nothing is known of the image's
    /// code.
    pub fn name(
        &mut self,
        image: u64,
        word: u64,
        images: &Images,
        tables: &Tables,
    ) -> Option<Named> {
        let names = match self.images.entry(image) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => place.insert(open(image, images, tables)?),
        };
        let named = match names {
            Ok(names) => names.name(word, || tables.script(image, word)),
            Err(reason) => Err(reason.clone()),
        };
        Some(named.map_err(|reason| match reason {
            Unnamed::Unreadable => Unnamed::NoScriptProcess,
            reason => reason,
        }))
    }

    /// An image has ended.
    pub fn forget(&mut self, image: u64) {
        self.images.remove(&image);
    }
}

fn open(image: u64, images: &Images, tables: &Tables) -> Option<Result<JavaScriptNames, Unnamed>> {
    let image = images.get(images.index_of(image)?)?;
    let code = images.code(image)?;
    let mut files = code.current().map(|mapping| mapping.range.file);
    let structures = files.find_map(|file| tables.v8_of(file))?;
    Some(JavaScriptNames::open(code.process(), *structures))
}
