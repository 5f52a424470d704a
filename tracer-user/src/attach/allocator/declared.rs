//! Allocators with names of their own, as the command line gives them.

use std::path::Path;
use std::str::FromStr;

use tracer_ebpf::call::Function;

use super::api::{self, Known, Probed};

/// How it is written.
const FORM: &str = "FILE:ALLOC[=size@N],FREE, for example libpool.so:pool_get=size@1,pool_put";

/// Functions of one file, or of any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The file's path as the process sees it, or its last part; `None` if it is any file.
    file: Option<String>,
    functions: Vec<(String, Known)>,
}

impl Declared {
    /// The functions of pools that are probed if somebody asks for it (`--pools`).
    pub fn pools() -> Self {
        let functions = api::pools().map(|(name, known)| (name.to_owned(), known));
        Self {
            file: None,
            functions: functions.collect(),
        }
    }

    /// Whether it is of the file at `path`.
    pub fn is_of(&self, path: &str) -> bool {
        let name = Path::new(path).file_name();
        self.file
            .as_ref()
            .is_none_or(|file| file == path || name.is_some_and(|name| name == file.as_str()))
    }

    /// Its functions.
    pub fn names(&self) -> impl Iterator<Item = (&str, Known)> {
        let functions = self.functions.iter();
        functions.map(|(name, known)| (name.as_str(), *known))
    }
}

impl FromStr for Declared {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (file, functions) = text.rsplit_once(':').ok_or(FORM)?;
        let (allocate, free) = functions.split_once(',').ok_or(FORM)?;
        let (allocate, argument) = allocate.split_once('=').unwrap_or((allocate, "size@0"));
        let allocates = match argument {
            "size@0" => Function::Malloc,
            "size@1" => Function::Memalign,
            _ => return Err("size@N says which argument is the size: 0, the first, or 1".into()),
        };
        if [file, allocate, free].iter().any(|part| part.is_empty()) || free.contains(',') {
            return Err(FORM.into());
        }
        Ok(Self {
            file: Some(file.into()),
            functions: vec![
                (allocate.into(), Known::named(Probed::Call(allocates))),
                (free.into(), Known::named(Probed::Free)),
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_declaration_names_a_file_and_two_functions() {
        let declared: Declared = "libpool.so:pool_get=size@1,pool_put".parse().unwrap();
        assert!(declared.is_of("/opt/lib/libpool.so") && declared.is_of("libpool.so"));
        assert!(!declared.is_of("/opt/lib/libpool.so.2"));
        let names: Vec<_> = declared.names().collect();
        let [(get, allocates), (put, frees)] = names[..] else {
            panic!("{names:?}");
        };
        assert_eq!((get, put), ("pool_get", "pool_put"));
        assert_eq!(allocates.probed, Probed::Call(Function::Memalign));
        assert_eq!(frees.probed, Probed::Free);
        let plain: Declared = "/bin/app:get,put".parse().unwrap();
        let first = plain.names().next().map(|(_, known)| known.probed);
        assert_eq!(first, Some(Probed::Call(Function::Malloc)));
        for wrong in [
            "",
            "app",
            "app:get",
            ":get,put",
            "app:get=size@7,put",
            "app:get,",
            "app:a,b,c",
        ] {
            assert!(wrong.parse::<Declared>().is_err(), "{wrong}");
        }
    }
}
