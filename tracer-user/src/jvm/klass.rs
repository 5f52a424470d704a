//! Classes (`Klass`) and how their names are written.

use anyhow::{Context, Result};

use super::fields::{Fields, UnknownLayout};
use super::memory::TargetMemory;
use super::pool::aligned;
use super::symbol::SymbolLayout;

/// Arrays have at most so many dimensions.
const MAX_DIMENSIONS: usize = 255;

/// What stands before a number that differs from run to run: classes that the
/// JDK makes for lambdas, and for methods often called by reflection.
const NUMBERED: [&str; 4] = [
    "GeneratedMethodAccessor",
    "GeneratedConstructorAccessor",
    "GeneratedSerializationConstructorAccessor",
    "$$Lambda$",
];

/// Where in a class its name is.
#[derive(Debug, Clone, Copy)]
pub struct KlassLayout {
    name: u32,
}

impl KlassLayout {
    /// Looks it up.
    ///
    /// # Errors
    /// Names what the VM does not export.
    pub fn of(fields: Fields<'_>) -> Result<Self, UnknownLayout> {
        let name = fields.offset(&[("Klass", "_name")])?;
        Ok(KlassLayout { name })
    }

    /// The name of the class at an address; none if there is none that could
    /// be one. Written as [`class_name`] says.
    pub fn name(
        &self,
        memory: &dyn TargetMemory,
        symbols: &SymbolLayout,
        klass: u64,
    ) -> Option<String> {
        if klass == 0 || !klass.is_multiple_of(8) {
            return None;
        }
        let symbol = memory.u64(klass.checked_add(self.name.into())?).ok()?;
        class_name(&symbols.read(memory, symbol)?)
    }
}

/// The address of a class that the VM keeps by number (`Object`, `String`);
/// zero until it is loaded. JDK 16 gave the numbers another home.
///
/// # Errors
/// Fails if the VM does not export it.
pub fn well_known(
    fields: Fields<'_>,
    memory: &dyn TargetMemory,
    class: &str,
) -> Result<u64, UnknownLayout> {
    let places = [
        (
            "vmClasses",
            format!("_klasses[static_cast<int>(vmClassID::{class}_klass_knum)]"),
        ),
        (
            "SystemDictionary",
            format!("_well_known_klasses[SystemDictionary::{class}_klass_knum]"),
        ),
    ];
    let place = places
        .iter()
        .find_map(|(kind, name)| fields.static_field(kind, name));
    let place = place.ok_or_else(|| UnknownLayout {
        what: format!("vmClasses::{class}_klass_knum"),
    })?;
    Ok(memory.u64(place).unwrap_or(0))
}

/// The object of class `Class` that stands for a class.
///
/// # Errors
/// Fails if the VM does not tell, or has not made it yet.
pub fn mirror_of(fields: Fields<'_>, memory: &dyn TargetMemory, class: u64) -> Result<u64> {
    let name = ("Klass", "_java_mirror");
    let place = class.wrapping_add(fields.offset(&[name])?.into());
    let mut mirror = memory.u64(place)?;
    let kind = fields.0.field(name.0, name.1);
    if kind.is_some_and(|field| field.type_string == "OopHandle") {
        mirror = memory.u64(mirror)?;
    }
    aligned(mirror).context("its classes have no objects yet")
}

/// A class's name as programmers write it, from the VM's (`java/lang/String`,
/// `[D`).
///
/// What differs from run to run is left out, so that stacks of two runs can
/// be compared: the address at the end of a hidden class's name, and the
/// numbers of lambdas and of reflection's accessors. All lambdas of a class
/// are `Foo$$Lambda`.
pub fn class_name(name: &str) -> Option<String> {
    let element = name.trim_start_matches('[');
    let dimensions = name.len() - element.len();
    if dimensions > MAX_DIMENSIONS {
        return None;
    }
    let element = match dimensions {
        0 => element,
        _ => array_element(element)?,
    };
    let element = stable(element).replace('/', ".");
    (!element.is_empty()).then(|| element + &"[]".repeat(dimensions))
}

/// A class's name without what differs from run to run; see [`class_name`].
pub fn stable(name: &str) -> &str {
    without_number(without_address(name))
}

/// The type of an array's elements, from its descriptor.
pub fn array_element(descriptor: &str) -> Option<&str> {
    Some(match descriptor {
        "Z" => "boolean",
        "B" => "byte",
        "C" => "char",
        "S" => "short",
        "I" => "int",
        "J" => "long",
        "F" => "float",
        "D" => "double",
        class => class.strip_prefix('L')?.strip_suffix(';')?,
    })
}

/// The name without the address that a hidden class has behind it.
fn without_address(name: &str) -> &str {
    match name.rsplit_once(['+', '/']) {
        Some((before, address)) if is_address(address) => before,
        _ => name,
    }
}

fn is_address(text: &str) -> bool {
    let digits = text.strip_prefix("0x").unwrap_or_default();
    !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
}

fn without_number(name: &str) -> &str {
    let plain = name.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let numbered = plain.len() < name.len() && NUMBERED.iter().any(|made| plain.ends_with(made));
    if !numbered {
        return name;
    }
    plain.trim_end_matches('$')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_written_as_in_source() {
        for (vm, written) in [
            ("java/lang/String", "java.lang.String"),
            ("Outer$Inner$1", "Outer$Inner$1"),
            ("[D", "double[]"),
            ("[[Ljava/lang/Object;", "java.lang.Object[][]"),
            ("[LFoo$$Lambda+0x00007f12;", "Foo$$Lambda[]"),
        ] {
            assert_eq!(class_name(vm).as_deref(), Some(written));
        }
        for broken in ["", "[", "[Q", "[Lopen", "[[[L;"] {
            assert_eq!(class_name(broken), None, "{broken}");
        }
        assert_eq!(class_name(&"[".repeat(300)), None);
    }

    #[test]
    fn what_differs_between_runs_is_left_out() {
        for (vm, written) in [
            ("a/Foo$$Lambda+0x00007f1c30000a00", "a.Foo$$Lambda"),
            ("a/Foo$$Lambda$14+0x0000000800c01208", "a.Foo$$Lambda"),
            ("a/Foo$$Lambda$14", "a.Foo$$Lambda"),
            ("a/Foo$$Lambda$14/0x0000000800c01208", "a.Foo$$Lambda"),
            (
                "java/lang/invoke/LambdaForm$MH+0x00007f",
                "java.lang.invoke.LambdaForm$MH",
            ),
            (
                "jdk/internal/reflect/GeneratedMethodAccessor12",
                "jdk.internal.reflect.GeneratedMethodAccessor",
            ),
            ("a/Foo$12", "a.Foo$12"),
            ("a/b+c/D", "a.b+c.D"),
            ("a/0xZ", "a.0xZ"),
        ] {
            assert_eq!(class_name(vm).as_deref(), Some(written));
        }
    }
}
