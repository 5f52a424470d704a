//! A profile of a moment, drawn: what needs no more than call paths and one value.

use std::collections::HashSet;
use std::io::{self, Cursor, Write};

use anyhow::Result;

use super::flamegraph::{self, Amount, Tree, Verdicts};
use super::{folded, names, pprof, units};

/// A profile of memory in use, with what is said of it.
#[derive(Debug)]
pub struct Picture {
    title: String,
    profile: pprof::Profile,
    shrunk: pprof::Shrunk,
    /// Whether its call paths are of several programs.
    has_several: bool,
}

impl Picture {
    /// Of a profile, compressed by gzip. If it is a difference, what has become less is left
    /// out, and counted.
    ///
    /// # Errors
    /// It is no profile of memory in use.
    pub fn of(packed: &[u8], title: String) -> Result<Self> {
        let (grown, shrunk) = pprof::grown(packed)?;
        let profile = pprof::read(&mut Cursor::new(grown))?;
        let processes = profile.samples.iter().map(|it| &it.process);
        let processes: HashSet<_> = processes.collect();
        Ok(Self {
            title,
            has_several: processes.len() > 1,
            profile,
            shrunk,
        })
    }

    /// Folded stacks; see [`folded`].
    ///
    /// # Errors
    /// Only those of the writer.
    pub fn write_folded(&self, writer: &mut dyn Write) -> io::Result<()> {
        for sample in self.profile.samples.iter().filter(|it| it.value > 0) {
            folded::write_path(writer, &self.roots(sample), &sample.frames)?;
            writeln!(writer, " {}", sample.value)?;
        }
        Ok(())
    }

    /// A flamegraph.
    ///
    /// # Errors
    /// Those of the writer, or of inferno.
    pub fn write_svg(&self, writer: &mut dyn Write) -> Result<()> {
        let mut tree = Tree::default();
        for sample in self.profile.samples.iter().filter(|it| it.value > 0) {
            let amount = Amount::exact(sample.value, sample.count.unwrap_or(0));
            let verdict = sample.judgement.map(|it| it.verdict);
            tree.add_judged(
                &self.roots(sample),
                &sample.frames,
                (Amount::default(), amount),
                Verdicts::of(verdict, amount.bytes),
            );
        }
        let frames = self.profile.samples.iter().flat_map(|it| &it.frames);
        flamegraph::write_tree(&tree, frames, (&self.title, &self.subtitle(&tree)), writer)
    }

    fn roots(&self, sample: &pprof::Sample) -> Vec<String> {
        let process = sample.process.iter().filter(|_| self.has_several);
        process
            .map(|name| names::clean(name).into_owned())
            .collect()
    }

    fn subtitle(&self, tree: &Tree) -> String {
        let has_any = self.profile.samples.iter().filter(|it| it.value > 0);
        let mut text = format!(
            "{} from {}",
            units::bytes(tree.root().after.bytes),
            units::counted(has_any.count() as u64, "call path")
        );
        if let Some(seconds) = self.profile.duration {
            text.push_str(&format!(" in {}", units::seconds(seconds)));
        }
        if self.shrunk.paths > 0 {
            text.push_str(&format!(
                "; left out: {} of {} that became less",
                units::bytes(self.shrunk.bytes),
                units::counted(self.shrunk.paths, "call path"),
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::{pprof::difference, sample};

    fn packed(report: &crate::model::Report) -> Vec<u8> {
        let mut file = Vec::new();
        pprof::write(report, &mut file).unwrap();
        file
    }

    fn unpacked(report: &crate::model::Report) -> Vec<u8> {
        let mut bytes = Vec::new();
        let packed = packed(report);
        io::copy(&mut flate2::read::GzDecoder::new(&packed[..]), &mut bytes).unwrap();
        bytes
    }

    fn drawn(picture: &Picture) -> (String, String) {
        let (mut folded, mut svg) = (Vec::new(), Vec::new());
        picture.write_folded(&mut folded).unwrap();
        picture.write_svg(&mut svg).unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(folded), text(svg))
    }

    #[test]
    fn a_profile_is_drawn_as_its_report_is() {
        let report = sample::report();
        let picture = Picture::of(&packed(&report), "Growth of <x>".into()).unwrap();
        let (folded, svg) = drawn(&picture);
        let mut of_report = Vec::new();
        folded::write(&report, &mut of_report).unwrap();
        assert_eq!(folded.into_bytes(), of_report);
        assert!(svg.contains("Growth of &lt;x&gt;") && svg.contains("open_session"));
    }

    #[test]
    fn what_became_less_is_left_out_and_counted() {
        let before = sample::report();
        let mut after = before.clone();
        after.sites[0].live_bytes += 7919;
        after.sites[0].live_count += 7;
        let gone = after.sites.remove(1).live_bytes;
        let minute = Duration::from_mins(1);
        let bytes = difference(&unpacked(&after), &unpacked(&before), minute).unwrap();
        let picture = Picture::of(&bytes, String::new()).unwrap();
        assert_eq!((picture.shrunk.paths, picture.shrunk.bytes), (1, gone));
        let (folded, svg) = drawn(&picture);
        assert!(
            folded.ends_with(" 7919\n") && folded.lines().count() == 1,
            "{folded}"
        );
        assert!(svg.contains("left out: 1,021 KiB of 1 call path"), "{svg}");
    }

    #[test]
    fn what_is_no_profile_is_an_error() {
        assert!(Picture::of(b"no", String::new()).is_err());
    }
}
