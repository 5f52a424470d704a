//! The class loaders of a VM, by the list that it has of those whose classes are loaded. A hidden
//! class that goes by itself has an entry of its own there.
//!
//! Source: `ClassLoaderData` and `ClassLoaderDataGraph` of HotSpot 8 to 25, by the tables that the VM
//! exports.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Jvm;
use super::collections::Collections;
use super::fields::{Fields, UnknownLayout};
use super::flags;
use super::klass::{KlassLayout, mirror_of, well_known};
use super::memory::{CachedMemory, TargetMemory};
use super::objects::{Header, Objects};
use super::pool::aligned;
use super::symbol::SymbolLayout;
use super::vmstructs::VmStructs;
use crate::model::java_native::{ClassLoaders, LoaderCount, LoaderKind};

/// More entries are not looked at.
const MAX_ENTRIES: usize = 1 << 18;
/// More classes of loaders are not told.
const MAX_CLASSES: usize = 1000;
/// How often it is begun again while it collects garbage, which moves objects; and the time between.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(5);
/// The names of the field that says that an entry is of one class alone.
const OF_ONE_CLASS: [(&str, &str); 3] = [
    ("ClassLoaderData", "_has_class_mirror_holder"),
    ("ClassLoaderData", "_is_unsafe_anonymous"),
    ("ClassLoaderData", "_is_anonymous"),
];

/// A class loader, or a hidden class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: LoaderKind,
    /// The loader's class; or the hidden class.
    pub class: String,
    /// The loader; or the object that stands for the class, 0 if it is not known.
    pub object: u64,
}

/// Where things are.
struct Layout {
    head: u64,
    next: u32,
    loader: u32,
    /// Whether that leads to where the object's address is.
    by_handle: bool,
    of_one_class: Option<u32>,
    /// The first class of an entry; JDK 8 does not tell.
    classes: Option<u32>,
}

impl Layout {
    fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        let loader = fields.0.field("ClassLoaderData", "_class_loader");
        Ok(Self {
            head: fields.address(&[("ClassLoaderDataGraph", "_head")])?,
            next: fields.offset(&[("ClassLoaderData", "_next")])?,
            loader: fields.offset(&[("ClassLoaderData", "_class_loader")])?,
            by_handle: loader.is_some_and(|field| field.type_string == "OopHandle"),
            of_one_class: fields.find_offset(&OF_ONE_CLASS),
            classes: fields.find_offset(&[("ClassLoaderData", "_klasses")]),
        })
    }
}

/// Reads the entries of one list.
struct Reader<'a> {
    fields: Fields<'a>,
    memory: CachedMemory<'a>,
    layout: Layout,
    names: KlassLayout,
    symbols: SymbolLayout,
    objects: Objects,
    header: Header,
    known: HashMap<u64, Option<String>>,
}

/// All entries, the last one made first; the VM's own first loader, which has no object, is not
/// among them.
///
/// # Errors
/// The reason why they cannot be told; while it collects garbage they cannot.
pub fn entries(jvm: &Jvm) -> Result<Vec<Entry>> {
    let fields = Fields(&jvm.structs);
    let [coloured] = flags::are_on(fields, &jvm.memory, ["UseZGC"])?;
    if coloured {
        bail!("its collector (ZGC) moves objects at any time and marks their addresses");
    }
    Reader::of(&jvm.structs, &jvm.memory)?.entries()
}

/// How many there are of each class.
///
/// # Errors
/// The reason why they cannot be told.
pub fn count(jvm: &Jvm) -> Result<ClassLoaders> {
    let collections = Collections::of(Fields(&jvm.structs), &jvm.memory)?;
    let collections = collections.context("it has no heap yet")?;
    for _ in 0..TRIES {
        if let Some(before) = collections.count(&jvm.memory)? {
            let entries = entries(jvm);
            if collections.count(&jvm.memory)? == Some(before) {
                return Ok(counted(&entries?));
            }
        }
        std::thread::sleep(PAUSE);
    }
    bail!("it collected garbage each time that they were read")
}

/// A loader has one entry of its own, its first. JDK 8 does not tell which those are of the
/// classes that go by themselves: they have the loader of the class that they belong to.
fn tell_apart(entries: &mut [Entry]) {
    let mut seen = HashSet::new();
    for entry in entries.iter_mut().rev() {
        if !seen.insert(entry.object) {
            entry.kind = LoaderKind::HiddenClass;
            entry.class = format!("(of {})", entry.class);
            entry.object = 0;
        }
    }
}

fn counted(entries: &[Entry]) -> ClassLoaders {
    let mut counts: HashMap<(LoaderKind, &str), u64> = HashMap::new();
    for entry in entries {
        *counts.entry((entry.kind, &entry.class)).or_default() += 1;
    }
    let rows = counts.into_iter();
    let mut by_class: Vec<_> = rows
        .map(|((kind, class), count)| LoaderCount {
            kind,
            class: class.to_owned(),
            count,
        })
        .collect();
    by_class.sort_by(|one, other| {
        (other.count, &one.class, one.kind).cmp(&(one.count, &other.class, other.kind))
    });
    by_class.truncate(MAX_CLASSES);
    ClassLoaders {
        count: entries.len() as u64,
        by_class,
    }
}

impl<'a> Reader<'a> {
    fn of(structs: &'a VmStructs, memory: &'a dyn TargetMemory) -> Result<Self> {
        let fields = Fields(structs);
        let layout = Layout::of(fields)?;
        let objects = Objects::of(fields, memory)?;
        let class = well_known(fields, memory, "Class")?;
        let mirror = mirror_of(fields, memory, class)?;
        let header = objects.header(memory, mirror, class);
        Ok(Self {
            fields,
            memory: CachedMemory::new(memory),
            layout,
            names: KlassLayout::of(fields)?,
            symbols: SymbolLayout::of(fields)?,
            objects,
            header: header.context("its classes have no objects yet")?,
            known: HashMap::new(),
        })
    }

    fn entries(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut at = self.memory.u64(self.layout.head)?;
        for _ in 0..MAX_ENTRIES {
            let Some(data) = aligned(at) else {
                if self.layout.of_one_class.is_none() {
                    tell_apart(&mut entries);
                }
                return Ok(entries);
            };
            entries.extend(self.entry(data));
            at = self.word(data, self.layout.next).unwrap_or(0);
        }
        bail!("its list of class loaders has no end")
    }

    fn word(&self, address: u64, offset: u32) -> Option<u64> {
        self.memory.u64(address.checked_add(offset.into())?).ok()
    }

    fn loader(&self, data: u64) -> Option<u64> {
        let word = self.word(data, self.layout.loader)?;
        match self.layout.by_handle {
            true => self.memory.u64(aligned(word)?).ok(),
            false => Some(word),
        }
        .and_then(aligned)
    }

    fn entry(&mut self, data: u64) -> Option<Entry> {
        let layout = &self.layout;
        let flag = layout.of_one_class.and_then(|offset| {
            let byte = self.memory.u8(data.checked_add(offset.into())?).ok()?;
            Some(byte != 0)
        });
        if flag.unwrap_or(false) {
            let class = aligned(self.word(data, layout.classes?)?)?;
            let object = mirror_of(self.fields, &self.memory, class).ok()?;
            return Some(Entry {
                kind: LoaderKind::HiddenClass,
                class: self.name(class)?,
                object,
            });
        }
        let object = self.loader(data)?;
        let mut first = [0; 16];
        self.memory.read(object, &mut first).ok()?;
        let class = self.objects.class(self.header, &first);
        Some(Entry {
            kind: LoaderKind::ClassLoader,
            class: self.name(class)?,
            object,
        })
    }

    fn name(&mut self, class: u64) -> Option<String> {
        if let Some(known) = self.known.get(&class) {
            return known.clone();
        }
        let name = self.names.name(&self.memory, &self.symbols, class);
        self.known.insert(class, name.clone());
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_share_a_loader_are_of_hidden_classes_but_for_the_first() {
        let entry = |object| Entry {
            kind: LoaderKind::ClassLoader,
            class: "App".to_owned(),
            object,
        };
        let mut entries = [entry(8), entry(16), entry(8), entry(8)];
        tell_apart(&mut entries);
        let told = entries.each_ref().map(|it| (it.kind, it.object));
        let (loader, hidden) = (LoaderKind::ClassLoader, LoaderKind::HiddenClass);
        assert_eq!(told, [(hidden, 0), (loader, 16), (hidden, 0), (loader, 8)]);
        assert_eq!(entries[0].class, "(of App)");
    }

    #[test]
    fn entries_are_counted_by_what_they_are_most_first() {
        let entry = |kind, class: &str, object| Entry {
            kind,
            class: class.to_owned(),
            object,
        };
        let (loader, hidden) = (LoaderKind::ClassLoader, LoaderKind::HiddenClass);
        let entries = [
            entry(loader, "shop.Plugins", 8),
            entry(hidden, "shop.Cart$$Lambda", 16),
            entry(loader, "shop.Plugins", 24),
            entry(loader, "a.Loader", 32),
        ];
        let counted = counted(&entries);
        let rows = counted.by_class.iter();
        let rows = rows.map(|it| (it.kind, it.class.as_str(), it.count));
        assert_eq!(counted.count, 4);
        assert_eq!(
            rows.collect::<Vec<_>>(),
            [
                (loader, "shop.Plugins", 2),
                (loader, "a.Loader", 1),
                (hidden, "shop.Cart$$Lambda", 1)
            ]
        );
    }
}
