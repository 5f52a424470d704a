//! A sample of the objects of some classes, oldest first: of those that have survived a
//! collection, and only if they are too few of the others.

use super::classes::{ClassId, Classes};
use super::walk::Object;
use crate::jvm::klass::stable;

/// Objects of a class.
pub const SAMPLED: usize = 64;

/// Objects of one class, each with the same chance.
#[derive(Debug, Clone, Default)]
struct Reservoir {
    objects: Vec<Object>,
    seen: u64,
}

impl Reservoir {
    /// `chance` is any number of 64 bits, each as likely.
    fn add(&mut self, object: Object, chance: u64) {
        self.seen += 1;
        if self.objects.len() < SAMPLED {
            self.objects.push(object);
            return;
        }
        let index = usize::try_from(chance % self.seen).unwrap_or(usize::MAX);
        if let Some(place) = self.objects.get_mut(index) {
            *place = object;
        }
    }
}

/// The samples of all classes that are asked for.
pub struct Samples<'a> {
    names: Vec<&'a str>,
    /// Of each, those that survived and those of eden.
    of: Vec<[Reservoir; 2]>,
    /// What is asked for, by a class's index.
    asked: Vec<Option<Option<usize>>>,
    random: u64,
}

impl<'a> Samples<'a> {
    /// Of classes of these names.
    pub fn new(names: &'a [String]) -> Self {
        Self {
            names: names.iter().map(|name| stable(name)).collect(),
            of: vec![<[Reservoir; 2]>::default(); names.len()],
            asked: Vec::new(),
            random: 0x9e37_79b9_7f4a_7c15,
        }
    }

    /// Looks at objects.
    pub fn add(&mut self, classes: &Classes<'_>, objects: &[Object], is_eden: bool) {
        for object in objects {
            if let Some(index) = self.asked(classes, object.class) {
                self.random ^= self.random << 13;
                self.random ^= self.random >> 7;
                self.random ^= self.random << 17;
                self.of[index][usize::from(is_eden)].add(*object, self.random);
            }
        }
    }

    fn asked(&mut self, classes: &Classes<'_>, class: ClassId) -> Option<usize> {
        let index = class.index();
        if index >= self.asked.len() {
            self.asked.resize(index + 1, None);
        }
        if let Some(known) = self.asked[index] {
            return known;
        }
        let name = &classes.get(class)?.name;
        let found = self.names.iter().position(|asked| asked == name);
        self.asked[index] = Some(found);
        found
    }

    /// The samples, in the order of the names.
    pub fn take(self) -> Vec<Vec<Object>> {
        let one = |[mut old, eden]: [Reservoir; 2]| {
            old.objects.extend(eden.objects);
            old.objects.truncate(SAMPLED);
            old.objects
        };
        self.of.into_iter().map(one).collect()
    }
}
