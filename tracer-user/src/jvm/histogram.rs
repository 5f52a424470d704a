//! A class histogram (`GC.class_histogram`): how many objects of each class
//! are in the heap, and their bytes.
//!
//! ```text
//!  num     #instances         #bytes  class name (module)
//! -------------------------------------------------------
//!    1:          1513          87744  [B (java.base@11.0.13)
//! Total          9874        1050624
//! ```
//!
//! JDK 8 prints the same without modules.

use std::collections::HashMap;

use super::klass::array_element;

/// More classes than this are not kept; what comes later is small, as the
/// JVM sorts by bytes.
const MAX_CLASSES: usize = 50_000;
/// More of a name is not kept; the JVM's own limit is 65,535.
const MAX_NAME: usize = 1_000;
/// What collectors fill gaps in the heap with (JDK 19 and later): no objects
/// of the program.
const FILLER: &str = "[Ljdk.internal.vm.FillerElement;";

/// Objects and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Objects {
    /// How many.
    pub instances: u64,
    /// Bytes, without what they point to.
    pub bytes: u64,
}

/// How many objects of each class there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By the class's name as Java source has it. Classes of one name from
    /// several loaders are one.
    pub classes: HashMap<String, Objects>,
    /// The sums that the JVM prints.
    pub total: Objects,
}

impl Histogram {
    /// Reads what the command prints; none if that is of an unknown form or
    /// not complete. Lines that are not understood are left out.
    pub fn parse(text: &str) -> Option<Self> {
        let mut histogram = Self::default();
        for line in text.lines() {
            if let Some(sums) = line.strip_prefix("Total") {
                histogram.total = objects(&mut sums.split_whitespace())?;
                return Some(histogram);
            }
            let Some((name, objects)) = class(line) else {
                continue;
            };
            if name == FILLER || histogram.classes.len() >= MAX_CLASSES {
                continue;
            }
            let sum = histogram.classes.entry(java_name(name)).or_default();
            sum.instances = sum.instances.saturating_add(objects.instances);
            sum.bytes = sum.bytes.saturating_add(objects.bytes);
        }
        None
    }
}

/// `  1:  1513  87744  NAME (MODULE)`
fn class(line: &str) -> Option<(&str, Objects)> {
    let (number, rest) = line.trim_start().split_once(':')?;
    number.parse::<u64>().ok()?;
    let (instances, rest) = rest.trim_start().split_once(' ')?;
    let (bytes, name) = rest.trim_start().split_once(' ')?;
    let objects = objects(&mut [instances, bytes].into_iter())?;
    let name = name.trim();
    let name = match name.strip_suffix(')') {
        Some(_) => name.rsplit_once(" (").map_or(name, |(name, _)| name),
        None => name,
    };
    Some((name, objects))
}

fn objects<'a>(numbers: &mut impl Iterator<Item = &'a str>) -> Option<Objects> {
    Some(Objects {
        instances: numbers.next()?.parse().ok()?,
        bytes: numbers.next()?.parse().ok()?,
    })
}

/// `[[D` is `double[][]`, `[Ljava.lang.String;` is `java.lang.String[]`.
fn java_name(name: &str) -> String {
    let element = name.trim_start_matches('[');
    let dimensions = name.len() - element.len();
    let element = match dimensions {
        0 => element,
        _ => array_element(element).unwrap_or(element),
    };
    // The JVM allows 255 dimensions.
    let brackets = "[]".repeat(dimensions.min(255));
    element
        .chars()
        .take(MAX_NAME)
        .chain(brackets.chars())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(histogram: &Histogram, name: &str) -> (u64, u64) {
        let objects = histogram.classes[name];
        (objects.instances, objects.bytes)
    }

    #[test]
    fn every_version_is_read() {
        let new = "
 num     #instances         #bytes  class name (module)
-------------------------------------------------------
   1:             7        1905656  [Ljdk.internal.vm.FillerElement; (java.base@21.0.8)
   2:          1585          76104  [B (java.base@21.0.8)
   3:            11             64  [[D (java.base@21.0.8)
   4:             2             48  App$$Lambda/0x00007f1b3c001000
   5:             1             16  shop.Order (shop)
Total          1606        1981888
";
        let histogram = Histogram::parse(new).unwrap();
        assert_eq!(histogram.classes.len(), 4);
        assert_eq!(of(&histogram, "byte[]"), (1585, 76104));
        assert_eq!(of(&histogram, "double[][]"), (11, 64));
        assert_eq!(of(&histogram, "App$$Lambda/0x00007f1b3c001000"), (2, 48));
        assert_eq!(of(&histogram, "shop.Order"), (1, 16));
        assert_eq!(histogram.total.instances, 1606);
        let old = "
 num     #instances         #bytes  class name
----------------------------------------------
   1:           445         587520  [I
   2:            12            288  [Ljava.lang.String;
Total           457         587808
";
        let histogram = Histogram::parse(old).unwrap();
        assert_eq!(of(&histogram, "int[]"), (445, 587_520));
        assert_eq!(of(&histogram, "java.lang.String[]"), (12, 288));
    }

    #[test]
    fn classes_of_one_name_are_one() {
        let text = "   1:  2  32  A\n   2:  1  16  A\nTotal  3  48\n";
        assert_eq!(of(&Histogram::parse(text).unwrap(), "A"), (3, 48));
    }

    #[test]
    fn what_is_cut_short_is_none() {
        let text = "   1:  2  32  A\nTotal  2  32\n";
        for end in 0..text.len() - 4 {
            assert_eq!(Histogram::parse(&text[..end]), None, "{:?}", &text[..end]);
        }
    }

    #[test]
    fn broken_lines_are_left_out() {
        let text = "x: 1 2 A\n1: -1 2 B\n1: 1 99999999999999999999 C\n1:\n1: 1 2\n2: 1 2 )\n3: 1 2 (m)\nTotal 0 0";
        let histogram = Histogram::parse(text).unwrap();
        let mut names: Vec<_> = histogram.classes.keys().collect();
        names.sort();
        assert_eq!(names, ["(m)", ")"]);
    }
}
