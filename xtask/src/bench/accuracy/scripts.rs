//! Interpreters that keep what they make: their own small objects, and large arrays.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::load::{Load, Talker};
use crate::build::target_dir;
use crate::shell;

pub(super) const PYTHON_WORDS: &str = "200 arrays of 40,009 numbers, a million texts in a list";
pub(super) const NODE_WORDS: &str = "300 buffers of 100,003 bytes, 300,000 objects with a text";

/// The version of numpy, from PyPI.
const NUMPY: &str = "numpy==2.2.6";

const PYTHON: &str = "\
import os, sys, numpy
kept = []
print(os.getpid(), 'ready', flush=True)
for line in sys.stdin:
    kept.extend(numpy.ones(40009) for _ in range(200))
    kept.append([str(number) * 3 for number in range(1000003)])
    print('done', flush=True)
";

const NODE: &str = "\
const kept = [];
process.stdin.on('data', () => {
    for (let i = 0; i < 300; i++) kept.push(Buffer.alloc(100003, 1));
    for (let i = 0; i < 300000; i++) kept.push({ number: i, text: 'text ' + i });
    console.log('done');
});
process.stdin.on('end', () => process.exit(0));
console.log(process.pid + ' ready');
";

struct Script(Talker);

impl Load for Script {
    fn pid(&self) -> String {
        self.0.pid()
    }

    fn work(&mut self) -> Result<()> {
        self.0.tell("grow")
    }
}

pub(super) fn python(folder: &Path) -> Result<Box<dyn Load>> {
    let modules = target_dir().join("bench").join(NUMPY);
    if !modules.join("numpy").is_dir() {
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
        pip.args(["install", "--only-binary=:all:", NUMPY, "--target"]);
        shell::run(pip.arg(&modules))?;
    }
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", &modules);
    script(folder, "grow.py", PYTHON, command)
}

pub(super) fn node(folder: &Path) -> Result<Box<dyn Load>> {
    script(folder, "grow.js", NODE, Command::new("node"))
}

fn script(folder: &Path, name: &str, text: &str, mut command: Command) -> Result<Box<dyn Load>> {
    let file = folder.join(name);
    fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(Box::new(Script(Talker::start(command.arg(&file))?)))
}
