//! Why a Java frame has no name.

use std::fmt;
use std::io;

use tracer_ebpf::python::Gap;

use super::fields::UnknownLayout;

/// The reason why a word of a stack has no Java name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unnamed {
    /// It is a native frame.
    NotJava,
    /// The VM does not export what names need.
    Layout(UnknownLayout),
    /// Nothing is at this address of the code cache any more.
    NoCode,
    /// The code cache has other code there by now.
    Recompiled,
    /// The code tells nothing of this place in it.
    NoScope,
    /// What should be a method is none, or not any more: its class was
    /// unloaded.
    NotAMethod,
    /// What should be a class is none, or not any more.
    NotAClass,
    /// What should be a code object of Python is none, or another one by now.
    NoPython,
    /// A Python function in memory that cannot be read: the process is gone.
    NoProcess,
    /// What should be a function of JavaScript is none, or another one by now.
    NoJavaScript,
    /// A function of JavaScript in memory that cannot be read: the process is gone.
    NoScriptProcess,
    /// Why the kernel side could not tell of a Python function.
    Python(Gap),
    /// There was no room to keep the name.
    NoRoom,
    /// It cannot be read: the process is gone, or the memory was given back.
    Unreadable,
}

impl From<io::Error> for Unnamed {
    fn from(_: io::Error) -> Self {
        Unnamed::Unreadable
    }
}

impl fmt::Display for Unnamed {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Unnamed::NotJava => "not a Java frame",
            Unnamed::Layout(unknown) => return unknown.fmt(out),
            Unnamed::NoCode => "compiled code that was freed before it could be named",
            Unnamed::Recompiled => "compiled code whose place other code took before it was named",
            Unnamed::NoScope => "compiled code that does not say which method is here",
            Unnamed::NotAMethod => "a Java method that was unloaded before it could be named",
            Unnamed::NotAClass => "a Java class that was unloaded before it could be named",
            Unnamed::NoPython => "a Python function that was gone before it could be named",
            Unnamed::NoProcess => "a Python function that is not named: its process ended first, or its memory could not be read",
            Unnamed::NoJavaScript => "a JavaScript function that was moved or gone before it could be named",
            Unnamed::NoScriptProcess => "a JavaScript function that is not named: its process ended first, or its memory could not be read",
            Unnamed::Python(Gap::NoThread) => "Python functions that are not known: the interpreter has no state for this thread where it should be",
            Unnamed::Python(Gap::OtherThread) => "Python functions that are not known: the interpreter's state is another thread's",
            Unnamed::Python(Gap::Unreadable) => "Python functions that are not known: the interpreter's state could not be read",
            Unnamed::Python(Gap::Mismatch) => "Python functions that are not known: those before do not belong to the C functions around them",
            Unnamed::NoRoom => "a Java frame or class whose name there was no room for",
            Unnamed::Unreadable => "the Java VM's memory could not be read",
        })
    }
}
