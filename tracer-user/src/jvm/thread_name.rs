//! Names of Java threads, whole, from their `java.lang.Thread` objects.
//!
//! A collection may move the objects while they are read. So a name is
//! believed only if it is an object of class `String`, of a length and with
//! characters that a name can have, and twice the same.

use super::fields::{Fields, Number, UnknownLayout};
use super::java_fields::JavaFields;
use super::memory::TargetMemory;
use super::vmstructs::VmStructs;

/// Longer names are not believed, bytes.
const MAX_NAME: usize = 1024;

/// Characters of one byte each, in `String.coder`.
const LATIN1: u8 = 0;

/// An object's header: how its class is kept.
#[derive(Debug, Clone, Copy)]
enum Header {
    /// In the upper bits of the first word (`UseCompactObjectHeaders`).
    Compact,
    /// In 32 bits of its own.
    Narrow,
    /// In 64 bits.
    Wide,
}

impl Header {
    /// Where an array has its length and its elements.
    fn array(self) -> (u64, u64) {
        match self {
            Header::Compact => (8, 12),
            Header::Narrow => (12, 16),
            Header::Wide => (16, 24),
        }
    }
}

/// Where the VM keeps a class by number, before and after JDK 16.
macro_rules! well_known {
    ($class:literal) => {
        [
            (
                "vmClasses",
                concat!(
                    "_klasses[static_cast<int>(vmClassID::",
                    $class,
                    "_klass_knum)]"
                ),
            ),
            (
                "SystemDictionary",
                concat!(
                    "_well_known_klasses[SystemDictionary::",
                    $class,
                    "_klass_knum]"
                ),
            ),
        ]
    };
}

/// Pointers of 32 bits: added to this after a shift.
#[derive(Debug, Clone, Copy)]
struct Narrow {
    base: u64,
    shift: u32,
}

impl Narrow {
    fn wide(self, narrow: u32) -> u64 {
        self.base.wrapping_add(u64::from(narrow) << self.shift)
    }
}

/// How a thread's name is found.
#[derive(Debug, Clone, Copy)]
pub struct ThreadNames {
    /// `JavaThread::_threadObj`, and whether it is a pointer to a pointer.
    thread: u32,
    by_handle: bool,
    /// `Thread.name`.
    name: u32,
    /// The class `String`.
    string: u64,
    /// `String.value`.
    value: u32,
    /// `String.coder`; JDK 8 has only characters of two bytes.
    coder: Option<u32>,
    /// Where an object's class is, narrow.
    klass: u32,
    klasses: Narrow,
    /// Where in the first word, if that may be.
    mark_shift: Option<u32>,
    /// Whether pointers to classes may be wide. From JDK 21 on they are not,
    /// unless a flag of no use says so; and arrays have another form then.
    wide_klasses: bool,
    oops: Narrow,
}

impl ThreadNames {
    /// Looks up what it takes. None until the VM has loaded its classes.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(
        structs: &VmStructs,
        memory: &dyn TargetMemory,
    ) -> Result<Option<Self>, UnknownLayout> {
        let fields = Fields(structs);
        let classes = JavaFields::of(fields)?;
        let object = ("JavaThread", "_threadObj");
        let kind = structs.field(object.0, object.1);
        let loaded =
            |names: [super::fields::Name; 2]| Ok(memory.u64(fields.address(&names)?).unwrap_or(0));
        let (thread, string) = (
            loaded(well_known!("Thread"))?,
            loaded(well_known!("String"))?,
        );
        let name = classes.offset(memory, thread, "name");
        let value = classes.offset(memory, string, "value");
        let (Some(name), Some(value)) = (name, value) else {
            return Ok(None);
        };
        Ok(Some(ThreadNames {
            thread: fields.offset(&[object])?,
            by_handle: kind.is_some_and(|field| field.type_string == "OopHandle"),
            name,
            string,
            value,
            coder: classes.offset(memory, string, "coder"),
            klass: fields.offset(&[
                ("oopDesc", "_metadata._compressed_klass"),
                // From JDK 27 on.
                ("oopDesc", "_compressed_klass"),
            ])?,
            klasses: narrow(
                fields,
                memory,
                [
                    ("CompressedKlassPointers", "_narrow_klass"),
                    ("Universe", "_narrow_klass"),
                    ("CompressedKlassPointers", ""),
                ],
            )?,
            mark_shift: structs
                .long_constant("markWord::klass_shift")
                .and_then(|shift| u32::try_from(shift).ok())
                .filter(|shift| *shift < 64),
            wide_klasses: fields
                .find_offset(&[("InstanceKlass", "_fields")])
                .is_some(),
            oops: narrow(
                fields,
                memory,
                [
                    ("CompressedOops", "_narrow_oop"),
                    ("Universe", "_narrow_oop"),
                    ("CompressedOops", ""),
                ],
            )?,
        }))
    }

    /// The name of the thread with this `JavaThread`, if it has one and can
    /// be read: not with every collector, nor if pointers to classes are not
    /// compressed.
    pub fn name(&self, memory: &dyn TargetMemory, thread: u64) -> Option<String> {
        let name = self.look(memory, thread)?;
        (self.look(memory, thread)? == name).then_some(name)
    }

    fn look(&self, memory: &dyn TargetMemory, thread: u64) -> Option<String> {
        let object = memory.u64(thread.checked_add(self.thread.into())?).ok()?;
        let object = match self.by_handle {
            true => memory.u64(object).ok()?,
            false => object,
        };
        // Which width pointers have, the class of what they lead to tells.
        let (string, header, narrow) = [true, false].into_iter().find_map(|narrow| {
            let string = self.follow(memory, object, self.name, narrow)?;
            Some((string, self.string_header(memory, string)?, narrow))
        })?;
        let array = self.follow(memory, string, self.value, narrow)?;
        let coder = self.coder.map(|coder| memory.u8(string + u64::from(coder)));
        let latin1 = coder.transpose().ok()? == Some(LATIN1);
        let (length, data) = header.array();
        let count = memory.u32(array + length).ok()? as usize;
        // Elements of JDK 8's strings are characters, not bytes.
        let size = if self.coder.is_some() { 1 } else { 2 };
        let bytes = count.checked_mul(size).filter(|bytes| *bytes <= MAX_NAME)?;
        let bytes = memory.vec(array + data, bytes).ok()?;
        let text = match latin1 {
            true => bytes.iter().copied().map(char::from).collect(),
            false => utf16(&bytes)?,
        };
        let is_name = !text.is_empty() && !text.contains(char::is_control);
        is_name.then_some(text)
    }

    /// The object that a field of an object points to.
    fn follow(
        &self,
        memory: &dyn TargetMemory,
        object: u64,
        field: u32,
        narrow: bool,
    ) -> Option<u64> {
        let address = object.checked_add(field.into())?;
        let to = match narrow {
            true => self
                .oops
                .wide(memory.u32(address).ok().filter(|oop| *oop != 0)?),
            false => memory.u64(address).ok()?,
        };
        (to != 0 && to < 1 << 47).then_some(to)
    }

    /// The header of an object of class `String`; none if it is no such.
    fn string_header(&self, memory: &dyn TargetMemory, object: u64) -> Option<Header> {
        let klass = memory.u64(object.checked_add(self.klass.into())?).ok()?;
        #[expect(clippy::cast_possible_truncation, reason = "the lower half is meant")]
        let narrow = klass as u32;
        if self.klasses.wide(narrow) == self.string {
            return Some(Header::Narrow);
        }
        if self.wide_klasses && klass == self.string {
            return Some(Header::Wide);
        }
        let mark = memory.u64(object).ok()?;
        let narrow = u32::try_from(mark >> self.mark_shift?).ok()?;
        (self.klasses.wide(narrow) == self.string).then_some(Header::Compact)
    }
}

fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks();
    let units: Vec<_> = units.iter().copied().map(u16::from_le_bytes).collect();
    rest.is_empty().then(|| String::from_utf16(&units).ok())?
}

/// The base and shift of narrow pointers, by the names that they have had: a
/// struct's fields, or fields.
fn narrow(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    names: [super::fields::Name; 3],
) -> Result<Narrow, UnknownLayout> {
    let find = |part: &'static str| {
        names.iter().find_map(|(kind, name)| {
            let name = match *name {
                "" => part.to_owned(),
                name => format!("{name}.{part}"),
            };
            fields.static_field(kind, &name)
        })
    };
    let unknown = || UnknownLayout {
        what: format!("{}::_base", names[2].0),
    };
    let shift = Number {
        offset: 0,
        width: 4,
        signed: false,
    };
    let base = find("_base").ok_or_else(unknown)?;
    let shift = shift.read(memory, find("_shift").ok_or_else(unknown)?);
    Ok(Narrow {
        base: memory.u64(base).unwrap_or(0),
        shift: shift
            .ok()
            .and_then(|shift| u32::try_from(shift).ok())
            .unwrap_or(0)
            & 31,
    })
}
