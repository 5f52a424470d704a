//! The interpreters of Python among the traced processes.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::jvm::frames::Named;
use crate::jvm::unnamed::Unnamed;
use crate::python::PythonNames;
use crate::tables::Tables;
use crate::targets::images::Images;

/// Interpreters by their images.
#[derive(Default)]
pub struct Pythons {
    images: HashMap<u64, Result<PythonNames, Unnamed>>,
}

impl Pythons {
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
            Ok(names) => names.name(word),
            Err(reason) => Err(reason.clone()),
        };
        Some(named.map_err(|reason| match reason {
            Unnamed::Unreadable => Unnamed::NoProcess,
            reason => reason,
        }))
    }

    /// An image has ended.
    pub fn forget(&mut self, image: u64) {
        self.images.remove(&image);
    }
}

fn open(image: u64, images: &Images, tables: &Tables) -> Option<Result<PythonNames, Unnamed>> {
    let image = images.get(images.index_of(image)?)?;
    let code = images.code(image)?;
    let mut files = code.current().map(|mapping| mapping.range.file);
    let interpreter = files.find_map(|file| tables.python_of(file))?;
    Some(PythonNames::open(code.process(), interpreter))
}
