//! Names of Java frames, read soon after their stacks are first seen: code is
//! compiled anew, and classes are unloaded.

use std::collections::HashMap;

use tracer_ebpf::frame::Frame;
use tracer_ebpf::site::Site;

use super::jvms::Jvms;
use crate::jvm::frames::{JavaFrame, Named};
use crate::jvm::unnamed::Unnamed;
use crate::kernel::object::Object;

/// Names of the Java frames of sites.
#[derive(Default)]
pub struct SiteNames {
    /// By the index of the site: its Java words, each with its names.
    sites: HashMap<u32, Vec<(u64, Named)>>,
    /// All sites before this one have been looked at.
    next: u32,
}

impl SiteNames {
    /// Names the frames of sites that are new.
    pub fn poll(&mut self, object: &Object, jvms: &mut Jvms) {
        let mut next = self.next;
        for (index, site) in object.sites_from(self.next) {
            if index == next {
                next += 1;
            }
            if !self.sites.contains_key(&index)
                && let Some(jvm) = jvms.readable_mut(site.image)
            {
                let mut name = |word| match Frame::of(word) {
                    Frame::ClassName { .. } => told_class(object, word),
                    _ => jvm.name(word),
                };
                let words = java_words(&site).map(|word| (word, name(word)));
                self.sites.insert(index, words.collect());
            }
        }
        self.next = next;
    }

    /// The names of a site's words, in their order; `None` for native frames
    /// and for what was never named.
    pub fn of(&self, site: u32, words: &[u64]) -> Vec<Option<Named>> {
        let Some(named) = self.sites.get(&site) else {
            return Vec::new();
        };
        let find = |word: &u64| named.iter().find(|(known, _)| known == word);
        let names = words.iter().map(|word| find(word).map(|(_, named)| named));
        names.map(|named| named.cloned()).collect()
    }
}

/// The class of an object that the VM told of.
fn told_class(object: &Object, word: u64) -> Named {
    let name = object.usdt.class_name(word).ok_or(Unnamed::NoRoom)?;
    let told = JavaFrame::of_told_class(&name).ok_or(Unnamed::NotAClass)?;
    Ok([told].into())
}

fn java_words(site: &Site) -> impl Iterator<Item = u64> {
    let words = site.frames.iter().take(site.depth as usize).copied();
    words.filter(|word| Frame::of(*word).is_java())
}
