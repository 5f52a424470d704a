//! From object to object through a heap, a block at a time, so that it can be gone through
//! in either direction.
//!
//! Objects follow each other without a gap, but for room that threads have for those that
//! they will make, and for what a collector has left of classes that are gone. Behind such,
//! what looks like an object is believed if another follows.

use super::classes::{ClassId, Classes, Form, Sizes};
use super::spaces::Space;
use super::window::Window;

/// Objects are gone through in blocks of this size, bytes.
const BLOCK: u64 = 1 << 20;
/// No mirror is larger, bytes.
const MAX_MIRROR: u64 = 1 << 20;
/// Pointers of an array that are read at once, bytes.
const ELEMENTS: u64 = 64 << 10;
/// The lowest bits of the first word of an object that a collection has moved.
const MOVED: u8 = 0b11;

/// An object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Object {
    /// Its first byte.
    pub address: u64,
    /// Its class.
    pub class: ClassId,
    /// Bytes.
    pub size: u64,
}

/// Where in an object a pointer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In a field: an index into its class's slots.
    Field(u32),
    /// In a static field of a class: an index into that class's statics.
    Static(ClassId, u32),
    /// In an element of an array.
    Element,
    /// In a field that is a `long`: an index into its class's.
    Long(u32),
    /// In its header: its class.
    Class,
}

/// A part of a space: the objects that begin within.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    start: u64,
    end: u64,
    space: Space,
}

/// Goes through a heap.
pub struct Walker<'a> {
    /// Its memory.
    pub window: Window<'a>,
    /// Its classes.
    pub classes: Classes<'a>,
    sizes: Sizes,
    /// Whether pointers to objects have 32 bits.
    narrow: bool,
    /// Room without objects: first address, and the one behind the last; in order.
    unused: Vec<(u64, u64)>,
    last: (u64, Option<ClassId>),
    /// Bytes in which no object was found.
    pub skipped: u64,
}

impl<'a> Walker<'a> {
    /// Of a heap whose threads have this room in it.
    pub fn new(
        window: Window<'a>,
        classes: Classes<'a>,
        sizes: Sizes,
        narrow: bool,
        unused: Vec<(u64, u64)>,
    ) -> Self {
        Self {
            window,
            classes,
            sizes,
            narrow,
            unused,
            last: (0, None),
            skipped: 0,
        }
    }

    /// The blocks of spaces. `tell` is called with the objects of each, and whether they are
    /// of eden; it says whether to go on.
    pub fn survey(
        &mut self,
        spaces: &[Space],
        tell: &mut dyn FnMut(&mut Self, &[Object], bool) -> bool,
    ) -> Vec<Block> {
        let (mut blocks, mut objects, mut covered) = (Vec::new(), Vec::new(), 0);
        for space in spaces {
            // An object of G1's may reach through further regions.
            let mut at = space.start.max(covered);
            while at < space.end {
                let end = (at / BLOCK + 1) * BLOCK;
                let block = Block {
                    start: at,
                    end: end.min(space.end),
                    space: *space,
                };
                at = self.block(block, &mut objects).max(block.end);
                blocks.push(block);
                if !tell(self, &objects, space.is_eden) {
                    return blocks;
                }
            }
            covered = covered.max(at);
        }
        blocks
    }

    /// The objects that begin in a block; returns where the next would begin.
    pub fn block(&mut self, block: Block, objects: &mut Vec<Object>) -> u64 {
        objects.clear();
        let (mut at, mut sure) = (block.start, block.start == block.space.start);
        while at < block.end {
            if let Some(end) = self.unused_at(at) {
                (at, sure) = (end, false);
                continue;
            }
            match self.fitting(at, &block.space) {
                Some(object) if sure || self.is_followed(&object, &block.space) => {
                    objects.push(object);
                    (at, sure) = (at + object.size, true);
                }
                _ => {
                    let next = self.window.next_resident(at + 8).unwrap_or(block.end);
                    self.skipped += next.min(block.end) - at;
                    (at, sure) = (next, false);
                }
            }
        }
        at
    }

    /// The end of the unused room that an address is in.
    fn unused_at(&self, address: u64) -> Option<u64> {
        let index = self.unused.partition_point(|(_, end)| *end <= address);
        let (start, end) = self.unused.get(index)?;
        (*start <= address).then_some(*end)
    }

    fn is_followed(&mut self, object: &Object, space: &Space) -> bool {
        let next = object.address + object.size;
        next >= space.end || self.unused_at(next).is_some() || self.fitting(next, space).is_some()
    }

    /// The object at an address, if it ends with its space; only one that begins it may be
    /// larger.
    fn fitting(&mut self, address: u64, space: &Space) -> Option<Object> {
        let object = self.object(address)?;
        let end = address.checked_add(object.size)?;
        (end <= space.end || address == space.start).then_some(object)
    }

    /// The object at an address, if there can be one.
    pub fn object(&mut self, address: u64) -> Option<Object> {
        let first: [u8; 16] = *self.window.at(address, 16)?.first_chunk()?;
        if first[0] & MOVED == MOVED {
            return None;
        }
        let klass = self.sizes.objects.class(self.sizes.header, &first);
        let class = self.class(klass)?;
        let size = match self.classes.get(class)?.form {
            Form::Instance(size) => size,
            Form::Mirror => {
                let words = self.window.u32(address + self.sizes.mirror_size)?;
                let size = 8 * u64::from(words);
                (16..=MAX_MIRROR).contains(&size).then_some(size)?
            }
            Form::Pointers(header) => {
                let length = self.length(address)?;
                header + length * self.width()
            }
            Form::Values(header, log2) => header + (self.length(address)? << log2),
        };
        Some(Object {
            address,
            class,
            size: size.next_multiple_of(8),
        })
    }

    fn class(&mut self, klass: u64) -> Option<ClassId> {
        if self.last.0 != klass {
            self.last = (klass, self.classes.at(klass));
        }
        self.last.1
    }

    fn width(&self) -> u64 {
        if self.narrow { 4 } else { 8 }
    }

    /// The length of an array, which is never negative.
    fn length(&mut self, array: u64) -> Option<u64> {
        let (place, _) = self.sizes.header.array();
        let length = self.window.u32(array + place)?;
        i32::try_from(length).is_ok().then_some(length.into())
    }

    /// The pointer at an address; 0 if it is none.
    fn pointer(&mut self, address: u64) -> u64 {
        let to = match self.narrow {
            true => self
                .window
                .u32(address)
                .map(|narrow| self.sizes.objects.wide(narrow)),
            false => self.window.u64(address),
        };
        to.unwrap_or(0)
    }

    /// Adds to `found` where an object points to what `is_sought`.
    pub fn references(
        &mut self,
        object: &Object,
        is_sought: &dyn Fn(u64) -> bool,
        found: &mut Vec<(Place, u64)>,
    ) {
        let Some(class) = self.classes.get(object.class) else {
            return;
        };
        let form = class.form;
        if let Form::Pointers(header) = form {
            self.elements(object, header, is_sought, found);
            return;
        }
        for index in 0..u32::try_from(class.slots.len()).unwrap_or(0) {
            let class = self.classes.get(object.class);
            let Some(slot) = class.and_then(|class| class.slots.get(index as usize)) else {
                break;
            };
            let to = self.pointer(object.address + u64::from(slot.offset));
            if is_sought(to) {
                found.push((Place::Field(index), to));
            }
        }
        if form == Form::Mirror {
            self.statics(object, is_sought, found);
        }
    }

    /// The words of an object's `long` fields, each with the field's index.
    pub fn longs(&mut self, object: &Object, found: &mut Vec<(u32, u64)>) {
        found.clear();
        let class = self.classes.get(object.class);
        let longs = class.map(|class| class.longs.as_slice());
        let offsets = longs.unwrap_or_default().iter().map(|slot| slot.offset);
        for (index, offset) in (0..).zip(offsets) {
            let word = self.window.u64(object.address + u64::from(offset));
            found.extend(word.map(|word| (index, word)));
        }
    }

    /// What a field of an object points to, by the field's name; 0 if to nothing.
    pub fn field(&mut self, object: &Object, name: &str) -> Option<u64> {
        let slots = &self.classes.get(object.class)?.slots;
        let offset = slots.iter().find(|slot| slot.name == name)?.offset;
        Some(self.pointer(object.address + u64::from(offset)))
    }

    /// The class that a mirror stands for; none of one of `int` and its like.
    pub fn mirrored(&mut self, mirror: &Object) -> Option<ClassId> {
        let klass = self.window.u64(mirror.address + self.sizes.mirror_class)?;
        self.classes.at(klass)
    }

    fn statics(
        &mut self,
        mirror: &Object,
        is_sought: &dyn Fn(u64) -> bool,
        found: &mut Vec<(Place, u64)>,
    ) {
        let Some(of) = self.mirrored(mirror) else {
            return;
        };
        let class = self.classes.get(of);
        let statics = class.map(|class| class.statics.as_slice());
        let offsets = statics.unwrap_or_default().iter().map(|slot| slot.offset);
        let offsets: Vec<_> = offsets.zip(0_u32..).collect();
        for (offset, index) in offsets {
            let to = self.pointer(mirror.address + u64::from(offset));
            if u64::from(offset) < mirror.size && is_sought(to) {
                found.push((Place::Static(of, index), to));
            }
        }
    }

    fn elements(
        &mut self,
        array: &Object,
        header: u64,
        is_sought: &dyn Fn(u64) -> bool,
        found: &mut Vec<(Place, u64)>,
    ) {
        let end = array.address + header + self.length(array.address).unwrap_or(0) * self.width();
        let mut at = array.address + header;
        while at < end {
            let length = (end - at).min(ELEMENTS);
            let objects = self.sizes.objects;
            // What is not in memory points nowhere.
            let bytes = self.window.at(at, usize::try_from(length).unwrap_or(0));
            let bytes = bytes.unwrap_or_default();
            let mut add = |to: u64| {
                if is_sought(to) {
                    found.push((Place::Element, to));
                }
            };
            if self.narrow {
                let words = bytes.as_chunks().0.iter().copied();
                words.for_each(|word| add(objects.wide(u32::from_le_bytes(word))));
            } else {
                let words = bytes.as_chunks().0.iter().copied();
                words.for_each(|word| add(u64::from_le_bytes(word)));
            }
            at += length;
        }
    }
}
