//! Does every worker still do its work? Thread 0 asks before it answers for the whole process: a worker
//! that hangs hangs alone, and only its share of the connections would show it.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Notify, watch};

/// What the workers are asked, and their answers.
#[derive(Debug)]
pub struct Heartbeat {
    asked: watch::Sender<u64>,
    /// Of each worker the last question that it answered.
    answered: Vec<AtomicU64>,
    news: Notify,
}

impl Heartbeat {
    /// Of so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        let answered = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Self { asked: watch::Sender::new(0), answered, news: Notify::new() }
    }

    /// Asks all workers; returns when every one has answered.
    pub async fn all(&self) {
        self.asked.send_modify(|question| *question += 1);
        let question = *self.asked.borrow();
        loop {
            // Asked for before the look, so that no answer between the two is missed.
            let news = self.news.notified();
            if self.answered.iter().all(|last| last.load(Ordering::Relaxed) >= question) {
                return;
            }
            news.await;
        }
    }

    /// Answers for the worker of this index, for ever.
    pub async fn answer(&self, worker: usize) {
        let Some(answered) = self.answered.get(worker) else { return };
        let mut asked = self.asked.subscribe();
        // A worker may start behind a question.
        asked.mark_changed();
        while asked.changed().await.is_ok() {
            answered.store(*asked.borrow_and_update(), Ordering::Relaxed);
            self.news.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use heddle_runtime::clock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn all_have_answered_only_when_every_worker_has() {
        let heartbeat = Heartbeat::new(2);
        let two_workers = async { tokio::join!(heartbeat.answer(0), heartbeat.answer(1)) };
        tokio::select! {
            _ = two_workers => unreachable!("they answer for ever"),
            () = async { for _ in 0..3 { heartbeat.all().await } } => {}
        }
        let one_hangs = heartbeat.answer(0);
        let asked = clock::within(Duration::from_secs(60), heartbeat.all());
        tokio::select! {
            () = one_hangs => unreachable!("it answers for ever"),
            answered = asked => assert_eq!(answered, None),
        }
    }
}
