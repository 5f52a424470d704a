//! Classes of the boot loader, by name. They are never unloaded.

use std::io;

use super::fields::{Fields, UnknownLayout};
use super::klass::well_known;
use super::memory::{CachedMemory, TargetMemory};
use super::pool::aligned;
use super::symbol::SymbolLayout;

/// More classes than this are not looked at; a large program loads some
/// thousands by the boot loader.
const MAX_CLASSES: usize = 1 << 18;

/// How the boot loader's classes are found.
#[derive(Debug, Clone, Copy)]
pub struct BootClasses {
    /// The class `Object`.
    object: u64,
    /// `ClassLoaderData` of a class, and a class's name.
    loader: u32,
    name: u32,
    symbols: SymbolLayout,
    way: Way,
}

/// How one class leads to the others.
#[derive(Debug, Clone, Copy)]
enum Way {
    /// The loader has a list.
    List { first: u32, next: u32 },
    /// JDK 8 tells only of classes' subclasses, whoever loaded them.
    Tree { first: u32, next: u32 },
}

impl BootClasses {
    /// Looks up what it takes. None until the VM has loaded `Object`.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(
        fields: Fields<'_>,
        memory: &dyn TargetMemory,
    ) -> Result<Option<Self>, UnknownLayout> {
        let list = fields
            .find_offset(&[("ClassLoaderData", "_klasses")])
            .zip(fields.find_offset(&[("Klass", "_next_link")]));
        let way = match list {
            Some((first, next)) => Way::List { first, next },
            None => Way::Tree {
                first: fields.offset(&[("Klass", "_subklass")])?,
                next: fields.offset(&[("Klass", "_next_sibling")])?,
            },
        };
        let classes = BootClasses {
            object: well_known(fields, memory, "Object")?,
            loader: fields.offset(&[
                ("Klass", "_class_loader_data"),
                ("InstanceKlass", "_class_loader_data"),
            ])?,
            name: fields.offset(&[("Klass", "_name")])?,
            symbols: SymbolLayout::of(fields)?,
            way,
        };
        Ok((classes.object != 0).then_some(classes))
    }

    /// The classes of these names, as the VM writes them; none for each that is
    /// not loaded.
    ///
    /// # Errors
    /// Fails if the classes cannot be read, or have no end.
    pub fn find<const N: usize>(
        &self,
        memory: &dyn TargetMemory,
        names: [&str; N],
    ) -> io::Result<[Option<u64>; N]> {
        let memory = CachedMemory::new(memory);
        let loader = self.loader_of(&memory, self.object)?;
        let mut found = [None; N];
        let mut todo = match self.way {
            Way::List { first, .. } => vec![field(&memory, loader, first)?],
            Way::Tree { .. } => vec![self.object],
        };
        let mut seen = 0;
        while let Some(pointer) = todo.pop() {
            if pointer == 0 {
                continue;
            }
            seen += 1;
            let class = aligned(pointer).filter(|_| seen <= MAX_CLASSES);
            let class = class.ok_or_else(|| io::Error::other("its classes have no end"))?;
            let symbol = field(&memory, class, self.name)?;
            if let Some(name) = self.symbols.read(&memory, symbol)
                && let Some(at) = names.iter().position(|wanted| *wanted == name)
                && self.loader_of(&memory, class)? == loader
            {
                found[at] = Some(class);
            }
            match self.way {
                Way::List { next, .. } => todo.push(field(&memory, class, next)?),
                Way::Tree { first, next } => {
                    todo.push(field(&memory, class, next)?);
                    todo.push(field(&memory, class, first)?);
                }
            }
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        Ok(found)
    }

    fn loader_of(&self, memory: &dyn TargetMemory, class: u64) -> io::Result<u64> {
        field(memory, class, self.loader)
    }
}

fn field(memory: &dyn TargetMemory, object: u64, offset: u32) -> io::Result<u64> {
    memory.u64(object.wrapping_add(offset.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jvm::fields::Number;
    use crate::jvm::tests::synthetic::Synthetic;

    const LOADER: u64 = 0x1000;
    const SYMBOL: SymbolLayout = SymbolLayout::of_parts(
        Number {
            offset: 0,
            width: 2,
            signed: false,
        },
        2,
    );

    /// Classes `A`, `B` … at 0x2000, 0x3000 …: the words at 0 and 8 lead on,
    /// the loader's data is at 16, and the name at 24.
    fn classes(links: &[(u64, u64)], way: Way) -> (Synthetic, BootClasses) {
        let mut memory = Synthetic::default();
        memory.put(LOADER, &0x2000_u64.to_le_bytes());
        memory.put(LOADER + 8, &[0; 0xff8]);
        for ((index, letter), (first, second)) in (0..).zip(b'A'..).zip(links) {
            let class = 0x2000 + 0x1000 * index;
            memory.put(class, &[0; 0x1000]);
            memory.put(class, &first.to_le_bytes());
            memory.put(class + 8, &second.to_le_bytes());
            memory.put(class + 16, &LOADER.to_le_bytes());
            memory.put(class + 24, &(class + 0x100).to_le_bytes());
            memory.put(class + 0x100, &[1, 0, letter]);
        }
        let classes = BootClasses {
            object: 0x2000,
            loader: 16,
            name: 24,
            symbols: SYMBOL,
            way,
        };
        (memory, classes)
    }

    #[test]
    fn a_list_is_read_to_its_end() {
        let way = Way::List { first: 0, next: 0 };
        let (memory, classes) = classes(&[(0x3000, 0), (0x4000, 0), (0, 0)], way);
        let found = classes.find(&memory, ["C", "D", "A"]).unwrap();
        assert_eq!(found, [Some(0x4000), None, Some(0x2000)]);
    }

    #[test]
    fn a_tree_is_read_to_all_its_ends() {
        let way = Way::Tree { first: 0, next: 8 };
        let links = [(0x3000, 0), (0x5000, 0x4000), (0, 0), (0, 0)];
        let (mut memory, classes) = classes(&links, way);
        let found = classes.find(&memory, ["C", "D", "X"]).unwrap();
        assert_eq!(found, [Some(0x4000), Some(0x5000), None]);
        // Of the same name, by another loader.
        memory.put(0x4010, &0x9000_u64.to_le_bytes());
        assert_eq!(classes.find(&memory, ["C"]).unwrap(), [None]);
    }

    #[test]
    fn a_circle_and_nonsense_are_errors() {
        let way = Way::List { first: 0, next: 0 };
        let (memory, in_circle) = classes(&[(0x3000, 0), (0x2000, 0)], way);
        assert_eq!(in_circle.find(&memory, ["B"]).unwrap(), [Some(0x3000)]);
        let error = in_circle.find(&memory, ["C"]).unwrap_err();
        assert!(error.to_string().contains("no end"), "{error}");
        let (memory, odd) = classes(&[(0x3001, 0)], way);
        assert!(odd.find(&memory, ["C"]).is_err());
        let (memory, wild) = classes(&[(0xdead_0000, 0)], way);
        assert!(wild.find(&memory, ["C"]).is_err());
    }
}
