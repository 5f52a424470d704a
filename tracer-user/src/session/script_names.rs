//! What names the functions of script languages, by process image.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::javascript::JavaScriptNames;
use crate::jvm::frames::Named;
use crate::jvm::unnamed::Unnamed;
use crate::process::code::CodeSpace;
use crate::process::maps::FileId;
use crate::python::PythonNames;
use crate::tables::Tables;
use crate::targets::images::Images;

/// Names of one language's functions, of the images that run it.
pub struct ScriptNames<N> {
    images: HashMap<u64, Result<N, Unnamed>>,
}

impl<N> Default for ScriptNames<N> {
    fn default() -> Self {
        Self {
            images: HashMap::new(),
        }
    }
}

impl<N> ScriptNames<N> {
    /// An image has ended.
    pub fn forget(&mut self, image: u64) {
        self.images.remove(&image);
    }

    /// What names an image's functions; `None` while nothing is known of the image's code, of
    /// which `open` makes it.
    fn of(
        &mut self,
        image: u64,
        images: &Images,
        open: impl FnOnce(&CodeSpace) -> Option<Result<N, Unnamed>>,
    ) -> Option<Result<&mut N, Unnamed>> {
        let names = match self.images.entry(image) {
            Entry::Occupied(place) => place.into_mut(),
            Entry::Vacant(place) => {
                let image = images.get(images.index_of(image)?)?;
                place.insert(open(images.code(image)?)?)
            }
        };
        Some(names.as_mut().map_err(|reason| reason.clone()))
    }
}

impl ScriptNames<PythonNames> {
    /// The name of a word of an image's stack; `None` while nothing is known of the image's
    /// code.
    pub fn name(
        &mut self,
        image: u64,
        word: u64,
        images: &Images,
        tables: &Tables,
    ) -> Option<Named> {
        let names = self.of(image, images, |code| {
            let interpreter = of_files(code, |file| tables.python_of(file))?;
            Some(PythonNames::open(code.process(), interpreter))
        })?;
        let named = names.and_then(|names| names.name(word));
        Some(or_gone(named, Unnamed::NoProcess))
    }
}

impl ScriptNames<JavaScriptNames> {
    /// The same of JavaScript.
    pub fn name(
        &mut self,
        image: u64,
        word: u64,
        images: &Images,
        tables: &Tables,
    ) -> Option<Named> {
        let names = self.of(image, images, |code| {
            let structures = of_files(code, |file| tables.v8_of(file))?;
            Some(JavaScriptNames::open(code.process(), *structures))
        })?;
        let named = names.and_then(|names| names.name(word, || tables.script(image, word)));
        Some(or_gone(named, Unnamed::NoScriptProcess))
    }
}

/// What is known of the first of the mapped files of which anything is.
fn of_files<T>(code: &CodeSpace, known: impl Fn(FileId) -> Option<T>) -> Option<T> {
    code.current().find_map(|mapping| known(mapping.range.file))
}

/// What cannot be read has another reason in a script language.
fn or_gone(named: Named, gone: Unnamed) -> Named {
    named.map_err(|reason| match reason {
        Unnamed::Unreadable => gone,
        reason => reason,
    })
}
