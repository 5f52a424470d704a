//! The names that generators are known to make, and what in them differs from one to the
//! next.
//!
//! Each rule is a pattern whose groups are what differs. Patterns hold on to what only a
//! generator writes, so that a class that somebody named `Script2` is not meant: numbers
//! without such a mark are [`numbers`](super::numbers)' matter.

/// Whose names a rule is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Maker {
    /// A JVM's languages and libraries: `package.Class.method`.
    Jvm,
    /// Compilers of native code, as a symbol's demangled name has it.
    Native,
    /// Code compiled at run time by others than a JVM, as a perf map has it.
    Script,
}

/// What becomes of that which differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// It is left out: the rest is a name as people write it.
    Nothing,
    /// A star stands for it.
    Star,
}

use Maker::{Jvm, Native, Script};
use Put::{Nothing, Star};

/// A rule.
pub type Rule = (Maker, Put, &'static str);

// Words are ASCII's (`[[:word:]]`): those of Unicode make a set of patterns ten times as large.

/// All rules, in the order in which they are applied.
pub const RULES: &[Rule] = &[
    // The JDK. A hidden class has its address behind it: `Foo$$Lambda/0x00007f12.run`,
    // `Foo$$Lambda$14/1702297201.run` (8), `Foo$$Lambda$14.0x00007f12.run` (async-profiler).
    (
        Jvm,
        Nothing,
        r"^[^/\s:]*([/+](?:0x[[:xdigit:]]+|[0-9]{5,}))(?:\.|$)",
    ),
    (Jvm, Nothing, r"(\.0x[[:xdigit:]]{6,})(?:\.|$)"),
    (Jvm, Nothing, r"\$\$Lambda(\$[0-9]+)(?:[./+]|$)"),
    // `LambdaForm$MH012.invoke`, `LambdaForm$DMH001_invokeStatic_LL_L.invoke`.
    (
        Jvm,
        Nothing,
        r"\.LambdaForm\$[A-Z]+([0-9]+[[:word:]]*)(?:\.|$)",
    ),
    (
        Jvm,
        Nothing,
        r"\.Generated(?:Method|Constructor|SerializationConstructor)Accessor([0-9]+)(?:\.|$)",
    ),
    // `com.sun.proxy.$Proxy12.get`, `jdk.proxy2.$Proxy34.get`; no `Foo$Proxy1` of somebody's.
    (Jvm, Star, r"(?:^|\.)\$Proxy([0-9]+)(?:\.|$)"),
    (Jvm, Star, r"^jdk\.(?:proxy|MHProxy)([0-9]+)\."),
    // `REPL.$JShell$12B.do_it$`.
    (Jvm, Star, r"\.\$JShell\$([0-9]+[A-Z]*)(?:\.|\$|$)"),
    // XSLT compiled: `die.verwandlung.GregorSamsa3.transform`.
    (Jvm, Star, r"\.GregorSamsa([0-9]+)(?:\.|\$|$)"),
    // CGLIB and those that have taken it in (Spring, Guice):
    // `Foo$$EnhancerBySpringCGLIB$$1a2b3c`, `Foo$$FastClassByCGLIB$$e255b874`,
    // `Foo$$SpringCGLIB$$0`, `Foo$$SpringCGLIB$$FastClass$$1`.
    (
        Jvm,
        Star,
        r"\$\$[A-Z][A-Za-z]+By[A-Z][[:word:]]*\$\$([[:xdigit:]]+(?:_[0-9]+)?)(?:[.$]|$)",
    ),
    (
        Jvm,
        Star,
        r"\$\$SpringCGLIB\$\$(?:FastClass\$\$)?([0-9]+)(?:[.$]|$)",
    ),
    // Byte Buddy and who uses it; a method of it may have such an end too:
    // `Foo$ByteBuddy$gPBIheji.call$accessor$08yrRQmF`.
    (
        Jvm,
        Star,
        r"\$(?:ByteBuddy|HibernateProxy|HibernateBasicProxy|HibernateInstantiator|HibernateAccessOptimizer|MockitoMock)\$([0-9A-Za-z]+)(?:[.$]|$)",
    ),
    (
        Jvm,
        Star,
        r"\$(?:auxiliary|accessor|original|cachedValue)\$([0-9A-Za-z]{8,})(?:[.$]|$)",
    ),
    // Javassist: `Foo_$$_jvst8ba_0`, `Foo_$$_javassist_7`.
    (
        Jvm,
        Star,
        r"_\$\$_jvst([[:xdigit:]]+(?:_[[:xdigit:]]+)?)(?:[.$]|$)",
    ),
    (Jvm, Star, r"_\$\$_javassist_([0-9]+)(?:[.$]|$)"),
    // OpenWebBeans, Jackson's Afterburner, fastjson 1 and 2, Dubbo.
    (Jvm, Star, r"\$\$Owb[[:word:]]*Proxy([0-9]+)(?:\.|$)"),
    (
        Jvm,
        Star,
        r"\$Access4Jackson(?:Des|S)erializer([[:xdigit:]]+)(?:\.|$)",
    ),
    (
        Jvm,
        Star,
        r"\.(?:ASMSerializer|FastjsonASMDeserializer)_([0-9]+)_",
    ),
    (Jvm, Star, r"\.(?:OWG|ORG)_([0-9]+_[0-9]+)_"),
    (
        Jvm,
        Star,
        r"\.common\.bytecode\.(?:[Pp]roxy|Wrapper|Mixin)([0-9]+)(?:\.|$)",
    ),
    // Groovy: a class for a text (`script1795717355147861556664.run`), a proxy for a
    // closure (`Foo1_groovyProxy.call`). `Script1` may be somebody's: it has to be one of many.
    (Jvm, Star, r"(?:^|\.)script([0-9]{12,})(?:[.$]|$)"),
    (Jvm, Star, r"([0-9]+)_groovyProxy(?:\.|$)"),
    // Nashorn: `jdk.nashorn.internal.scripts.Script$Recompilation$4$14$\^eval\_.foo`. The
    // second number is where in the script the function is.
    (
        Jvm,
        Star,
        r"\.nashorn\.internal\.scripts\.Script\$(?:Recompilation\$)?([0-9]+)(?:[.$]|$)",
    ),
    // Rhino, Jython, JRuby: `org.mozilla.javascript.gen.my_script_js_2.call`,
    // `org.python.pycode._pyx12.f$0`, `rubyjit.Object$$foo_17_D4DF…`.
    (
        Jvm,
        Star,
        r"^org\.mozilla\.javascript\.gen\.[[:word:]]*?([0-9]+)(?:\.|$)",
    ),
    (Jvm, Star, r"^org\.python\.pycode\._pyx([0-9]+)(?:[.$]|$)"),
    (Jvm, Star, r"^rubyjit\..*?_([0-9]+_[0-9A-F]{16,})"),
    // Clojure: `user$eval123$fn__124.invoke`.
    (Jvm, Star, r"\$eval([0-9]+)(?:[.$]|$)"),
    (Jvm, Star, r"\$(?:fn|reify|iter|proxy)__([0-9]+)(?:[.$_]|$)"),
    // Scala's functions and classes without names, and its interpreter's lines.
    (Jvm, Star, r"\$anon(?:fun)?\$([0-9]+)(?:[.$]|$)"),
    (
        Jvm,
        Star,
        r"\$anonfun\$[[:word:]]+\$([0-9]+)(?:\$adapted)?$",
    ),
    (Jvm, Star, r"(?:^|\.)\$line([0-9]+)\.\$"),
    // Expressions and rules: SpEL, MVEL, Drools, JasperReports have it as numbers or hashes.
    (Jvm, Star, r"(?:^|\.)spel\.Ex([0-9]+)(?:\.|$)"),
    (Jvm, Star, r"\.ASMAccessorImpl_([0-9]+)(?:\.|$)"),
    (
        Jvm,
        Star,
        r"(?:^|\.)Rule_[[:word:]]*?([0-9]{6,})(?:[.$A-Z]|$)",
    ),
    // Queries: Spark, Flink, Trino.
    (
        Jvm,
        Star,
        r"\$GeneratedIteratorForCodegenStage([0-9]+)(?:\.|$)",
    ),
    (
        Jvm,
        Star,
        r"(?:^|\.)(?:(?:Stream|Batch)Exec[[:word:]]*|[[:word:]]*AggsHandler|(?:Source|Sink)Conversion)\$([0-9]+)(?:[.$]|$)",
    ),
    (
        Jvm,
        Star,
        r"\.\$gen\.[[:word:]]+?_([0-9]{8}_[0-9]{6}_[0-9]+)(?:\.|$)",
    ),
    // C++: lambdas and types without names, `main::{lambda(int)#2}::operator()(int) const`.
    (Native, Star, r"\{lambda\([^{}]*\)#([0-9]+)\}"),
    (Native, Star, r"\{unnamed(?: type)?#([0-9]+)\}"),
    // Nameless namespaces that carry a hash of their file.
    (Native, Star, r"_GLOBAL__N__([[:word:]]+)"),
    // Copies and parts of functions: GCC's `.constprop.0`, `.isra.0`, `.part.0`, `.cold`,
    // LLVM's `.llvm.123`, also as demanglers write them, ` [clone .cold]`.
    (Native, Nothing, r"[^\s]((?: \[clone \.[[:word:].]+\])+)$"),
    (
        Native,
        Nothing,
        r"[[:word:])>]((?:\.(?:constprop|isra|part|lto_priv|llvm|localalias|clone|__uniq)(?:\.[0-9]+)+|\.cold(?:\.[0-9]+)?)+)$",
    ),
    // Rust: the hash of a symbol, of a crate; closures, by either mangling, are `{closure}`.
    (Native, Nothing, r"(::h[0-9a-f]{16})$"),
    (
        Native,
        Nothing,
        r"[[:word:]](\[[0-9a-f]{12,16}\])(?:::|>|$)",
    ),
    (Native, Nothing, r"\{(\{)closure\}(\})"),
    (Native, Nothing, r"\{closure(#[0-9]+)\}"),
    // Julia: `julia_foo_1234`, `jfptr_foo_1235`.
    (
        Native,
        Star,
        r"^(?:julia|jfptr|japi1|jlsys|jlplt|gfptr)_.+_([0-9]+)$",
    ),
    (
        Script,
        Star,
        r"^(?:julia|jfptr|japi1|jlsys|jlplt|gfptr)_.+_([0-9]+)$",
    ),
    // JavaScript that is loaded again under another address: `JS:*run file:///a.mjs?t=17:1:2`.
    (
        Script,
        Star,
        r"^[A-Za-z]+:.*\.[[:word:]]+\?([[:word:].=&%+-]+)(?::[0-9]+)*$",
    ),
    // Python's temporary files and notebooks' cells.
    (Script, Star, r"^py::.*/tmp([a-z0-9_]{8})(?:[/.]|$)"),
    (Script, Star, r"^py::.*/ipykernel_([0-9]+/[0-9]+)\.py"),
    (Script, Star, r"^py::.*<ipython-input-([0-9]+-[0-9a-f]+)>"),
    // Hashes of what a class was made from, and random numbers (UUID), whoever makes them.
    (
        Jvm,
        Star,
        r"((?i)[0-9a-f]{8}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{4}[_-][0-9a-f]{12})(?:[._$]|$)",
    ),
    (Jvm, Star, r"([0-9a-f]{16,}|[0-9A-F]{16,})(?:[._$]|$)"),
    (Script, Star, r"[/_.-]([0-9a-f]{16,})(?:[/_.:-]|$)"),
];
