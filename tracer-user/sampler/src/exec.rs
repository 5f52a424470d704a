//! What a program executes gets the sampler too, as long as it has the descriptor. A
//! child that has closed it, as many do with all that they do not know, must not name it
//! to a loader, which would complain: from what such a child executes the sampler is left
//! out.
//!
//! A child of `vfork` works on its parent's memory, so nothing is written but to the
//! stack.

use core::ffi::{CStr, c_char, c_int, c_void};
use core::mem::transmute;

use crate::next::{Next, find_all};
use crate::system;

/// A vector of strings that ends with a null.
type Strings = *const *const c_char;

/// Before the descriptor's number in the variable.
const OURS: &[u8] = b"LD_PRELOAD=/proc/self/fd/";
const VARIABLE: &[u8] = b"LD_PRELOAD=";
/// What the descriptor is of, as the kernel tells it.
const FILE: &[u8] = b"/memfd:unfreed-sampler";

/// Variables, at most: with more of them all stay as they are.
const MAX_VARIABLES: usize = 1000;
/// Bytes of what else is preloaded, at most.
const MAX_BYTES: usize = 4096;

unsafe extern "C" {
    static environ: Strings;
}

/// Has a function called with the variables that what it executes is to have.
fn with<R>(variables: Strings, execute: impl FnOnce(Strings) -> R) -> R {
    match at(variables) {
        Some((index, value)) if !is_there(value) => without(variables, index, value, execute),
        _ => execute(variables),
    }
}

/// The variable that has our file first, and its index.
fn at(variables: Strings) -> Option<(usize, &'static CStr)> {
    if variables.is_null() {
        return None;
    }
    for index in 0..MAX_VARIABLES {
        // SAFETY: the caller's vector, up to its end.
        let variable = unsafe { *variables.add(index) };
        if variable.is_null() {
            return None;
        }
        // SAFETY: the caller's string.
        let variable = unsafe { CStr::from_ptr(variable) };
        if variable.to_bytes().starts_with(OURS) {
            return Some((index, variable));
        }
    }
    None
}

/// Whether the descriptor is open, stays open, and is ours.
fn is_there(variable: &CStr) -> bool {
    let digits = variable.to_bytes().get(OURS.len()..).unwrap_or_default();
    let digits = digits.iter().take_while(|byte| byte.is_ascii_digit());
    let length = OURS.len() - VARIABLE.len() + digits.clone().count();
    let descriptor = digits.fold(0_usize, |number, digit| {
        number.wrapping_mul(10) + usize::from(digit - b'0')
    });
    let mut path = [0_u8; 64];
    let path_of = variable
        .to_bytes()
        .get(VARIABLE.len()..VARIABLE.len() + length);
    let (Some(path_of), true) = (path_of, length < path.len()) else {
        return false;
    };
    path[..length].copy_from_slice(path_of);
    let mut name = [0_u8; 64];
    let read = system::read_link(&path, &mut name);
    name.get(..read).is_some_and(|name| name.starts_with(FILE)) && system::stays_open(descriptor)
}

/// The same variables without our file.
fn without<R>(
    variables: Strings,
    index: usize,
    value: &CStr,
    execute: impl FnOnce(Strings) -> R,
) -> R {
    let mut others = [core::ptr::null::<c_char>(); MAX_VARIABLES + 1];
    let mut count = 0;
    let mut rest = [0_u8; MAX_BYTES];
    let behind = value.to_bytes().iter().position(|byte| *byte == b':');
    let behind = behind.map_or(&[][..], |at| &value.to_bytes()[at + 1..]);
    let length = VARIABLE.len() + behind.len();
    let has_rest = !behind.is_empty() && length < MAX_BYTES;
    if has_rest {
        rest[..VARIABLE.len()].copy_from_slice(VARIABLE);
        rest[VARIABLE.len()..length].copy_from_slice(behind);
    }
    for at in 0.. {
        // SAFETY: the caller's vector, up to its end.
        let variable = unsafe { *variables.add(at) };
        if variable.is_null() {
            break;
        }
        let variable = match at == index {
            false => variable,
            true if has_rest => rest.as_ptr().cast(),
            true => continue,
        };
        let Some(other) = others.get_mut(count).filter(|_| count < MAX_VARIABLES) else {
            return execute(variables);
        };
        *other = variable;
        count += 1;
    }
    execute(others.as_ptr())
}

/// The next function of these arguments; -1 if the C library has none.
macro_rules! call {
    ($next:ident($($argument:expr),*) : $($kind:ty),*) => {{
        if $next.get().is_null() {
            find_all();
        }
        match $next.get() {
            none if none.is_null() => -1,
            // SAFETY: the C library's function of this name, and the caller's arguments.
            function => unsafe {
                transmute::<*mut c_void, unsafe extern "C" fn($($kind),*) -> c_int>(function)(
                    $($argument),*
                )
            },
        }
    }};
}

/// One that is looked for when it is called, if not before.
const fn unknown(name: &'static CStr) -> Next {
    Next::new(name, core::ptr::null(), core::ptr::null())
}

static EXECVE: Next = unknown(c"execve");
static EXECVPE: Next = unknown(c"execvpe");
static FEXECVE: Next = unknown(c"fexecve");
static POSIX_SPAWN: Next = unknown(c"posix_spawn");
static POSIX_SPAWNP: Next = unknown(c"posix_spawnp");

/// All that are stood before here.
pub static ALL: [&Next; 5] = [&EXECVE, &EXECVPE, &FEXECVE, &POSIX_SPAWN, &POSIX_SPAWNP];

/// `execve`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn execve(
    path: *const c_char,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    with(
        variables,
        |variables| call!(EXECVE(path, arguments, variables) : *const c_char, Strings, Strings),
    )
}

/// `execv`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn execv(path: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the program's own variables, and the caller's arguments.
    unsafe { execve(path, arguments, environ) }
}

/// `execvpe`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn execvpe(
    file: *const c_char,
    arguments: Strings,
    variables: Strings,
) -> c_int {
    with(
        variables,
        |variables| call!(EXECVPE(file, arguments, variables) : *const c_char, Strings, Strings),
    )
}

/// `execvp`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn execvp(file: *const c_char, arguments: Strings) -> c_int {
    // SAFETY: the program's own variables, and the caller's arguments.
    unsafe { execvpe(file, arguments, environ) }
}

/// `fexecve`.
///
/// # Safety
/// As of the C library's.
#[cfg_attr(preload, unsafe(no_mangle))]
pub unsafe extern "C" fn fexecve(file: c_int, arguments: Strings, variables: Strings) -> c_int {
    with(
        variables,
        |variables| call!(FEXECVE(file, arguments, variables) : c_int, Strings, Strings),
    )
}

/// Defines a function that starts a process.
macro_rules! spawns {
    ($(#[$doc:meta])* $function:ident, $next:ident) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As of the C library's.
        #[cfg_attr(preload, unsafe(no_mangle))]
        pub unsafe extern "C" fn $function(
            process: *mut c_int,
            path: *const c_char,
            actions: *const c_void,
            attributes: *const c_void,
            arguments: Strings,
            variables: Strings,
        ) -> c_int {
            with(variables, |variables| {
                call!(
                    $next(process, path, actions, attributes, arguments, variables) :
                    *mut c_int, *const c_char, *const c_void, *const c_void, Strings, Strings
                )
            })
        }
    };
}

spawns!(
    /// `posix_spawn`.
    posix_spawn, POSIX_SPAWN
);
spawns!(
    /// `posix_spawnp`.
    posix_spawnp, POSIX_SPAWNP
);

#[cfg(test)]
mod tests {
    use super::*;

    /// The variables that a program would get.
    fn passed(variables: &[&CStr]) -> Vec<String> {
        let mut vector: Vec<_> = variables.iter().map(|one| one.as_ptr()).collect();
        vector.push(core::ptr::null());
        with(vector.as_ptr(), |passed| {
            let one = |index: usize| {
                // SAFETY: a vector with an end.
                let variable = unsafe { *passed.add(index) };
                // SAFETY: a string.
                (!variable.is_null()).then(|| unsafe { CStr::from_ptr(variable) })
            };
            let all = (0..).map_while(one);
            all.map(|one| one.to_str().unwrap().to_owned()).collect()
        })
    }

    #[test]
    fn a_descriptor_that_is_gone_is_named_to_nobody() {
        let plain = passed(&[c"A=1", c"LD_PRELOAD=/usr/lib/other.so", c"B=2"]);
        assert_eq!(plain, ["A=1", "LD_PRELOAD=/usr/lib/other.so", "B=2"]);
        let gone = passed(&[c"A=1", c"LD_PRELOAD=/proc/self/fd/987", c"B=2"]);
        assert_eq!(gone, ["A=1", "B=2"]);
        let both = passed(&[c"LD_PRELOAD=/proc/self/fd/987:/usr/lib/other.so", c"B=2"]);
        assert_eq!(both, ["LD_PRELOAD=/usr/lib/other.so", "B=2"]);
        // One that is another's.
        let others = passed(&[c"LD_PRELOAD=/proc/self/fd/0"]);
        assert!(others.is_empty());
        assert!(with(core::ptr::null(), |none| none.is_null()));
    }
}
