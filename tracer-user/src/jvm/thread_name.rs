//! Names of Java threads, whole, from their `java.lang.Thread` objects.
//!
//! A collection may move the objects while they are read. So a name is
//! believed only if it is an object of class `String`, of a length and with
//! characters that a name can have, and twice the same.

use super::fields::{Fields, UnknownLayout};
use super::java_fields::JavaFields;
use super::klass::well_known;
use super::memory::TargetMemory;
use super::objects::Objects;
use super::vmstructs::VmStructs;

/// Longer names are not believed, bytes.
const MAX_NAME: usize = 1024;

/// Characters of one byte each, in `String.coder`.
const LATIN1: u8 = 0;

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
    objects: Objects,
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
        let thread = well_known(fields, memory, "Thread")?;
        let string = well_known(fields, memory, "String")?;
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
            objects: Objects::of(fields, memory)?,
        }))
    }

    /// The name of the thread with this `JavaThread`, if it has one and can
    /// be read: not with every collector, nor if pointers to classes are not
    /// compressed.
    pub fn name(&self, memory: &dyn TargetMemory, thread: u64) -> Option<String> {
        let name = self.look(memory, thread)?;
        (self.look(memory, thread)? == name).then_some(name)
    }

    /// The `java.lang.Thread` of the thread with this `JavaThread`, now.
    pub fn object(&self, memory: &dyn TargetMemory, thread: u64) -> Option<u64> {
        let object = memory.u64(thread.checked_add(self.thread.into())?).ok()?;
        match self.by_handle {
            true => memory.u64(object).ok(),
            false => Some(object),
        }
    }

    fn look(&self, memory: &dyn TargetMemory, thread: u64) -> Option<String> {
        let object = self.object(memory, thread)?;
        // Which width pointers have, the class of what they lead to tells.
        let (string, header, narrow) = [true, false].into_iter().find_map(|narrow| {
            let string = self.objects.follow(memory, object, self.name, narrow)?;
            let header = self.objects.header(memory, string, self.string)?;
            Some((string, header, narrow))
        })?;
        let array = self.objects.follow(memory, string, self.value, narrow)?;
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
}

fn utf16(bytes: &[u8]) -> Option<String> {
    let (units, rest) = bytes.as_chunks();
    let units: Vec<_> = units.iter().copied().map(u16::from_le_bytes).collect();
    rest.is_empty().then(|| String::from_utf16(&units).ok())?
}
