//! The names of threads, where call paths are told apart by thread.

use std::collections::HashMap;
use std::fs;

use super::jvms::Jvms;
use crate::kernel::object::Object;
use crate::targets::images::{Image, Images};
use crate::window::collect::SiteThread;

/// The names of all threads that have a site, by image.
#[derive(Default)]
pub struct ThreadNames {
    known: HashMap<(u64, u32), Known>,
    polls: u64,
}

/// What is known of a thread.
#[derive(Default)]
struct Known {
    name: String,
    /// It could not be read any more: the next thread with its number is
    /// another one.
    ended: bool,
    /// When its name is read next, in polls, and how long after that again.
    due: u64,
    pause: u64,
}

impl ThreadNames {
    /// Reads the names of threads that have a site since the last call, and
    /// again those of others: a thread may get its name only after its first
    /// allocation. The pauses between two looks double, so that thousands of
    /// threads cost little.
    pub fn poll(&mut self, object: &Object, images: &Images, jvms: &Jvms) {
        self.polls += 1;
        for (_, site) in object.followed_sites().filter(|(_, site)| site.thread != 0) {
            self.known.entry((site.image, site.thread)).or_default();
        }
        let now = self.polls;
        self.read(images, jvms, |known| known.due <= now);
    }

    /// Reads the names of all threads again.
    pub fn read_all(&mut self, images: &Images, jvms: &Jvms) {
        self.read(images, jvms, |_| true);
    }

    /// The name of a site's thread: that which was read last, else that which
    /// it had when the site was made.
    pub fn name<'a>(&'a self, image: u64, thread: &'a SiteThread) -> &'a str {
        let known = self.known.get(&(image, thread.id));
        let name = known.map(|known| known.name.as_str());
        name.filter(|name| !name.is_empty()).unwrap_or(&thread.name)
    }

    fn read(&mut self, images: &Images, jvms: &Jvms, wanted: impl Fn(&Known) -> bool) {
        let mut java: HashMap<u64, HashMap<u32, String>> = HashMap::new();
        for ((image, thread), known) in &mut self.known {
            if known.ended || !wanted(known) {
                continue;
            }
            let java = java
                .entry(*image)
                .or_insert_with(|| jvms.thread_names(*image));
            let image = images.index_of(*image).and_then(|index| images.get(index));
            let short = image.and_then(|image| thread_name(image, *thread));
            let name = short.map(|short| java.remove(thread).unwrap_or(short));
            known.note(name, self.polls);
        }
    }
}

impl Known {
    fn note(&mut self, name: Option<String>, now: u64) {
        match name {
            Some(name) => self.name = name,
            None => self.ended = true,
        }
        self.pause = (self.pause * 2).max(1);
        self.due = now + self.pause;
    }
}

/// The name that a thread has now: its short one, which the kernel cuts to 15
/// bytes. `None` if the thread has ended.
fn thread_name(image: &Image, thread: u32) -> Option<String> {
    if image.ended.is_some() {
        return None;
    }
    let name = fs::read(format!("/proc/{}/task/{thread}/comm", image.pid)).ok()?;
    Some(String::from_utf8_lossy(&name).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site_thread() -> SiteThread {
        SiteThread {
            id: 7,
            name: "early".into(),
        }
    }

    #[test]
    fn the_last_name_counts_and_the_first_serves_without_one() {
        let mut names = ThreadNames::default();
        assert_eq!(names.name(1, &site_thread()), "early");
        let known = names.known.entry((1, 7)).or_default();
        known.note(Some("later".into()), 1);
        assert_eq!((known.due, known.ended), (2, false));
        known.note(Some("last".into()), 2);
        known.note(None, 4);
        assert_eq!((known.due, known.ended), (8, true));
        assert_eq!(names.name(1, &site_thread()), "last");
        assert_eq!(names.name(2, &site_thread()), "early", "another image");
    }
}
