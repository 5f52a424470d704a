//! The types of a chunk, which it describes itself (`jdk.types.…`): an element for each, in a tree.

use std::collections::HashMap;
use std::rc::Rc;

use super::Broken;
use super::bytes::Bytes;

/// Elements within each other: root, metadata, class, field, annotation, value.
const MAX_DEPTH: u32 = 16;
/// Letters of a name.
const MAX_NAME: usize = 512;

/// All types, by their numbers.
#[derive(Debug, Default)]
pub struct Types {
    by_id: HashMap<u64, Type>,
}

/// A type, which is that of an event, too.
#[derive(Debug)]
pub struct Type {
    /// Such as `jdk.OldObjectSample`.
    pub name: Rc<str>,
    /// Its fields, in the order in which they are written.
    pub fields: Vec<Field>,
}

/// A field.
#[derive(Debug, Clone)]
pub struct Field {
    /// Its name.
    pub name: Rc<str>,
    /// The number of its type.
    pub of: u64,
    /// Whether there is the number of an entry of its type's pool in its place.
    pub is_pooled: bool,
    /// Whether there are any number of them.
    pub is_array: bool,
}

/// What an element says of itself.
#[derive(Debug, Default)]
struct Attributes {
    id: Option<u64>,
    name: Option<Rc<str>>,
    of: Option<u64>,
    is_pooled: bool,
    is_array: bool,
}

impl Types {
    /// Reads those of a chunk, whose description is at `at`.
    pub fn read(chunk: &[u8], at: usize) -> Result<Self, Broken> {
        let mut bytes = Bytes::at(chunk, at);
        let _size = bytes.number()?;
        if bytes.number()? != 0 {
            return Err(Broken::Malformed);
        }
        for _start_duration_and_id in 0..3 {
            bytes.number()?;
        }
        let mut reader = Reader {
            texts: Vec::new(),
            types: Self::default(),
            bytes,
        };
        for _ in 0..reader.bytes.number()? {
            let text = reader.bytes.text()?.letters(MAX_NAME);
            reader.texts.push(text.unwrap_or_default().into());
        }
        reader.element(0, None)?;
        Ok(reader.types)
    }

    /// The type with a number.
    pub fn get(&self, id: u64) -> Option<&Type> {
        self.by_id.get(&id)
    }

    /// The number of the type with a name.
    pub fn named(&self, name: &str) -> Option<u64> {
        let mut all = self.by_id.iter();
        all.find_map(|(id, it)| (&*it.name == name).then_some(*id))
    }
}

struct Reader<'a> {
    texts: Vec<Rc<str>>,
    types: Types,
    bytes: Bytes<'a>,
}

impl Reader<'_> {
    /// Reads an element and those within; `class` is the type in which it is.
    fn element(&mut self, depth: u32, class: Option<u64>) -> Result<(), Broken> {
        if depth > MAX_DEPTH {
            return Err(Broken::Malformed);
        }
        let kind = self.name()?;
        let attributes = self.attributes()?;
        let mut within = class;
        match (&*kind, class) {
            ("class", _) => {
                let id = attributes.id.ok_or(Broken::Malformed)?;
                let name = attributes.name.ok_or(Broken::Malformed)?;
                let fields = Vec::new();
                self.types.by_id.insert(id, Type { name, fields });
                within = Some(id);
            }
            ("field", Some(class)) => {
                let field = Field {
                    name: attributes.name.ok_or(Broken::Malformed)?,
                    of: attributes.of.ok_or(Broken::Malformed)?,
                    is_pooled: attributes.is_pooled,
                    is_array: attributes.is_array,
                };
                if let Some(class) = self.types.by_id.get_mut(&class) {
                    class.fields.push(field);
                }
            }
            _ => {}
        }
        for _ in 0..self.bytes.number()? {
            self.element(depth + 1, within)?;
        }
        Ok(())
    }

    fn attributes(&mut self) -> Result<Attributes, Broken> {
        let mut attributes = Attributes::default();
        for _ in 0..self.bytes.number()? {
            let (key, value) = (self.name()?, self.name()?);
            match &*key {
                "id" => attributes.id = value.parse().ok(),
                "name" => attributes.name = Some(value),
                "class" => attributes.of = value.parse().ok(),
                "constantPool" => attributes.is_pooled = &*value == "true",
                "dimension" => attributes.is_array = &*value != "0",
                _ => {}
            }
        }
        Ok(attributes)
    }

    /// One of the texts, by its number.
    fn name(&mut self) -> Result<Rc<str>, Broken> {
        let number = self.bytes.number()?;
        let index = usize::try_from(number).map_err(|_| Broken::Malformed)?;
        self.texts.get(index).cloned().ok_or(Broken::Malformed)
    }
}
