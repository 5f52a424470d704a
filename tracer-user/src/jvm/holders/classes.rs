//! The classes of a heap's objects: how large these are, and which of their fields point to
//! others.

use std::collections::HashMap;

use crate::jvm::fields::{Fields, UnknownLayout};
use crate::jvm::java_fields::JavaFields;
use crate::jvm::klass::KlassLayout;
use crate::jvm::memory::{CachedMemory, TargetMemory};
use crate::jvm::objects::{Header, Objects};
use crate::jvm::pool::aligned;
use crate::jvm::symbol::SymbolLayout;

/// Longer chains of superclasses are not believed.
const MAX_DEPTH: usize = 128;
/// No object that is not an array is larger, bytes: a class has 65,535 fields at most.
const MAX_INSTANCE: i32 = 1 << 20;
/// More classes are not looked at.
const MAX_CLASSES: usize = 1 << 18;

/// `java.lang.ref.Reference`, and its fields that hold nothing: the collector clears them.
const REFERENCE: &str = "java.lang.ref.Reference";
const WEAK: [&str; 2] = ["referent", "discovered"];

/// A class, by its index in [`Classes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClassId(u32);

impl ClassId {
    /// Its place among all that were met, from 0 on.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// What the objects of a class are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Of one size, bytes.
    Instance(u64),
    /// Objects of `java.lang.Class`, which say themselves how large they are: they have
    /// their class's static fields.
    Mirror,
    /// Arrays of pointers: bytes before the first.
    Pointers(u64),
    /// Arrays of other things: bytes before the first, and the logarithm of one's size.
    Values(u64, u32),
}

/// A field that points to objects, or may point to native memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// Bytes from the object's start.
    pub offset: u32,
    /// The class that declares it, and its name: `shop.Cart.items`.
    pub name: String,
}

/// What a class's objects are for the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Nothing special.
    Plain,
    /// `java.lang.Thread` and its subclasses.
    Thread,
    /// `java.lang.ClassLoader` and its subclasses.
    Loader,
}

/// A class.
#[derive(Debug)]
pub struct Class {
    /// As programmers write it.
    pub name: String,
    /// Where the VM keeps it.
    pub address: u64,
    /// What its objects are.
    pub form: Form,
    /// Their fields, with those of superclasses.
    pub slots: Vec<Slot>,
    /// The same of those that are `long`.
    pub longs: Vec<Slot>,
    /// Its own static fields, which are in its mirror.
    pub statics: Vec<Slot>,
    /// What they are for the VM.
    pub role: Role,
}

/// All classes that were met, by address.
pub struct Classes<'a> {
    memory: CachedMemory<'a>,
    layout_helper: u32,
    super_class: u32,
    names: KlassLayout,
    symbols: SymbolLayout,
    fields: JavaFields,
    by_address: HashMap<u64, Option<ClassId>>,
    known: Vec<Class>,
    /// Classes whose fields could not be read.
    pub unread: u64,
}

impl<'a> Classes<'a> {
    /// Looks up what it takes.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>, memory: &'a dyn TargetMemory) -> Result<Self, UnknownLayout> {
        Ok(Self {
            memory: CachedMemory::new(memory),
            layout_helper: fields.offset(&[("Klass", "_layout_helper")])?,
            super_class: fields.offset(&[("Klass", "_super")])?,
            names: KlassLayout::of(fields)?,
            symbols: SymbolLayout::of(fields)?,
            fields: JavaFields::of(fields)?,
            by_address: HashMap::new(),
            known: Vec::new(),
            unread: 0,
        })
    }

    /// One of them.
    pub fn get(&self, class: ClassId) -> Option<&Class> {
        self.known.get(class.index())
    }

    /// The name of the class with this index.
    pub fn name(&self, index: usize) -> &str {
        self.known.get(index).map_or("", |class| &class.name)
    }

    /// The name of a static field of the class with this index.
    pub fn static_name(&self, index: usize, field: u32) -> &str {
        let class = self.known.get(index);
        let slot = class.and_then(|class| class.statics.get(field as usize));
        slot.map_or("", |slot| &slot.name)
    }

    /// The class at an address; none if there cannot be one.
    pub fn at(&mut self, address: u64) -> Option<ClassId> {
        if let Some(known) = self.by_address.get(&address) {
            return *known;
        }
        let class = self.read(address);
        let id = class.and_then(|class| {
            let id = u32::try_from(self.known.len()).ok()?;
            (self.known.len() < MAX_CLASSES).then(|| {
                self.known.push(class);
                ClassId(id)
            })
        });
        if self.by_address.len() < 4 * MAX_CLASSES {
            self.by_address.insert(address, id);
        }
        id
    }

    fn read(&mut self, address: u64) -> Option<Class> {
        let klass = aligned(address)?;
        let place = klass.checked_add(self.layout_helper.into())?;
        let form = form(self.memory.i32(place).ok()?)?;
        let name = self.names.name(&self.memory, &self.symbols, klass)?;
        let mut class = Class {
            form: match (form, name.as_str()) {
                (Form::Instance(_), "java.lang.Class") => Form::Mirror,
                _ => form,
            },
            name,
            address: klass,
            slots: Vec::new(),
            longs: Vec::new(),
            statics: Vec::new(),
            role: Role::Plain,
        };
        if matches!(form, Form::Instance(_)) && self.add_slots(klass, &mut class).is_none() {
            self.unread += 1;
        }
        Some(class)
    }

    /// Adds the fields that a class and those above it declare.
    fn add_slots(&self, klass: u64, class: &mut Class) -> Option<()> {
        let mut at = klass;
        for _ in 0..MAX_DEPTH {
            let name = self.names.name(&self.memory, &self.symbols, at)?;
            for field in self.fields.words(&self.memory, at)? {
                let slot = Slot {
                    offset: field.offset,
                    name: format!("{name}.{}", field.name),
                };
                let is_weak = name == REFERENCE && WEAK.contains(&field.name.as_str());
                match field.is_static {
                    _ if field.is_long && field.is_static => {}
                    _ if field.is_long => class.longs.push(slot),
                    true if at == klass => class.statics.push(slot),
                    true => {}
                    false if is_weak => {}
                    false => class.slots.push(slot),
                }
            }
            match name.as_str() {
                "java.lang.Thread" => class.role = Role::Thread,
                "java.lang.ClassLoader" => class.role = Role::Loader,
                _ => {}
            }
            let above = at.checked_add(self.super_class.into())?;
            match aligned(self.memory.u64(above).ok()?) {
                Some(next) => at = next,
                None => return Some(()),
            }
        }
        None
    }
}

/// What `Klass::_layout_helper` says: the size of objects, whose lowest bit is another's; or
/// of arrays a tag, the bytes before the first element, and the logarithm of an element's
/// size.
fn form(helper: i32) -> Option<Form> {
    /// The two highest bits of arrays of pointers.
    const POINTERS: u32 = 0b10;
    if helper > 0 {
        let size = u64::from(helper.cast_unsigned() & !7);
        return (size > 0 && helper < MAX_INSTANCE).then_some(Form::Instance(size));
    }
    let word = helper.cast_unsigned();
    let header = u64::from(word >> 16 & 0xff);
    let log2 = word & 63;
    let is_array = helper < 0 && (12..=24).contains(&header) && log2 <= 3;
    is_array.then_some(match word >> 30 {
        POINTERS => Form::Pointers(header),
        _ => Form::Values(header, log2),
    })
}

/// How large objects are.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// How their class is kept.
    pub header: Header,
    /// How they are read.
    pub objects: Objects,
    /// Where mirrors have their size, words; and their class.
    pub mirror_size: u64,
    pub mirror_class: u64,
}

impl Sizes {
    /// Looks up what it takes; `object` is an object of the class `class`.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(
        fields: Fields<'_>,
        memory: &dyn TargetMemory,
        (object, class): (u64, u64),
    ) -> Result<Self, UnknownLayout> {
        let unknown = |what: &str| UnknownLayout { what: what.into() };
        let objects = Objects::of(fields, memory)?;
        let header = objects.header(memory, object, class);
        let number = |name: &'static str| {
            let place = fields.address(&[("java_lang_Class", name)])?;
            let offset = memory.i32(place).ok();
            let offset = offset.and_then(|offset| u64::try_from(offset).ok());
            offset
                .filter(|offset| (8..4096).contains(offset))
                .ok_or_else(|| unknown("java_lang_Class"))
        };
        Ok(Self {
            header: header.ok_or_else(|| unknown("oopDesc::_metadata"))?,
            objects,
            mirror_size: number("_oop_size_offset")?,
            mirror_class: number("_klass_offset")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_helpers_say_what_objects_are() {
        for (helper, expected) in [
            (24, Some(Form::Instance(24))),
            (25, Some(Form::Instance(24))),
            (0, None),
            (i32::MAX, None),
            (0x8010_0c02_u32.cast_signed(), Some(Form::Pointers(16))),
            (0x8018_0c03_u32.cast_signed(), Some(Form::Pointers(24))),
            (0xc010_0800_u32.cast_signed(), Some(Form::Values(16, 0))),
            (0xc010_0b03_u32.cast_signed(), Some(Form::Values(16, 3))),
            (0xc0ff_0b03_u32.cast_signed(), None),
            (-1, None),
        ] {
            assert_eq!(form(helper), expected, "{helper:x}");
        }
    }
}
