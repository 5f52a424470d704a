//! Which classes a program's own class loaders have made, and what keeps these: whoever has the
//! loader, one of its classes as an object, or an object of one of its classes. In the heap the
//! last of the three is no pointer: the object's header leads to the class beside the heap.

use std::collections::{HashMap, HashSet};

use super::classes::ClassId;
use super::walk::{Object, Walker};
use crate::jvm::Jvm;
use crate::jvm::class_loaders::Entry;
use crate::jvm::fields::Fields;
use crate::jvm::klass::mirror_of;
use crate::model::java_native::LoaderKind;

/// The class loaders that a VM has as long as it runs.
const OWN: [&str; 5] = [
    "jdk.internal.loader.ClassLoaders$AppClassLoader",
    "jdk.internal.loader.ClassLoaders$BootClassLoader",
    "jdk.internal.loader.ClassLoaders$PlatformClassLoader",
    "sun.misc.Launcher$AppClassLoader",
    "sun.misc.Launcher$ExtClassLoader",
];
/// The field of a class's object that has its loader; nothing for the VM's first.
const LOADER: &str = "java.lang.Class.classLoader";

/// A class as an object.
#[derive(Debug, Clone, Copy)]
struct Mirror {
    address: u64,
    /// Whether its loader is one of the VM's own, and keeps it.
    is_lasting: bool,
}

/// What is known of classes.
#[derive(Debug)]
pub struct Loading {
    /// The objects that stand for classes which their loader does not keep.
    hidden: HashSet<u64>,
    mirrors: HashMap<ClassId, Option<Mirror>>,
    last: Option<(ClassId, Option<Mirror>)>,
}

impl Loading {
    /// What the VM's list of class loaders tells of them.
    pub fn of(entries: &[Entry]) -> Self {
        let hidden = entries
            .iter()
            .filter(|it| it.kind == LoaderKind::HiddenClass);
        Self {
            hidden: hidden.map(|it| it.object).collect(),
            mirrors: HashMap::new(),
            last: None,
        }
    }

    /// Whether a class loader, by the name of its class, is there as long as the VM runs.
    pub fn is_own(name: &str) -> bool {
        OWN.contains(&name)
    }

    /// Whether a class is there as long as the VM runs. One that cannot be read is taken for such.
    pub fn is_lasting(&mut self, jvm: &Jvm, walker: &mut Walker<'_>, class: ClassId) -> bool {
        self.mirror(jvm, walker, class)
            .is_none_or(|mirror| mirror.is_lasting)
    }

    /// The object that stands for an object's class, if one of a program's own class loaders has
    /// made it.
    pub fn mirror_of(
        &mut self,
        jvm: &Jvm,
        walker: &mut Walker<'_>,
        object: &Object,
    ) -> Option<u64> {
        let mirror = match self.last {
            Some((class, mirror)) if class == object.class => mirror,
            _ => self.mirror(jvm, walker, object.class),
        };
        self.last = Some((object.class, mirror));
        mirror.filter(|it| !it.is_lasting).map(|it| it.address)
    }

    fn mirror(&mut self, jvm: &Jvm, walker: &mut Walker<'_>, class: ClassId) -> Option<Mirror> {
        if let Some(known) = self.mirrors.get(&class) {
            return *known;
        }
        let mirror = self.read(jvm, walker, class);
        self.mirrors.insert(class, mirror);
        mirror
    }

    fn read(&self, jvm: &Jvm, walker: &mut Walker<'_>, class: ClassId) -> Option<Mirror> {
        let klass = walker.classes.get(class)?.address;
        let address = mirror_of(Fields(&jvm.structs), &jvm.memory, klass).ok()?;
        let mirror = walker.object(address)?;
        let loader = walker.field(&mirror, LOADER)?;
        let is_lasting = match loader {
            _ if self.hidden.contains(&address) => false,
            0 => true,
            loader => {
                let loader = walker.object(loader)?;
                Self::is_own(&walker.classes.get(loader.class)?.name)
            }
        };
        Some(Mirror {
            address,
            is_lasting,
        })
    }
}
