//! A time that begins anew with each thing that happens. Setting a timer costs a place in the runtime's wheel; here it is set again only
//! when it rings too early, which is once in that time and not once for each request.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

#[derive(Debug)]
pub struct Late {
    timer: Pin<Box<Sleep>>,
    /// `None` until it is asked for, since something has happened.
    due: Option<Instant>,
}

impl Late {
    pub fn new(within: Duration) -> Self {
        Self { timer: Box::pin(tokio::time::sleep(within)), due: None }
    }

    /// Something has happened: the time begins anew when it is asked for next.
    pub fn restart(&mut self) {
        self.due = None;
    }

    /// Ready when nothing has happened for so long. Asked each time that there is nothing else to do.
    pub fn poll(&mut self, context: &mut Context<'_>, within: Duration) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + within);
        if due < self.timer.deadline() {
            self.timer.as_mut().reset(due);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if due <= self.timer.deadline() {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    #[tokio::test]
    async fn the_time_begins_anew_with_each_thing_that_happens() {
        let short = Duration::from_millis(40);
        let mut late = Late::new(Duration::from_secs(1000));
        let begun = Instant::now();
        for _ in 0..5 {
            late.restart();
            let waited = tokio::time::timeout(short, poll_fn(|context| late.poll(context, 1000 * short))).await;
            assert!(waited.is_err(), "it is not late yet");
        }
        late.restart();
        poll_fn(|context| late.poll(context, short)).await;
        assert!(begun.elapsed() >= 6 * short, "a shorter time after longer ones");
        late.restart();
        poll_fn(|context| late.poll(context, 2 * short)).await;
        assert!(begun.elapsed() >= 8 * short, "a longer one, though the timer had rung for the shorter");
    }
}
