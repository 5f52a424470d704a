//! What the screen is told. Nobody waits for anybody: a report that was not shown yet is
//! replaced by the next one.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::model::Report;

/// What there is to show.
#[derive(Default)]
pub struct Feed {
    news: Mutex<News>,
    /// The sites whose holders are asked for, by their indices in the kernel.
    asked: Mutex<Option<Vec<u32>>>,
    is_asked: Notify,
}

/// What is new.
#[derive(Default)]
pub struct News {
    /// The last report.
    pub report: Option<Arc<Report>>,
    /// The last message.
    pub said: Option<String>,
    /// Why there are no more reports.
    pub ended: Option<String>,
    /// Whether the screen is to go.
    pub is_closed: bool,
}

impl Feed {
    /// There is a new report.
    pub fn put(&self, report: Report) {
        self.change(|news| news.report = Some(Arc::new(report)));
    }

    /// There is something to say.
    pub fn say(&self, text: String) {
        self.change(|news| news.said = Some(text));
    }

    /// There are no more reports.
    pub fn end(&self, why: String) {
        self.change(|news| news.ended = Some(why));
    }

    /// The screen is to go.
    pub fn close(&self) {
        self.change(|news| news.is_closed = true);
    }

    /// Whether it is.
    pub fn is_closed(&self) -> bool {
        self.change(|news| news.is_closed)
    }

    /// What is new since the last call.
    pub fn take(&self) -> News {
        self.change(|news| News {
            report: news.report.take(),
            said: news.said.take(),
            ended: news.ended.take(),
            is_closed: news.is_closed,
        })
    }

    /// Asks who holds the blocks of these sites.
    pub fn ask(&self, sites: Vec<u32>) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(sites);
        self.is_asked.notify_one();
    }

    /// Waits until that is asked. Of two questions that nobody has waited for yet the last counts.
    pub async fn asked(&self) -> Vec<u32> {
        loop {
            if let Some(sites) = self.take_asked() {
                return sites;
            }
            self.is_asked.notified().await;
        }
    }

    /// Whether that is asked, and was not before.
    pub fn is_asked(&self) -> bool {
        self.take_asked().is_some()
    }

    fn take_asked(&self) -> Option<Vec<u32>> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.take()
    }

    fn change<T>(&self, change: impl FnOnce(&mut News) -> T) -> T {
        change(&mut self.news.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn only_the_last_report_waits() {
        let feed = Feed::default();
        for seconds in [1.0, 2.0] {
            feed.put(Report {
                duration: seconds,
                ..sample::report()
            });
        }
        feed.end("over".to_owned());
        let news = feed.take();
        let report = news.report.unwrap();
        assert!((report.duration - 2.0).abs() < 1e-9);
        assert_eq!(news.ended.as_deref(), Some("over"));
        assert!(feed.take().report.is_none() && !feed.is_closed());
        feed.close();
        assert!(feed.take().is_closed && feed.is_closed());
    }

    #[tokio::test]
    async fn the_last_question_waits_for_an_answer() {
        let feed = Feed::default();
        feed.ask(vec![1]);
        feed.ask(vec![2, 3]);
        assert_eq!(feed.asked().await, [2, 3]);
        let later = async {
            tokio::task::yield_now().await;
            feed.ask(vec![4]);
        };
        assert_eq!(tokio::join!(feed.asked(), later).0, [4]);
    }
}
