//! Single-threaded runtimes and tasks whose panic stays theirs.

use std::{
    any::Any,
    future::{Future, poll_fn},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::atomic::{AtomicU64, Ordering},
    task::Poll,
};

use tokio::{
    runtime::{Builder, LocalOptions},
    task::JoinHandle,
};

/// Tasks of this process that have panicked.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Tasks of this process that have panicked and were contained.
pub fn panics() -> u64 {
    PANICS.load(Ordering::Relaxed)
}

/// Runs `future` on a new single-threaded runtime with IO and time, on this thread, until it ends;
/// then drops what it spawned.
///
/// # Errors
/// The runtime needs an epoll and an event descriptor; fails if the process may open no more.
pub fn run_local<F: Future>(future: F) -> io::Result<F::Output> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    Ok(runtime.block_on(future))
}

/// Spawns `future` on this thread's runtime (see [`run_local`]). A panic in it is counted in
/// [`panics`], logged under `name`, and ends only this task.
///
/// Panics outside of [`run_local`], as `tokio::task::spawn_local` does.
pub fn spawn_contained<F>(name: &'static str, future: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + 'static,
{
    tokio::task::spawn_local(contained(name, future))
}

/// `future`, but a panic in it is counted and logged, and ends it.
///
/// Boxed: an `async fn` that pins its argument holds room for it twice.
pub fn contained<F: Future<Output = ()>>(
    name: &'static str,
    future: F,
) -> impl Future<Output = ()> {
    let mut future = Box::pin(future);
    poll_fn(move |context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(poll) => poll,
        Err(payload) => {
            PANICS.fetch_add(1, Ordering::Relaxed);
            tracing::error!(task = name, panic = text_of(&*payload), "a task panicked");
            Poll::Ready(())
        }
    })
}

fn text_of(payload: &(dyn Any + Send)) -> &str {
    payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("(no text)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_counted_and_ends_only_its_task() {
        let before = panics();
        let sum = run_local(async {
            let bad = spawn_contained("bad", async { panic!("on purpose") });
            let good = tokio::task::spawn_local(async { 42 });
            bad.await.expect("the panic was contained");
            good.await.expect("the other task is untouched")
        })
        .expect("a runtime");
        assert_eq!(sum, 42);
        assert_eq!(panics(), before + 1);
    }
}
