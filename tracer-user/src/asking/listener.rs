//! Listening for questions, while a run goes on.

use std::collections::VecDeque;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::sync::Notify;

use super::{Answer, Asked, FOLDER, Head, Question};
use crate::privilege::capability::Phase;
use crate::report::json;

/// Who asks says it within this time, and takes the answer, a piece at a time.
const PATIENCE: Duration = Duration::from_secs(5);
/// A question of more bytes is none.
const MOST_QUESTION: u64 = 64 << 10;

/// Questions that wait.
#[derive(Default)]
pub struct Questions {
    waiting: Mutex<VecDeque<Asked>>,
    is_asked: Notify,
}

impl Questions {
    /// Waits for one. Nothing is lost if nobody waits any longer.
    pub async fn next(&self) -> Asked {
        loop {
            match self.first() {
                Some(asked) => return asked,
                None => self.is_asked.notified().await,
            }
        }
    }

    fn first(&self) -> Option<Asked> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.pop_front()
    }

    /// Asks, and waits for the answer; `None` if the run has ended.
    fn ask(&self, question: Question) -> Option<Answer> {
        let (reply, answer) = sync_channel(1);
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push_back(Asked { question, reply });
        drop(waiting);
        self.is_asked.notify_one();
        answer.recv().ok()
    }

    /// The run has ended: nobody answers those that wait.
    fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.clear();
    }
}

/// A socket, as long as a run can be asked. Dropping it takes it away.
pub struct Listener {
    path: PathBuf,
    /// What is asked.
    pub questions: Arc<Questions>,
}

impl Listener {
    /// Begins to listen, on a thread of its own. Sockets of runs that were killed are taken away.
    ///
    /// # Errors
    /// The folder cannot be made, as by who is not root, or is somebody else's.
    pub fn start() -> Result<Self> {
        Self::start_in(Path::new(FOLDER))
    }

    fn start_in(folder: &Path) -> Result<Self> {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
            _ => {}
        }
        check(folder)?;
        remove_stale(folder)?;
        let path = folder.join(format!("{}.sock", std::process::id()));
        let socket = UnixListener::bind(&path)
            .with_context(|| format!("cannot listen at {}", path.display()))?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        let questions = Arc::new(Questions::default());
        let asked = Arc::clone(&questions);
        std::thread::Builder::new()
            .name("asked".to_owned())
            .spawn(move || listen(&socket, &asked))?;
        Ok(Self { path, questions })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // It is gone if somebody took it away.
        let _ = fs::remove_file(&self.path);
        self.questions.close();
    }
}

/// The folder has to be one that nobody else can write to.
fn check(folder: &Path) -> Result<()> {
    let about = fs::symlink_metadata(folder)?;
    let is_ours = about.is_dir() && about.uid() == rustix::process::geteuid().as_raw();
    ensure!(
        is_ours && about.mode() & 0o022 == 0,
        "{} is somebody else's, or others can write to it",
        folder.display()
    );
    Ok(())
}

/// Takes away sockets at which nobody listens any more: of processes that are gone.
fn remove_stale(folder: &Path) -> io::Result<()> {
    for path in sockets(folder)? {
        let pid = path.file_stem().unwrap_or_default();
        let is_gone = !Path::new("/proc").join(pid).exists();
        let refused = UnixStream::connect(&path).is_err_and(|it| is_refused(&it));
        if refused && (is_gone || pid == std::process::id().to_string().as_str()) {
            // Another run may have been first.
            let _ = fs::remove_file(&path);
        }
    }
    Ok(())
}

fn is_refused(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ConnectionRefused
}

/// The sockets of runs, living or not.
pub(super) fn sockets(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "sock") {
            found.push(path);
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Answers one after the other.
fn listen(socket: &UnixListener, questions: &Questions) {
    if Phase::Reporting.enter().is_err() {
        // Without that nobody is answered.
        return;
    }
    for stream in socket.incoming().flatten() {
        // Who does not listen any more has no answer.
        let _ = serve(&stream, questions);
    }
}

fn serve(stream: &UnixStream, questions: &Questions) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut line = String::new();
    BufReader::new(stream.take(MOST_QUESTION)).read_line(&mut line)?;
    let question: Question = serde_json::from_str(&line)?;
    let answer = questions.ask(question);
    let mut writer = io::BufWriter::new(stream);
    let head = match &answer {
        Some(Answer::NotTraced) => Head::NotTraced,
        Some(Answer::Report(report)) => {
            let sites = report.sites.iter();
            Head::Report(sites.map(|it| (it.id, it.indices.clone())).collect())
        }
        None => Head::Failed("the run has ended".to_owned()),
    };
    serde_json::to_writer(&mut writer, &head)?;
    writeln!(writer)?;
    if let Some(Answer::Report(report)) = answer {
        json::write(&report, &mut writer)?;
    }
    writer.flush()
}

#[cfg(test)]
mod tests {
    use super::super::client;
    use super::*;
    use crate::report::sample;

    fn question(pid: u32) -> Question {
        Question {
            pid,
            sites: vec![5],
        }
    }

    #[tokio::test]
    async fn a_question_has_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("runs");
        let listener = Listener::start_in(&folder).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!((mode(&folder), mode(&listener.path)), (0o700, 0o600));
        let asking = folder.clone();
        let thread = std::thread::spawn(move || client::ask_in(&asking, &question(7)));
        let asked = listener.questions.next().await;
        assert_eq!(asked.question, question(7));
        let mut report = sample::report();
        report.sites[0].indices = vec![5];
        let id = report.sites[0].id;
        asked.answer(Answer::Report(Box::new(report)));
        let told = thread.join().unwrap().unwrap();
        let site = told.sites.iter().find(|site| site.id == id).unwrap();
        assert_eq!(site.indices, [5]);
        drop(listener);
        assert!(sockets(&folder).unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_asks_for_nobody_is_told_so() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("runs");
        let none = client::ask_in(&folder, &question(7)).unwrap_err();
        assert!(none.to_string().contains("no run"), "{none}");
        let listener = Listener::start_in(&folder).unwrap();
        let asking = folder.clone();
        let thread = std::thread::spawn(move || client::ask_in(&asking, &question(7)));
        listener.questions.next().await.answer(Answer::NotTraced);
        let none = thread.join().unwrap().unwrap_err();
        assert!(none.to_string().contains("no run"), "{none}");
        // One that ends before it has answered.
        let asking = folder.clone();
        let thread = std::thread::spawn(move || client::ask_in(&asking, &question(7)));
        drop(listener.questions.next().await);
        let ended = thread.join().unwrap().unwrap_err();
        assert!(format!("{ended:#}").contains("has ended"), "{ended:#}");
    }

    #[test]
    fn sockets_that_were_left_are_taken_away() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        // No process has such a number.
        let left = folder.path().join("4194305.sock");
        drop(UnixListener::bind(&left).unwrap());
        assert!(left.exists());
        let listener = Listener::start_in(folder.path()).unwrap();
        let all = sockets(folder.path()).unwrap();
        assert_eq!(all, std::slice::from_ref(&listener.path));
    }

    #[test]
    fn a_folder_of_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(Listener::start_in(folder.path()).is_err());
    }
}
