//! pprof profiles: the format that `go tool pprof` and most profile viewers
//! open. Written for every report; read, also from other tools, for `diff`.

mod budget;
mod difference;
pub mod proto;
mod read;
pub mod tree;
mod write;

pub use difference::{Shrunk, difference, grown, show_first};
pub use read::{Profile, Sample, read};
pub use write::write;

/// The sample type that viewers open first.
pub const INUSE_SPACE: &str = "inuse_space";
/// All that was allocated.
pub const ALLOC_SPACE: &str = "alloc_space";
/// Live blocks.
pub const INUSE_OBJECTS: &str = "inuse_objects";
/// How a comment begins that tells of estimates.
pub const SAMPLED: &str = "sampled";
/// Label of a sample: the process's name.
pub const PROCESS: &str = "process";
/// Label of a sample: what was said of its call path.
const VERDICT: &str = "verdict";
/// Label of a sample: how sure that is, percent.
const CONFIDENCE: &str = "confidence";
/// Who holds its blocks: the root of most, or that they are lost.
const HELD_BY: &str = "held_by";
/// Label of a sample: the thread's name.
const THREAD: &str = "thread";
/// Label of a sample: the thread's id.
const THREAD_ID: &str = "thread_id";

/// Label of a sample: the standard error of a value.
fn error_label(value: &str) -> String {
    format!("{value}_standard_error")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Report;
    use crate::report::{names, sample};

    fn round_trip(report: &Report) -> Profile {
        let mut file = Vec::new();
        write(report, &mut file).unwrap();
        read(&mut std::io::Cursor::new(file)).unwrap()
    }

    #[test]
    fn live_memory_survives_the_round_trip() {
        let report = sample::report();
        let profile = round_trip(&report);
        assert_eq!(profile.kind, "inuse_space");
        assert_eq!(profile.unit, "bytes");
        assert_eq!(profile.duration, Some(60.0));
        assert_eq!(profile.samples.len(), report.sites.len());
        for (sample, site) in profile.samples.iter().zip(&report.sites) {
            assert_eq!(sample.value, site.live_bytes);
            assert_eq!(sample.count, Some(site.live_count));
            assert_eq!(sample.process.as_deref(), Some("leaky"));
            let judgement = sample.judgement;
            assert_eq!(judgement.map(|it| it.verdict), site.verdict);
            let confidence = site.confidence.unwrap_or(0.0);
            assert!((judgement.map_or(0.0, |it| it.confidence) - confidence).abs() < 0.01);
            assert!(
                sample
                    .frames
                    .iter()
                    .map(names::key)
                    .eq(site.frames.iter().map(names::key))
            );
        }
    }

    #[test]
    fn estimates_have_their_errors_as_labels() {
        let report = sample::sampled_report();
        let profile = round_trip(&report);
        for (sample, site) in profile.samples.iter().zip(&report.sites) {
            let error = site.errors.unwrap().live_bytes;
            assert!((sample.error as f64 - error).abs() <= 1.0, "{sample:?}");
        }
        let said = |comment: &String| comment.starts_with("sampled: ");
        assert!(profile.comments.iter().any(said), "{:?}", profile.comments);
        let exact = round_trip(&sample::report());
        assert!(exact.samples.iter().all(|sample| sample.error == 0));
    }

    #[test]
    fn inlined_frames_share_a_location() {
        let report = sample::report();
        let frames = &round_trip(&report).samples[0].frames;
        let inlined: Vec<_> = frames.iter().map(|frame| frame.inlined).collect();
        assert_eq!(inlined, [false, false, false, true, false]);
        assert_eq!(frames[2].address, frames[3].address);
        assert_eq!((frames[3].line, frames[2].line), (Some(7), Some(42)));
    }

    #[test]
    fn a_frame_without_a_name_is_found_again_by_its_offset() {
        let mut report = sample::report();
        report.modules[0].file_offset = 0x2000;
        let frame = &mut report.sites[0].frames[1];
        frame.function = None;
        frame.file = None;
        frame.module_offset = Some(frame.address - 0x40_0000 + 0x2000);
        let label = names::label(frame).into_owned();
        assert_eq!(
            names::label(&round_trip(&report).samples[0].frames[1]),
            label
        );
    }

    #[test]
    fn how_a_method_was_run_survives_the_round_trip() {
        let report = sample::java_report();
        let profile = round_trip(&report);
        for (sample, site) in profile.samples.iter().zip(&report.sites) {
            let java = |frame: &&crate::model::Frame| frame.origin.is_java();
            let kinds = |frames: &[_]| {
                let java = frames.iter().filter(java);
                java.map(|frame| {
                    (
                        names::label(frame).into_owned(),
                        frame.origin,
                        frame.inlined,
                    )
                })
                .collect::<Vec<_>>()
            };
            assert_eq!(kinds(&sample.frames), kinds(&site.frames));
        }
    }

    #[test]
    fn one_name_may_be_of_several_functions() {
        let mut report = sample::java_report();
        let name = crate::model::name::Name::from("a.B.c");
        let frames = report.sites.iter_mut().flat_map(|site| &mut site.frames);
        for (number, frame) in frames.enumerate() {
            frame.function = Some(name.clone());
            frame.file = (number % 2 == 0).then(|| "B.java".into());
        }
        let said = |frame: &crate::model::Frame| {
            let (origin, file) = (frame.origin, frame.file.clone());
            (
                frame.function.clone(),
                file,
                origin.is_java().then_some(origin),
            )
        };
        let profile = round_trip(&report);
        for (sample, site) in profile.samples.iter().zip(&report.sites) {
            assert!(
                sample
                    .frames
                    .iter()
                    .map(said)
                    .eq(site.frames.iter().map(said))
            );
        }
    }

    #[test]
    fn losses_travel_as_comments() {
        let mut report = sample::report();
        report.losses[0].count = 3;
        let comments = round_trip(&report).comments;
        assert!(
            comments
                .iter()
                .any(|line| line.contains("3 × live_map_full")),
            "{comments:?}"
        );
    }
}
