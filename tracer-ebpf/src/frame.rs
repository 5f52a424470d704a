//! Frames of a stack, each in one word.
//!
//! ```text
//!  63..60  59                 47 46                              0
//! +------+----------------------+---------------------------------+
//! | 0101 | number of a file, 16 | return address: bytes from the file's start, 44 bits
//! | 1101 | number of a file, 16 | the same of an address that a signal interrupted
//! | 0000 |           0          | return address                  |
//! | 1000 |           0          | address that a signal interrupted
//! | 0100 | bytecode pointer, 16 | Method* / 8, 44 bits            |  (bits 59..44, 43..0)
//! | 0110 |           0          | Method* / 8, bytecode not known |
//! | 0010 | compile id, 13       | address in a JVM's code cache   |
//! | 0001 |           0          | Klass* of a sampled object      |
//! | 0011 | hash of an object's class's name, 60 bits              |
//! | 0111 | check, 16            | code object / 8, 44 bits        |  (bits 59..44, 43..0)
//! | 1111 | hash of what tells a function of JavaScript from others, 60 bits |
//! +------+----------------------+---------------------------------+
//! ```
//!
//! A place in a file is the same for all processes that map it, at whatever
//! addresses. All other words mean something in one process only.
//!
//! Java frames say more than an address, since that of the interpreter is the
//! same for all methods, and compiled code gives its place to other code: the
//! compile id tells which. Of Python's the code object is the function, and the check
//! (see [`crate::python::check`]) tells whether another one took its place since. What
//! JavaScript's functions are in memory is moved by V8's garbage collector: see
//! [`crate::v8::Identity`].

/// What a word of a stack stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Frame {
    /// Code of a file.
    File {
        /// The file's number.
        file: u32,
        /// Where the return address, or the instruction itself, is in it, bytes
        /// from its start.
        offset: u64,
        /// Whether a signal interrupted the instruction there.
        interrupted: bool,
    },
    /// Code that is known by its address alone.
    Native {
        /// The return address, or the instruction itself.
        address: u64,
        /// Whether a signal interrupted the instruction at this address.
        interrupted: bool,
    },
    /// A method that HotSpot's interpreter runs.
    Interpreted {
        /// Address of its `Method`.
        method: u64,
        /// Lowest 16 bits of the bytecode's address, which is enough: a method
        /// has less than 64 KiB. Not known of a frame that JDK 8 is moving into
        /// compiled code: it keeps that code's address in its place.
        bytecode: Option<u16>,
    },
    /// A blob of HotSpot's code cache: a compiled method or a stub.
    Compiled {
        /// Return address; that before a deoptimisation, if there was one.
        pc: u64,
        /// Lowest 13 bits of the method's compile id. Of a stub, anything.
        id: u16,
    },
    /// Not a frame: the class of an object, before the stack that made it.
    Class {
        /// Address of its `Klass`.
        klass: u64,
    },
    /// The same by the class's name; see [`crate::class_name`].
    ClassName {
        /// The whole word, under which the name is kept.
        word: u64,
    },
    /// A function that CPython's interpreter runs.
    Python {
        /// Address of its code object; below [`crate::python::GAPS`] the number of why
        /// it is not known.
        code: u64,
        /// What [`crate::python::check`] made of the code object.
        check: u16,
    },
    /// A function of JavaScript that V8 runs; see [`crate::v8`].
    JavaScript {
        /// The whole word, under which the function is kept.
        word: u64,
    },
}

/// Addresses of user space have no higher bits.
const ADDRESS: u64 = (1 << 47) - 1;
const INTERRUPTED: u64 = 1 << 63;
const INTERPRETED: u64 = 1 << 62;
const COMPILED: u64 = 1 << 61;
const CLASS: u64 = 1 << 60;
/// Interpreted, and no bytecode with it.
const SOMEWHERE: u64 = INTERPRETED | COMPILED;
const CLASS_NAME: u64 = CLASS | COMPILED;
const FILE: u64 = INTERPRETED | CLASS;
const PYTHON: u64 = INTERPRETED | COMPILED | CLASS;
const JAVASCRIPT: u64 = PYTHON | INTERRUPTED;
const INTERRUPTED_FILE: u64 = FILE | INTERRUPTED;
const TAGS: u64 = INTERRUPTED | INTERPRETED | COMPILED | CLASS;

const METHOD_BITS: u32 = 44;
const ID_SHIFT: u32 = 47;
const FILE_SHIFT: u32 = 44;
const FILE_OFFSET: u64 = (1 << FILE_SHIFT) - 1;

/// Numbers of files are below this.
pub const FILE_NUMBERS: u32 = 1 << 16;

/// Compile ids are kept modulo this.
pub const IDS: u64 = 1 << 13;

/// The word of a native frame.
#[inline(always)]
pub const fn native(address: u64, interrupted: u64) -> u64 {
    address | interrupted << 63
}

/// The word of a place in a file; `interrupted` is 1 if a signal was there.
#[inline(always)]
pub const fn in_file(file: u32, offset: u64, interrupted: u64) -> u64 {
    FILE | offset & FILE_OFFSET
        | (file as u64 & (FILE_NUMBERS as u64 - 1)) << FILE_SHIFT
        | interrupted << 63
}

/// The file's number and the offset in it, of a word of [`in_file`].
#[inline(always)]
pub const fn place_in_file(word: u64) -> Option<(u32, u64)> {
    if !is_shared(word) {
        return None;
    }
    let number = (word >> FILE_SHIFT) as u32 & (FILE_NUMBERS - 1);
    Some((number, word & FILE_OFFSET))
}

/// Whether a word means the same in all processes.
#[inline(always)]
pub const fn is_shared(word: u64) -> bool {
    word & (TAGS & !INTERRUPTED) == FILE
}

/// The word of an interpreted frame. A `Method` is aligned to 8 bytes.
#[inline(always)]
pub const fn interpreted(method: u64, bytecode: u64) -> u64 {
    INTERPRETED | (method & ADDRESS) >> 3 | (bytecode & 0xffff) << METHOD_BITS
}

/// The same without the bytecode.
#[inline(always)]
pub const fn interpreted_somewhere(method: u64) -> u64 {
    SOMEWHERE | (method & ADDRESS) >> 3
}

/// The word of a frame in a code cache.
#[inline(always)]
pub const fn compiled(pc: u64, id: u64) -> u64 {
    COMPILED | pc & ADDRESS | (id & (IDS - 1)) << ID_SHIFT
}

/// The word of a class.
#[inline(always)]
pub const fn class(klass: u64) -> u64 {
    CLASS | klass & ADDRESS
}

/// The word of a class by the hash of its name.
#[inline(always)]
pub const fn class_name(hash: u64) -> u64 {
    CLASS_NAME | hash & !TAGS
}

/// The word of a Python function. A code object is aligned to 8 bytes.
#[inline(always)]
pub const fn python(code: u64, check: u64) -> u64 {
    PYTHON | (code & ADDRESS) >> 3 | (check & 0xffff) << METHOD_BITS
}

/// The word of a function of JavaScript by the hash of what it is.
#[inline(always)]
pub const fn javascript(hash: u64) -> u64 {
    JAVASCRIPT | hash
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "fields are cut out of words"
)]
impl Frame {
    /// What a word stands for. Words that nothing makes pass for native ones.
    pub const fn of(word: u64) -> Self {
        match word & TAGS {
            INTERPRETED => Self::Interpreted {
                method: Self::method(word),
                bytecode: Some((word >> METHOD_BITS) as u16),
            },
            SOMEWHERE => Self::Interpreted {
                method: Self::method(word),
                bytecode: None,
            },
            COMPILED => Self::Compiled {
                pc: word & ADDRESS,
                id: (word >> ID_SHIFT & (IDS - 1)) as u16,
            },
            CLASS => Self::Class {
                klass: word & ADDRESS,
            },
            CLASS_NAME => Self::ClassName { word },
            PYTHON => Self::Python {
                code: Self::method(word),
                check: (word >> METHOD_BITS) as u16,
            },
            JAVASCRIPT => Self::JavaScript { word },
            FILE | INTERRUPTED_FILE => Self::File {
                file: (word >> FILE_SHIFT) as u32 & (FILE_NUMBERS - 1),
                offset: word & FILE_OFFSET,
                interrupted: word & INTERRUPTED != 0,
            },
            _ => Self::Native {
                address: word & !TAGS,
                interrupted: word & INTERRUPTED != 0,
            },
        }
    }

    const fn method(word: u64) -> u64 {
        (word & ((1 << METHOD_BITS) - 1)) << 3
    }

    /// Whether it is HotSpot's.
    pub const fn is_java(self) -> bool {
        !matches!(
            self,
            Self::Native { .. } | Self::File { .. } | Self::Python { .. } | Self::JavaScript { .. }
        )
    }

    /// Whether it is V8's.
    pub const fn is_javascript(self) -> bool {
        matches!(self, Self::JavaScript { .. })
    }

    /// Whether it is CPython's or V8's.
    pub const fn is_script(self) -> bool {
        self.is_python() || self.is_javascript()
    }

    /// Whether it is CPython's.
    pub const fn is_python(self) -> bool {
        matches!(self, Self::Python { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_into_a_word_comes_out() {
        let (method, bytecode) = (0x7fff_ffff_fff8, 0xffff);
        assert_eq!(
            Frame::of(interpreted(method, 0x7f00_0000_0000 | u64::from(bytecode))),
            Frame::Interpreted {
                method,
                bytecode: Some(bytecode)
            }
        );
        assert_eq!(
            Frame::of(interpreted_somewhere(method)),
            Frame::Interpreted {
                method,
                bytecode: None
            }
        );
        assert_eq!(
            Frame::of(compiled(0x7fff_ffff_ffff, 5 * IDS + 77)),
            Frame::Compiled {
                pc: 0x7fff_ffff_ffff,
                id: 77
            }
        );
        assert_eq!(
            Frame::of(python(method, 0xfedc)),
            Frame::Python {
                code: method,
                check: 0xfedc
            }
        );
        let word = javascript(0x123);
        assert_eq!(Frame::of(word), Frame::JavaScript { word });
        assert!(!is_shared(word) && !Frame::of(word).is_java());
        assert!(!is_shared(python(method, 0xffff)) && !Frame::of(python(8, 0)).is_java());
        for java in [
            interpreted(method, 3),
            interpreted_somewhere(method),
            compiled(method, 5),
            class(method),
            class_name(u64::MAX),
        ] {
            assert!(!is_shared(java), "{java:x}");
        }
        let klass = 0x7fff_0000_1238;
        assert_eq!(Frame::of(class(klass)), Frame::Class { klass });
        for interrupted in [0, 1] {
            let word = in_file(0xffff, 0xfff_ffff_fff1, interrupted);
            assert!(is_shared(word) && !is_shared(native(0x7fff_1234_5678, interrupted)));
            assert_eq!(
                Frame::of(word),
                Frame::File {
                    file: 0xffff,
                    offset: 0xfff_ffff_fff1,
                    interrupted: interrupted != 0
                }
            );
            assert_eq!(
                Frame::of(native(0x7fff_1234_5678, interrupted)),
                Frame::Native {
                    address: 0x7fff_1234_5678,
                    interrupted: interrupted != 0
                }
            );
        }
    }
}
