use std::ffi::OsString;

use super::*;
use crate::privilege::program::Rights;
use crate::session::launch::Waiting as Launch;

fn launch(command: &[&str]) -> (Launch, Holder) {
    let command: Vec<OsString> = command.iter().map(Into::into).collect();
    let waiting = Launch::fork(&command, Rights::own(), None).unwrap();
    let wishes = Wishes {
        follow: true,
        waits_at_end: false,
    };
    let holder = Holder::take(waiting.pid, wishes, Box::new(|_| None)).unwrap();
    (waiting, holder)
}

/// Answers all stops until the first process has ended.
fn serve(holder: &mut Holder, program: &mut Program) -> (Vec<Why>, ExitStatus) {
    let mut seen = Vec::new();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        loop {
            tokio::select! {
                () = holder.news() => {}
                () = sleep(Duration::from_millis(1)) => {}
            }
            for waiting in holder.take_waiting() {
                seen.push(waiting.stop.why);
                holder.answer(Answer {
                    stop: waiting.stop,
                    starts: matches!(waiting.stop.why, Why::Exec | Why::Mapped),
                    watches_threads: false,
                });
            }
            if let Some(status) = program.try_wait().unwrap() {
                return (seen, status);
            }
        }
    })
}

fn count(seen: &[Why], why: Why) -> usize {
    seen.iter().filter(|one| **one == why).count()
}

#[test]
fn programs_wait_at_each_exec_and_when_they_map_code() {
    let command = [
        "/bin/sh",
        "-c",
        "/bin/true; /bin/true; exec /bin/sh -c 'exit 7'",
    ];
    let (waiting, mut holder) = launch(&command);
    let mut program = Program::new(waiting.start().unwrap(), Some(&holder));
    let (seen, status) = serve(&mut holder, &mut program);
    assert_eq!(status.code(), Some(7), "{status:?}");
    assert_eq!(count(&seen, Why::Exec), 4, "{seen:?}");
    assert!(count(&seen, Why::Mapped) >= 4, "{seen:?}");
}

#[test]
fn a_program_that_is_killed_meanwhile_has_ended_so() {
    let (waiting, mut holder) = launch(&["/bin/cat"]);
    let mut child = waiting.start().unwrap();
    child.kill().unwrap();
    let mut program = Program::new(child, Some(&holder));
    let (_, status) = serve(&mut holder, &mut program);
    assert_eq!(status.signal(), Some(libc::SIGKILL));
}

#[test]
fn who_cannot_call_exec_is_left_to_who_started_it() {
    let (waiting, holder) = launch(&["/no/such/program"]);
    let error = waiting.start().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    drop(holder);
}

/// Wherever it is: it waits for an answer, or runs.
#[test]
fn programs_that_are_let_go_go_on() {
    for stops in 0..12 {
        let (waiting, mut holder) = launch(&["/bin/sh", "-c", "/bin/true; exit 7"]);
        let mut program = Program::new(waiting.start().unwrap(), Some(&holder));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut answered = 0;
            while answered < stops && program.try_wait().unwrap().is_none() {
                tokio::select! {
                    () = holder.news() => {}
                    () = sleep(Duration::from_millis(1)) => {}
                }
                for waiting in holder.take_waiting() {
                    answered += 1;
                    holder.answer(Answer {
                        stop: waiting.stop,
                        starts: true,
                        watches_threads: false,
                    });
                }
            }
        });
        holder.let_go();
        let status = program.wait().unwrap();
        assert_eq!(status.code(), Some(7), "after {stops}: {status:?}");
    }
}

#[test]
fn a_program_waits_at_its_end_with_its_memory() {
    let command: Vec<OsString> = ["/bin/sh", "-c", "/bin/true; exit 7"]
        .map(Into::into)
        .to_vec();
    let waiting = Launch::fork(&command, Rights::own(), None).unwrap();
    let wishes = Wishes {
        follow: true,
        waits_at_end: true,
    };
    let pid = waiting.pid;
    let holder = &mut Holder::take(pid, wishes, Box::new(|_| None)).unwrap();
    let mut program = Program::new(waiting.start().unwrap(), Some(holder));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async {
        loop {
            holder.news().await;
            for waiting in holder.take_waiting() {
                if waiting.stop.why == Why::Ends {
                    return waiting.stop;
                }
                holder.answer(Answer {
                    stop: waiting.stop,
                    starts: matches!(waiting.stop.why, Why::Exec | Why::Mapped),
                    watches_threads: false,
                });
            }
        }
    });
    // The child's end is none.
    assert_eq!(ended.process, pid);
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    assert!(maps.contains("[heap]"), "{maps}");
    assert!(program.try_wait().unwrap().is_none());
    holder.let_go();
    assert_eq!(program.wait().unwrap().code(), Some(7));
}
