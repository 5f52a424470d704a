//! Java frames as a report has them.

use tracer_ebpf::frame::Frame as Word;

use crate::jvm::frames::{FrameKind, JavaFrame, Named};
use crate::model::name::Names;
use crate::model::{Frame, Origin};
use crate::process::address::{FrameAddress, JavaWord};

/// Methods inlined at one place that are shown, at most: a JVM inlines some 15
/// deep, and 4,096 frames of a stack are read of a report.
const MAX_INLINED: usize = 31;

/// Why a frame has neither a line nor inlined methods.
const METHOD_ALONE: &str = "the code or its class was gone before it was looked at: the JVM told which method it was, but not more";

/// Adds the frames that a word of a stack stands for, outermost first.
pub fn add_frames(
    named: Option<&Named>,
    address: FrameAddress,
    texts: &mut Names,
    frames: &mut Vec<Frame>,
) {
    let reason = match named {
        Some(Ok(named)) => {
            frames.extend(
                named
                    .iter()
                    .rev()
                    .take(MAX_INLINED + 1)
                    .map(|frame| report(frame, address, texts)),
            );
            return;
        }
        Some(Err(reason)) => reason.to_string(),
        None => match origin_of(address) {
            Origin::Python => "a Python function that was not named in time".to_owned(),
            Origin::JavaScript => "a JavaScript function that was not named in time".to_owned(),
            _ => "a Java frame that was not named in time".to_owned(),
        },
    };
    frames.push(Frame {
        address: address.raw(),
        origin: origin_of(address),
        reason: Some(texts.intern(&reason)),
        ..Frame::default()
    });
}

/// Where a frame without a name is from.
fn origin_of(address: FrameAddress) -> Origin {
    match address {
        FrameAddress::Java(JavaWord(word)) => match Word::of(word) {
            Word::Python { .. } => Origin::Python,
            Word::JavaScript { .. } => Origin::JavaScript,
            _ => Origin::Jit,
        },
        _ => Origin::Jit,
    }
}

fn report(frame: &JavaFrame, address: FrameAddress, texts: &mut Names) -> Frame {
    Frame {
        function: Some(texts.intern(&name(frame))),
        file: frame.file.as_deref().map(|file| texts.intern(file)),
        line: frame.line,
        address: address.raw(),
        inlined: frame.inlined,
        origin: origin(frame.kind),
        reason: (frame.kind == FrameKind::Told).then(|| texts.intern(METHOD_ALONE)),
        ..Frame::default()
    }
}

fn origin(kind: FrameKind) -> Origin {
    match kind {
        FrameKind::Interpreted => Origin::Interpreted,
        FrameKind::C1 => Origin::C1,
        FrameKind::C2 | FrameKind::Native => Origin::C2,
        FrameKind::Told => Origin::Jit,
        FrameKind::Stub => Origin::Stub,
        FrameKind::Class => Origin::Unknown,
        FrameKind::Python => Origin::Python,
        FrameKind::JavaScript => Origin::JavaScript,
    }
}

/// `class.method`, or what there is of it; a stub as `[its name]`.
fn name(frame: &JavaFrame) -> String {
    match (&frame.class, &frame.method) {
        (Some(class), Some(method)) => format!("{class}.{method}"),
        (Some(class), None) => class.to_string(),
        (None, Some(stub)) if frame.kind == FrameKind::Stub => format!("[{stub}]"),
        (None, method) => method.as_deref().unwrap_or_default().to_owned(),
    }
}

/// Whether a word's frame is the VM's own, between Java's: it says nothing of
/// the call path. What native code calls Java through, or compiled code the
/// VM, differs from tier to tier.
pub fn is_hidden(named: Option<&Named>, word: u64) -> bool {
    let is_stub = |frames: &[JavaFrame]| frames.iter().all(|frame| frame.kind == FrameKind::Stub);
    Word::of(word).is_java() && matches!(named, Some(Ok(frames)) if is_stub(frames))
}
