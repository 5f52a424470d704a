//! What a function's name becomes.

use regex::{Regex, RegexSet};

use super::asked::Asked;
use super::code::Code;
use super::rules::{Put, RULES, Rule};
use crate::model::By;

/// The rules, compiled.
#[derive(Debug)]
pub struct Rules {
    asked: Vec<Asked>,
    /// Tells at one look which of the built-in rules match a name; for most, none does.
    set: RegexSet,
    made: Vec<(Rule, Regex)>,
}

impl Rules {
    /// The built-in rules, and before them those that were asked for.
    ///
    /// # Errors
    /// Fails if a built-in rule is no pattern, which a test rules out.
    pub fn new(asked: &[Asked]) -> Result<Self, regex::Error> {
        let compiled = RULES.iter().map(|rule| Ok((*rule, Regex::new(rule.2)?)));
        Ok(Self {
            asked: asked.to_vec(),
            set: RegexSet::new(RULES.iter().map(|rule| rule.2))?,
            made: compiled.collect::<Result<_, regex::Error>>()?,
        })
    }

    /// What the rules make of a name, and which; `None` if none matches.
    pub fn apply(&self, name: &str, code: Code) -> Option<(String, By)> {
        let asked = self.ask(name);
        let made = self.make(asked.as_deref().unwrap_or(name), code);
        let by = match asked {
            Some(_) => By::Asked,
            None => By::Rule,
        };
        Some((made.or(asked)?, by))
    }

    fn ask(&self, name: &str) -> Option<String> {
        let mut asked = None;
        for rule in &self.asked {
            asked = rule.apply(asked.as_deref().unwrap_or(name)).or(asked);
        }
        asked.filter(|asked| asked != name)
    }

    fn make(&self, name: &str, code: Code) -> Option<String> {
        let mut made = None;
        for index in &self.set.matches(name) {
            let ((maker, put, _), pattern) = &self.made[index];
            if code.may_be_of(*maker) {
                made = replace(pattern, *put, made.as_deref().unwrap_or(name)).or(made);
            }
        }
        made
    }
}

/// The text with its pattern's groups replaced, wherever it matches. What stands behind a
/// group may be before the next.
fn replace(pattern: &Regex, put: Put, text: &str) -> Option<String> {
    let mut replaced = String::new();
    let mut copied = 0;
    while let Some(found) = pattern.captures_at(text, copied) {
        let before = copied;
        for group in found.iter().skip(1).flatten() {
            replaced.push_str(&text[copied..group.start()]);
            if put == Put::Star {
                replaced.push('*');
            }
            copied = group.end();
        }
        if copied == before {
            break;
        }
    }
    if copied == 0 {
        return None;
    }
    replaced.push_str(&text[copied..]);
    Some(replaced)
}

/// A source file that is named after its class, when the class has another name: of
/// `Script17.run` in `Script17.groovy`, `Script*.groovy`.
pub fn file_of(original: &str, name: &str, file: &str) -> Option<String> {
    let class = |name: &str| -> Option<String> {
        let (class, _method) = name.rsplit_once('.')?;
        let simple = class.rsplit_once('.').map_or(class, |(_, simple)| simple);
        Some(simple.to_owned())
    };
    let (before, after) = (class(original)?, class(name)?);
    let extension = |class: &str| {
        let rest = file.strip_prefix(class)?;
        (rest.is_empty() || rest.starts_with('.')).then_some(rest)
    };
    if let Some(rest) = extension(&before) {
        return Some(format!("{after}{rest}"));
    }
    let outer = |class: &str| -> String {
        let (outer, _) = class.split_once('$').unwrap_or((class, ""));
        outer.to_owned()
    };
    let rest = extension(&outer(&before))?;
    Some(format!("{}{rest}", outer(&after)))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::model::name::MAX_NAME;

    fn rules(asked: &[&str]) -> Rules {
        let asked: Vec<Asked> = asked.iter().map(|rule| rule.parse().unwrap()).collect();
        Rules::new(&asked).unwrap()
    }

    fn check(code: Code, names: &[(&str, &str)]) {
        let rules = rules(&[]);
        for (name, expected) in names {
            let made = rules.apply(name, code).map(|(made, _)| made);
            assert_eq!(made.as_deref().unwrap_or(name), *expected, "of {name}");
            assert_eq!(rules.apply(expected, code), None, "{expected} is plain");
        }
    }

    #[test]
    fn names_that_the_jdk_makes() {
        check(
            Code::Java,
            &[
                ("Foo$$Lambda/0x00007f12000a.run", "Foo$$Lambda.run"),
                ("Foo$$Lambda$14/0x0000000800c01208.run", "Foo$$Lambda.run"),
                ("Foo$$Lambda$2/1702297201.call", "Foo$$Lambda.call"),
                ("Foo$$Lambda$887.0x00007f9338139800.run", "Foo$$Lambda.run"),
                ("Foo$$Lambda$14.run", "Foo$$Lambda.run"),
                ("a.Hidden+0x0000000800c01208.run", "a.Hidden.run"),
                (
                    "java.lang.invoke.LambdaForm$MH/939047783.invoke_MT",
                    "java.lang.invoke.LambdaForm$MH.invoke_MT",
                ),
                (
                    "java.lang.invoke.LambdaForm$MH012.invoke",
                    "java.lang.invoke.LambdaForm$MH.invoke",
                ),
                (
                    "java.lang.String$$StringConcat/0x00007f12.concat",
                    "java.lang.String$$StringConcat.concat",
                ),
                (
                    "sun.reflect.GeneratedMethodAccessor12.invoke",
                    "sun.reflect.GeneratedMethodAccessor.invoke",
                ),
                (
                    "jdk.internal.reflect.GeneratedSerializationConstructorAccessor3.newInstance",
                    "jdk.internal.reflect.GeneratedSerializationConstructorAccessor.newInstance",
                ),
                ("com.sun.proxy.$Proxy12.get", "com.sun.proxy.$Proxy*.get"),
                ("jdk.proxy2.$Proxy34.get", "jdk.proxy*.$Proxy*.get"),
                ("$Proxy7.get", "$Proxy*.get"),
                ("REPL.$JShell$12B.do_it$", "REPL.$JShell$*.do_it$"),
                (
                    "die.verwandlung.GregorSamsa3.transform",
                    "die.verwandlung.GregorSamsa*.transform",
                ),
                // What people write.
                ("Script2.run", "Script2.run"),
                ("Foo$Proxy1.get", "Foo$Proxy1.get"),
                ("a.Proxy12.get", "a.Proxy12.get"),
                ("Foo$1.run", "Foo$1.run"),
                ("Foo.lambda$main$0", "Foo.lambda$main$0"),
                ("a.b+c.D.run", "a.b+c.D.run"),
                (
                    "a.GeneratedMethodAccessors.get",
                    "a.GeneratedMethodAccessors.get",
                ),
                (
                    "java.lang.invoke.DirectMethodHandle$Holder.invokeStatic",
                    "java.lang.invoke.DirectMethodHandle$Holder.invokeStatic",
                ),
                ("jdk.proxyless.Foo.get", "jdk.proxyless.Foo.get"),
                ("Foo.cold", "Foo.cold"),
                ("Foo.part.run", "Foo.part.run"),
            ],
        );
    }

    #[test]
    fn names_that_libraries_of_a_jvm_make() {
        check(
            Code::Java,
            &[
                (
                    "Foo$$EnhancerBySpringCGLIB$$1a2b3c.CGLIB$get$0",
                    "Foo$$EnhancerBySpringCGLIB$$*.CGLIB$get$0",
                ),
                (
                    "Foo$$EnhancerByCGLIB$$915e425b$$FastClassByCGLIB$$e255b874.invoke",
                    "Foo$$EnhancerByCGLIB$$*$$FastClassByCGLIB$$*.invoke",
                ),
                (
                    "Foo$$EnhancerByGuice$$12_2.get",
                    "Foo$$EnhancerByGuice$$*.get",
                ),
                ("Foo$$SpringCGLIB$$0.get", "Foo$$SpringCGLIB$$*.get"),
                (
                    "Foo$$SpringCGLIB$$FastClass$$1.invoke",
                    "Foo$$SpringCGLIB$$FastClass$$*.invoke",
                ),
                (
                    "Foo$ByteBuddy$gPBIheji.call$accessor$08yrRQmF",
                    "Foo$ByteBuddy$*.call$accessor$*",
                ),
                ("Foo$ByteBuddy$abc.call", "Foo$ByteBuddy$*.call"),
                (
                    "Foo$ByteBuddy$gPBIheji$auxiliary$oMC7GIWw.call",
                    "Foo$ByteBuddy$*$auxiliary$*.call",
                ),
                (
                    "Foo$HibernateProxy$AbC12xYz.getId",
                    "Foo$HibernateProxy$*.getId",
                ),
                ("Foo$MockitoMock$1234567890.get", "Foo$MockitoMock$*.get"),
                ("Foo_$$_jvst8ba_0._d0call", "Foo_$$_jvst*._d0call"),
                ("Foo_$$_javassist_7.get", "Foo_$$_javassist_*.get"),
                (
                    "a.Foo$Access4JacksonDeserializer1a2b.get",
                    "a.Foo$Access4JacksonDeserializer*.get",
                ),
                (
                    "com.alibaba.fastjson.serializer.ASMSerializer_1_Foo.write",
                    "com.alibaba.fastjson.serializer.ASMSerializer_*_Foo.write",
                ),
                (
                    "org.apache.dubbo.common.bytecode.proxy3.get",
                    "org.apache.dubbo.common.bytecode.proxy*.get",
                ),
                // What people write.
                ("Foo$ByteBuddy.call", "Foo$ByteBuddy.call"),
                ("a.FooProxy3.get", "a.FooProxy3.get"),
                ("a.Foo$accessor$get.call", "a.Foo$accessor$get.call"),
                ("a.bytecode.Wrapper2.get", "a.bytecode.Wrapper2.get"),
                ("a.SpringCGLIB0.get", "a.SpringCGLIB0.get"),
            ],
        );
    }

    #[test]
    fn names_that_languages_on_a_jvm_make() {
        check(
            Code::Java,
            &[
                ("script1795717355147861556664.run", "script*.run"),
                ("Gen$Base1_groovyProxy.call", "Gen$Base*_groovyProxy.call"),
                (
                    "Script_0123456789abcdef0123456789abcdef.run",
                    "Script_*.run",
                ),
                (
                    r"jdk.nashorn.internal.scripts.Script$Recompilation$4$14$\^eval\_.foo",
                    r"jdk.nashorn.internal.scripts.Script$Recompilation$*$14$\^eval\_.foo",
                ),
                (
                    r"jdk.nashorn.internal.scripts.Script$3$\^eval\_.:program",
                    r"jdk.nashorn.internal.scripts.Script$*$\^eval\_.:program",
                ),
                (
                    "org.mozilla.javascript.gen.my_script_js_12._c_foo_1",
                    "org.mozilla.javascript.gen.my_script_js_*._c_foo_1",
                ),
                (
                    "org.python.pycode._pyx12.f$0",
                    "org.python.pycode._pyx*.f$0",
                ),
                (
                    "rubyjit.Object$$foo_17_D4DF0123456789ABCDEF.__file__",
                    "rubyjit.Object$$foo_*.__file__",
                ),
                ("user$eval123$fn__124.invoke", "user$eval*$fn__*.invoke"),
                ("a.Foo$$anon$12.apply", "a.Foo$$anon$*.apply"),
                ("a.Foo$$anonfun$3.apply", "a.Foo$$anonfun$*.apply"),
                (
                    "a.Foo$.$anonfun$main$1$adapted",
                    "a.Foo$.$anonfun$main$*$adapted",
                ),
                ("$line12.$read$$iw.run", "$line*.$read$$iw.run"),
                ("spel.Ex12.getValue", "spel.Ex*.getValue"),
                (
                    "rules.Rule_Say_Hello1268402127.defaultConsequence",
                    "rules.Rule_Say_Hello*.defaultConsequence",
                ),
                (
                    "a.LambdaPredicate41A0DD2B8E4F5B2C6D1E0F9A8B7C6D5E.test",
                    "a.LambdaPredicate*.test",
                ),
                (
                    "a.Job_3f2504e0_4f89_11d3_9a0c_0305e82c3301.run",
                    "a.Job_*.run",
                ),
                (
                    "o.a.s.GeneratedClass$GeneratedIteratorForCodegenStage3.processNext",
                    "o.a.s.GeneratedClass$GeneratedIteratorForCodegenStage*.processNext",
                ),
                (
                    "StreamExecCalc$17.processElement",
                    "StreamExecCalc$*.processElement",
                ),
                (
                    "io.trino.$gen.PageProjection_20240101_012345_17.process",
                    "io.trino.$gen.PageProjection_*.process",
                ),
                // What people write, and what stands for a place in the source.
                ("Script1.run", "Script1.run"),
                ("script12.run", "script12.run"),
                (
                    "Script1$_run_closure1.doCall",
                    "Script1$_run_closure1.doCall",
                ),
                ("SC.eval0", "SC.eval0"),
                (
                    "org.codehaus.groovy.runtime.dgm$163.invoke",
                    "org.codehaus.groovy.runtime.dgm$163.invoke",
                ),
                ("a.Rule_404.run", "a.Rule_404.run"),
                ("a.Decade.feedFace", "a.Decade.feedFace"),
                ("a.Calc$17.run", "a.Calc$17.run"),
                ("a.Sha512_256.digest", "a.Sha512_256.digest"),
            ],
        );
    }

    #[test]
    fn names_that_compilers_of_native_code_make() {
        check(
            Code::Native,
            &[
                (
                    "main::{lambda(int)#2}::operator()(int) const",
                    "main::{lambda(int)#*}::operator()(int) const",
                ),
                (
                    "f({lambda(std::pair<int, char> (*)(int))#12})",
                    "f({lambda(std::pair<int, char> (*)(int))#*})",
                ),
                ("a::{unnamed type#3}::b()", "a::{unnamed type#*}::b()"),
                ("foo() [clone .cold]", "foo()"),
                ("foo(int) [clone .isra.0] [clone .part.1]", "foo(int)"),
                ("work.constprop.0", "work"),
                ("work.part.0.cold", "work"),
                ("main.cold", "main"),
                ("work.llvm.123456", "work"),
                ("core::ptr::drop::h0123456789abcdef", "core::ptr::drop"),
                ("a::b::{{closure}}", "a::b::{closure}"),
                (
                    "a::b::{{closure}}::{{closure}}",
                    "a::b::{closure}::{closure}",
                ),
                ("a::b::{closure#0}", "a::b::{closure}"),
                ("mycrate[7f3a9c01b2d4e6f8]::run", "mycrate::run"),
                ("julia_solve_1234", "julia_solve_*"),
                // What people write.
                ("(anonymous namespace)::f()", "(anonymous namespace)::f()"),
                ("a::cold()", "a::cold()"),
                ("a::hash::h0123", "a::hash::h0123"),
                ("work.part", "work.part"),
                ("main.(*T).isra", "main.(*T).isra"),
                ("f(int [16])", "f(int [16])"),
                ("operator{{}}", "operator{{}}"),
                ("aes256_encrypt_16", "aes256_encrypt_16"),
                ("Script17.run", "Script17.run"),
                ("$Proxy12.get", "$Proxy12.get"),
            ],
        );
    }

    #[test]
    fn names_of_perf_maps() {
        check(
            Code::Jit,
            &[
                (
                    "JS:*run file:///srv/a.mjs?t=1700000000:3:7",
                    "JS:*run file:///srv/a.mjs?*:3:7",
                ),
                (
                    "py::run:/tmp/tmpab12cd_x/job.py",
                    "py::run:/tmp/tmp*/job.py",
                ),
                (
                    "py::<module>:/tmp/ipykernel_123/4567.py",
                    "py::<module>:/tmp/ipykernel_*.py",
                ),
                ("julia_solve_1234", "julia_solve_*"),
                ("JS:~run /srv/17.js:1:2", "JS:~run /srv/17.js:1:2"),
                ("wasm-function[12]", "wasm-function[12]"),
                ("py::run:/srv/tmpfile.py", "py::run:/srv/tmpfile.py"),
            ],
        );
        // A profile of another tool does not say what its names are of.
        check(
            Code::Unknown,
            &[
                ("Foo$$Lambda$14.run", "Foo$$Lambda.run"),
                ("a::run::h0123456789abcdef", "a::run"),
                (
                    "github.com/a/b.(*T).Run.func1",
                    "github.com/a/b.(*T).Run.func1",
                ),
            ],
        );
    }

    #[test]
    fn what_is_asked_for_comes_first() {
        let rules = rules(&["Handler[0-9]+=Handler", "Handler=H", "h_[a-z]=${0}"]);
        let by = |name| rules.apply(name, Code::Java);
        assert_eq!(by("a.Handler7.run"), Some(("a.H.run".into(), By::Asked)));
        assert_eq!(
            by("$Proxy1.Handler"),
            Some(("$Proxy*.H".into(), By::Asked)),
            "the built-in rules come on top"
        );
        assert_eq!(by("$Proxy1.get"), Some(("$Proxy*.get".into(), By::Rule)));
        assert_eq!(by("a.h_b"), None, "what becomes itself is not grouped");
    }

    #[test]
    fn long_names_take_little_time() {
        let pieces = [
            "$fn__1",
            "{closure#0}",
            "$$Lambda$1/0x12345678.",
            "_1",
            "$$EnhancerBy",
            "0123456789abcdef",
            " [clone .cold]",
            ".cold",
            "a",
            "ä",
        ];
        let start = Instant::now();
        let rules = rules(&[]);
        println!("the rules were compiled in {:?}", start.elapsed());
        for piece in pieces {
            let name = piece.repeat(MAX_NAME / piece.len());
            let start = Instant::now();
            for code in [Code::Java, Code::Native, Code::Jit, Code::Unknown] {
                let made = rules.apply(&name, code);
                assert!(made.is_none_or(|(made, _)| made.len() <= name.len()));
            }
            let time = start.elapsed();
            println!("16 KiB of {piece:?} took {time:?}");
            assert!(time < Duration::from_secs(5), "{piece}: {time:?}");
        }
    }

    #[test]
    fn a_file_follows_its_class() {
        for (original, name, file, expected) in [
            (
                "Script17.run",
                "Script*.run",
                "Script17.groovy",
                Some("Script*.groovy"),
            ),
            (
                "a.Script17$1.run",
                "a.Script*$1.run",
                "Script17.java",
                Some("Script*.java"),
            ),
            (
                "a.F_$$_jvst8_0.run",
                "a.F_$$_jvst*.run",
                "F_$$_jvst8_0.java",
                Some("F_$$_jvst*.java"),
            ),
            ("Script17.run", "Script*.run", "Script170.groovy", None),
            ("Script17.run", "Script*.run", "Rules.java", None),
            ("Script17.run", "scripts", "Script17.groovy", None),
            ("run", "ran", "run.c", None),
        ] {
            assert_eq!(
                file_of(original, name, file).as_deref(),
                expected,
                "{original}"
            );
        }
    }
}
