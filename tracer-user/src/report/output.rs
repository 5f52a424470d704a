//! What `-o` and `--format` ask for.

use std::fmt;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::destination::Destination;
use super::text::{self, Layout, ROWS};
use super::{flamegraph, folded, json, pprof};
use crate::cli::args::Format;
use crate::model::Report;

/// File name endings and their formats, the first of a format being the usual
/// one. The longer ones come first.
const ENDINGS: [(&str, Format); 9] = [
    (".java.svg", Format::JavaSvg),
    (".holders.svg", Format::HoldersSvg),
    (".java.folded", Format::JavaFolded),
    (".svg", Format::Svg),
    (".folded", Format::Folded),
    (".pb.gz", Format::Pprof),
    (".pprof", Format::Pprof),
    (".json", Format::Json),
    (".txt", Format::Text),
];

/// One report to write: where and how.
#[derive(Debug)]
pub struct Output {
    destination: Destination,
    format: Format,
}

/// Resolves the outputs of a command line. The name tells the format;
/// `format` is for names that do not.
///
/// # Errors
/// Fails for a name that does not tell its format when there is no `format`,
/// and for two outputs with one destination.
pub fn resolve(paths: &[PathBuf], format: Option<Format>) -> Result<Vec<Output>> {
    let mut outputs: Vec<Output> = Vec::new();
    for path in paths {
        let format = format_of(path)
            .or(format)
            .ok_or_else(|| unknown_format(path))?;
        let output = Output {
            destination: Destination::new(path),
            format,
        };
        if outputs
            .iter()
            .any(|other| other.destination.is_same(&output.destination))
        {
            bail!(
                "-o {} is given twice; give each output a file of its own",
                path.display()
            );
        }
        outputs.push(output);
    }
    Ok(outputs)
}

/// Proves that every output can be written, before the work is done.
///
/// # Errors
/// See [`Output::check`].
pub fn check(outputs: &[Output]) -> Result<()> {
    outputs.iter().try_for_each(Output::check)
}

/// Writes the report to every output. One that fails does not keep the others
/// from being written.
///
/// # Errors
/// All failures in one message.
pub fn write(outputs: &[Output], report: &Report) -> Result<()> {
    write_each(outputs, |output| output.write(report))
}

/// Writes every output by a function, and collects the failures.
///
/// # Errors
/// All failures in one message.
pub fn write_each(outputs: &[Output], write: impl Fn(&Output) -> Result<()>) -> Result<()> {
    let failures: Vec<String> = outputs
        .iter()
        .filter_map(|output| write(output).err())
        .map(|error| format!("{error:#}"))
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(anyhow!(failures.join("; ")))
    }
}

/// Whether an output takes standard output, so that nothing else may be
/// printed there.
pub fn takes_stdout(outputs: &[Output]) -> bool {
    outputs
        .iter()
        .any(|output| matches!(output.destination, Destination::Stdout))
}

impl Output {
    /// The format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Proves that the output can be written, as far as that can be known.
    /// An existing file keeps its content, and a new one is not left behind.
    ///
    /// # Errors
    /// Names the file and why it cannot be written.
    pub fn check(&self) -> Result<()> {
        self.destination.check()
    }

    /// Writes the report. A regular file is replaced at once or not at all.
    ///
    /// # Errors
    /// Names the file and why it cannot be written.
    pub fn write(&self, report: &Report) -> Result<()> {
        self.write_with(|writer| render(report, self.format, writer))
    }

    /// Writes what `render` writes, the way of [`Output::write`].
    ///
    /// # Errors
    /// See [`Output::write`].
    pub fn write_with(&self, render: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        self.destination.write(render)
    }
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.destination.fmt(f)
    }
}

/// Renders a report in a format.
///
/// # Errors
/// Those of the writer and the exporter.
pub fn render(report: &Report, format: Format, writer: &mut dyn Write) -> Result<()> {
    match format {
        Format::Svg => flamegraph::write(report, writer),
        Format::Folded => Ok(folded::write(report, writer)?),
        Format::Pprof => pprof::write(report, writer),
        Format::Json => Ok(json::write(report, writer)?),
        Format::JavaSvg => flamegraph::write_java(report, writer),
        Format::JavaFolded => Ok(folded::write_java(report, writer)?),
        Format::HoldersSvg => flamegraph::holders::write(report, writer),
        Format::Text => {
            let layout = Layout::new(ROWS, None, false).whole();
            writer
                .write_all(text::render(report, &layout).as_bytes())
                .context("cannot write the table")
        }
    }
}

fn format_of(path: &Path) -> Option<Format> {
    let name = path.file_name()?.to_string_lossy().to_ascii_lowercase();
    ENDINGS
        .iter()
        .find(|(ending, _)| name.ends_with(ending))
        .map(|(_, format)| *format)
}

fn unknown_format(path: &Path) -> anyhow::Error {
    let known: Vec<&str> = ENDINGS.iter().map(|(ending, _)| *ending).collect();
    let what = if path == Path::new("-") {
        "standard output needs a format".to_string()
    } else {
        format!(
            "{} does not tell its format: it ends in none of {}",
            path.display(),
            known.join(", ")
        )
    };
    anyhow!(
        "-o {}: {what}; add --format svg, folded, pprof, json, text, java-svg, java-folded or holders-svg",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn resolved(paths: &[&str], format: Option<Format>) -> Result<Vec<Output>> {
        resolve(&paths.iter().map(PathBuf::from).collect::<Vec<_>>(), format)
    }

    #[test]
    fn the_name_tells_the_format_and_the_option_the_rest() {
        let formats = |paths: &[&str], format| {
            resolved(paths, format)
                .unwrap()
                .iter()
                .map(Output::format)
                .collect::<Vec<_>>()
        };
        use Format::{Folded, HoldersSvg, JavaFolded, JavaSvg, Json, Pprof, Svg, Text};
        let special = formats(&["a.java.svg", "b.java.folded", "c.holders.svg"], None);
        assert_eq!(special, [JavaSvg, JavaFolded, HoldersSvg]);
        let names = ["a.svg", "b.FOLDED", "c.pb.gz", "d.pprof", "e.json", "f.txt"];
        assert_eq!(
            formats(&names, None),
            [Svg, Folded, Pprof, Pprof, Json, Text]
        );
        assert_eq!(
            formats(&["a.svg", "-", "b.out"], Some(Json)),
            [Svg, Json, Json]
        );
    }

    #[test]
    fn an_unknown_ending_is_answered_with_the_known_ones() {
        let error = resolved(&["leak.png"], None).unwrap_err().to_string();
        assert!(
            error.contains("leak.png") && error.contains(".svg, .folded, .pb.gz"),
            "{error}"
        );
        let error = resolved(&["-"], None).unwrap_err().to_string();
        assert!(error.contains("standard output needs a format"), "{error}");
    }

    #[test]
    fn two_outputs_never_share_a_destination() {
        assert!(resolved(&["a.svg", "./a.svg"], None).is_err());
        assert!(resolved(&["-", "/dev/stdout"], Some(Format::Json)).is_err());
        assert!(resolved(&["a.svg", "a.json"], None).is_ok());
    }

    #[test]
    fn one_failure_does_not_stop_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let good = folder.path().join("good.json");
        let paths = [
            folder.path().join("no/such/a.svg"),
            good.clone(),
            "/dev/full".into(),
        ];
        let outputs = resolve(&paths, Some(Format::Folded)).unwrap();
        let error = write(&outputs, &sample::report()).unwrap_err().to_string();
        assert!(
            error.contains("a.svg") && error.contains("/dev/full"),
            "{error}"
        );
        assert_eq!(
            json::read(&mut std::fs::File::open(good).unwrap()).unwrap(),
            sample::report()
        );
    }
}
