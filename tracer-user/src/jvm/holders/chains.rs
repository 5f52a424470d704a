//! Ways from roots as chains of names, those of the same names as one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use super::classes::Classes;
use super::graph::{Edge, Graph, Root};
use super::handles::{Handle, Scope};
use super::walk::Place;
use crate::model::{Chain, Link, LinkKind};

/// Longer chains are cut in the middle.
const MAX_LINKS: usize = 64;

/// What a handle is called that is nobody's in particular.
pub const GLOBAL: &str = "JNI global handle";

/// A way from a root to an object, in names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// What holds what, root first.
    pub links: Vec<Link>,
    /// The handle that is its root, if native code may have that anywhere.
    pub handle: Option<Handle>,
}

/// What names of roots come from.
pub struct Names<'a> {
    /// The classes of all nodes.
    pub classes: &'a Classes<'a>,
    /// The threads' names.
    pub threads: &'a [String],
}

impl Names<'_> {
    /// The names of a way from a root; `node` is what it leads to.
    pub fn way(&self, graph: &Graph, way: &[Edge], node: usize) -> Way {
        let first = way.first().map_or(node, |edge| edge.from as usize);
        let root = graph.nodes.get(first).and_then(|node| node.root);
        let mut links: Vec<Link> = root.map(|root| self.root(root)).into_iter().collect();
        for edge in way {
            if let Some((kind, name)) = self.holder(graph, edge) {
                push(&mut links, link(kind, name));
            }
        }
        Way {
            links: cut(links),
            handle: match root {
                Some(Root::Handle(Scope::Global(handle))) => Some(handle),
                _ => None,
            },
        }
    }

    fn root(&self, root: Root) -> Link {
        let class = |index: usize| self.classes.name(index).to_owned();
        let thread = |index: usize| self.threads.get(index).cloned().unwrap_or_default();
        match root {
            Root::Static(of, field) => {
                let name = self.classes.static_name(of, field);
                link(LinkKind::JavaStatic, name.to_owned())
            }
            Root::Thread(index) => link(LinkKind::JavaThread, thread(index)),
            Root::Loader(index) => link(LinkKind::ClassLoader, class(index)),
            Root::Mirror(index) => link(LinkKind::JavaStatic, format!("{}.class", class(index))),
            Root::Handle(Scope::Global(_)) => link(LinkKind::JniHandle, GLOBAL.to_owned()),
            Root::Handle(Scope::Local(index)) => {
                let name = format!("JNI local handle of thread \"{}\"", thread(index));
                link(LinkKind::JniHandle, name)
            }
            Root::Stack(index) => link(LinkKind::Stack, thread(index)),
        }
    }

    /// The field or array by which something points; none of a root that is the pointer.
    fn holder(&self, graph: &Graph, edge: &Edge) -> Option<(LinkKind, String)> {
        let node = graph.nodes.get(edge.from as usize)?;
        let class = self.classes.get(node.class?)?;
        let name = match edge.place {
            Place::Static(..) if node.root.is_some() => return None,
            Place::Static(of, index) => {
                let name = self.classes.static_name(of.index(), index);
                return Some((LinkKind::JavaStatic, name.to_owned()));
            }
            Place::Class => format!("{}.getClass()", class.name),
            Place::Element => class.name.clone(),
            Place::Field(index) => class.slots.get(index as usize)?.name.clone(),
            // Which buffer it is tells more than that all buffers have the field.
            Place::Long(index) => {
                let field = &class.longs.get(index as usize)?.name;
                let (_, name) = field.rsplit_once('.')?;
                format!("{}.{name}", class.name)
            }
        };
        Some((LinkKind::JavaObject, name))
    }
}

/// One holder, once.
pub fn link(kind: LinkKind, name: String) -> Link {
    Link {
        kind,
        name,
        repeated: 1,
        site: None,
    }
}

/// Adds a link; one more of the same name makes the last longer.
pub fn push(links: &mut Vec<Link>, link: Link) {
    match links.last_mut() {
        Some(last) if last.name == link.name && last.kind == link.kind => {
            last.repeated += link.repeated;
        }
        _ => links.push(link),
    }
}

/// A chain whose middle is left out, if it is long.
pub fn cut(mut links: Vec<Link>) -> Vec<Link> {
    if links.len() > MAX_LINKS {
        let half = MAX_LINKS / 2;
        let left_out = links.len() - 2 * half;
        let mut between = link(LinkKind::JavaObject, "…".to_owned());
        between.repeated = left_out as u64;
        links.splice(half..half + left_out, [between]);
    }
    links
}

/// Chains of the same names as one, most objects first: lengths of lists are the longest.
/// Threads whose names differ in numbers only are one, `pool-*-thread-*`.
pub fn merge(chains: Vec<Vec<Link>>) -> Vec<Chain> {
    let exact = add_up(chains.into_iter().map(|links| (links, 1)), Clone::clone);
    let mut merged = add_up(exact.into_iter(), |name| stars(name));
    // One thread alone keeps its name.
    merged.sort_by(|one, other| {
        let names = |links: &[Link]| {
            links
                .iter()
                .map(|link| link.name.clone())
                .collect::<Vec<_>>()
        };
        (other.1, names(&one.0)).cmp(&(one.1, names(&other.0)))
    });
    let chain = |(links, blocks)| Chain { links, blocks };
    merged.into_iter().map(chain).collect()
}

/// A chain's kinds and names, by which chains are equal.
type Key = Vec<(LinkKind, String)>;

/// Adds up chains that are equal once their threads' names are written as `name` says; the
/// first's name stays if there is no second.
fn add_up(
    chains: impl Iterator<Item = (Vec<Link>, u64)>,
    name: impl Fn(&String) -> String,
) -> Vec<(Vec<Link>, u64)> {
    let mut sums: HashMap<Key, (Vec<Link>, u64)> = HashMap::new();
    for (links, count) in chains {
        let key = links.iter().map(|link| match link.kind {
            LinkKind::JavaThread | LinkKind::Stack | LinkKind::JniHandle => {
                (link.kind, name(&link.name))
            }
            kind => (kind, link.name.clone()),
        });
        match sums.entry(key.collect()) {
            Entry::Vacant(place) => {
                place.insert((links, count));
            }
            Entry::Occupied(mut place) => {
                let names: Vec<_> = place.key().iter().map(|(_, name)| name.clone()).collect();
                let sum = place.get_mut();
                sum.1 += count;
                for ((link, other), name) in sum.0.iter_mut().zip(links).zip(names) {
                    link.repeated = link.repeated.max(other.repeated);
                    link.name = name;
                }
            }
        }
    }
    sums.into_values().collect()
}

/// A name with a star in the place of each number.
fn stars(name: &str) -> String {
    let mut starred = String::new();
    for letter in name.chars() {
        if !letter.is_ascii_digit() {
            starred.push(letter);
        } else if !starred.ends_with('*') {
            starred.push('*');
        }
    }
    starred
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(thread: &str, links: &[&str]) -> Vec<Link> {
        let mut all = vec![link(LinkKind::JavaThread, thread.to_owned())];
        for name in links {
            push(&mut all, link(LinkKind::JavaObject, (*name).to_owned()));
        }
        all
    }

    fn text(chains: Vec<Vec<Link>>) -> Vec<(String, u64)> {
        let of = |chain: &Chain| {
            let links = chain.links.iter();
            let links = links.map(|link| format!("{}*{}", link.name, link.repeated));
            (links.collect::<Vec<_>>().join(" "), chain.blocks)
        };
        merge(chains).iter().map(of).collect()
    }

    #[test]
    fn lists_are_folded_and_equal_chains_are_one() {
        let list = |length| chain("main", &vec!["Node.next"; length]);
        assert_eq!(
            text(vec![list(3), list(7), chain("main", &["A.b"])]),
            [
                ("main*1 Node.next*7".to_owned(), 2),
                ("main*1 A.b*1".to_owned(), 1)
            ]
        );
    }

    #[test]
    fn threads_of_a_pool_are_one_and_one_thread_keeps_its_name() {
        let pool = |number| chain(&format!("pool-1-thread-{number}"), &["A.b"]);
        assert_eq!(
            text(vec![pool(1), pool(12), pool(1)]),
            [("pool-*-thread-**1 A.b*1".to_owned(), 3)]
        );
        assert_eq!(
            text(vec![pool(7), pool(7)]),
            [("pool-1-thread-7*1 A.b*1".to_owned(), 2)]
        );
    }

    #[test]
    fn a_long_chain_is_cut_in_the_middle() {
        let names: Vec<String> = (0..100).map(|index| format!("C{index}.f")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let links = cut(chain("main", &names));
        assert_eq!(links.len(), MAX_LINKS + 1);
        assert_eq!((links[32].name.as_str(), links[32].repeated), ("…", 37));
        assert_eq!(links[64].name, "C99.f");
    }
}
