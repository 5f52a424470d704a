//! Java frames as a report has them.

use tracer_ebpf::frame::Frame as Word;

use crate::jvm::frames::{FrameKind, JavaFrame, Named};
use crate::process::address::FrameAddress;
use crate::report::model::{Frame, Origin};

/// Why a frame has neither a line nor inlined methods.
const METHOD_ALONE: &str = "the code or its class was gone before it was looked at: the JVM told which method it was, but not more";

/// Adds the frames that a word of a stack stands for, outermost first.
pub fn add_frames(named: Option<&Named>, address: FrameAddress, frames: &mut Vec<Frame>) {
    match named {
        Some(Ok(named)) => frames.extend(named.iter().rev().map(|frame| report(frame, address))),
        Some(Err(reason)) => frames.push(unnamed(address, reason.to_string())),
        None => frames.push(unnamed(
            address,
            "a Java frame that was not named in time".into(),
        )),
    }
}

fn report(frame: &JavaFrame, address: FrameAddress) -> Frame {
    Frame {
        function: Some(name(frame)),
        file: frame.file.as_deref().map(ToOwned::to_owned),
        line: frame.line,
        address: address.raw(),
        inlined: frame.inlined,
        origin: origin(frame.kind),
        reason: (frame.kind == FrameKind::Told).then(|| METHOD_ALONE.to_owned()),
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

fn unnamed(address: FrameAddress, reason: String) -> Frame {
    Frame {
        address: address.raw(),
        origin: Origin::Jit,
        reason: Some(reason),
        ..Frame::default()
    }
}

/// Whether a word's frame is the VM's own, between Java's: it says nothing of
/// the call path. What native code calls Java through, or compiled code the
/// VM, differs from tier to tier.
pub fn is_hidden(named: Option<&Named>, word: u64) -> bool {
    let is_stub = |frames: &[JavaFrame]| frames.iter().all(|frame| frame.kind == FrameKind::Stub);
    Word::of(word).is_java() && matches!(named, Some(Ok(frames)) if is_stub(frames))
}
