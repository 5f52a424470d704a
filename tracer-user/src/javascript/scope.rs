//! What V8 keeps of a function's scope (`ScopeInfo`): its name, and where it begins.

use tracer_ebpf::v8::small;

/// Words behind those of local variables that are looked at.
pub const TAIL: usize = 7;

/// A function's names, words of strings, and where it begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// Its own name.
    pub name: Option<u64>,
    /// What V8 calls it by what it was assigned to.
    pub inferred: Option<u64>,
    /// Its first character in the source, and the first one behind it.
    pub place: Option<(u32, u32)>,
}

impl Scope {
    /// Of the words behind local variables (V8's `scope-info.tq`): the name and a number, if
    /// it has a name; what it was assigned to, or undefined, if that is kept; two numbers for
    /// its place, if that is not known from before them. Which of them there are is told by
    /// what they are. `length` is the source's.
    pub fn of(
        words: &[u64],
        before: Option<(u32, u32)>,
        length: u32,
        is_string: impl Fn(u64) -> bool,
    ) -> Self {
        let place = |at: usize| {
            let number = |at: usize| small(*words.get(at)?);
            let found = before.or_else(|| number(at).zip(number(at + 1)));
            found.filter(|(start, end)| start <= end && *end <= length && *end > 0)
        };
        let text = |at: usize| words.get(at).copied().filter(|word| is_string(*word));
        let is_number = |at: usize| words.get(at).is_some_and(|word| small(*word).is_some());
        let has_name = is_number(1) && (text(0).is_some() || words.first() == Some(&0));
        // With a name and an assignment; with a name; with an assignment; with neither.
        if has_name && !is_number(2) && place(3).is_some() {
            Scope {
                name: text(0),
                inferred: text(2),
                place: place(3),
            }
        } else if has_name && place(2).is_some() {
            Scope {
                name: text(0),
                inferred: None,
                place: place(2),
            }
        } else if !is_number(0) && place(1).is_some() {
            Scope {
                name: None,
                inferred: text(0),
                place: place(1),
            }
        } else {
            // Of a module's code a number stands before it.
            Scope {
                place: place(0).or_else(|| place(1)),
                ..Scope::default()
            }
        }
    }
}
