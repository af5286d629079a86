//! One look at the region in each interval, shared by all who ask, and none while nobody does.

use super::source::{Seen, Source};
use hyper::body::Bytes;
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, sleep_until};

/// A look, ready to be sent.
#[derive(Debug, Clone)]
pub(super) struct Look {
    at: Instant,
    /// Whether the region was there.
    pub(super) there: bool,
    /// JSON on one line, or metrics.
    pub(super) text: Bytes,
}

impl Look {
    /// What is seen now.
    pub(super) fn now(there: bool, text: Bytes) -> Self {
        Self { at: Instant::now(), there, text }
    }
}

/// What was seen last, and who waits for the next.
pub(super) struct Looks {
    source: RefCell<Source>,
    interval: Duration,
    frame: watch::Sender<Option<Look>>,
    report: RefCell<Option<Look>>,
    metrics: RefCell<Option<Look>>,
    somebody: Notify,
}

impl Looks {
    /// Looks at a source, at most once in each interval.
    pub(super) fn new(source: Source, interval: Duration) -> Self {
        Self {
            source: RefCell::new(source),
            interval,
            frame: watch::Sender::new(None),
            report: RefCell::new(None),
            metrics: RefCell::new(None),
            somebody: Notify::new(),
        }
    }

    /// A frame that is no older than the interval.
    pub(super) fn frame(&self) -> Look {
        let fresh = self.frame.borrow().clone().filter(|look| self.is_fresh(look));
        fresh.unwrap_or_else(|| self.next_frame())
    }

    /// All frames from now on, of which the latest is kept: whoever is slow misses some.
    pub(super) fn frames(&self) -> watch::Receiver<Option<Look>> {
        let mut frames = self.frame.subscribe();
        if frames.borrow_and_update().as_ref().is_some_and(|look| self.is_fresh(look)) {
            frames.mark_changed();
        }
        self.somebody.notify_one();
        frames
    }

    /// A report that is no older than the interval.
    pub(super) fn report(self: &Rc<Self>) -> Look {
        self.once(|looks| &looks.report, Source::report)
    }

    /// Metrics that are no older than the interval.
    pub(super) fn metrics(self: &Rc<Self>) -> Look {
        self.once(|looks| &looks.metrics, Source::metrics)
    }

    /// What is kept there, or a look. It may be long, so it is not kept longer than the interval.
    fn once(
        self: &Rc<Self>,
        kept: fn(&Self) -> &RefCell<Option<Look>>,
        way: fn(&mut Source) -> Seen,
    ) -> Look {
        if let Some(look) = kept(self).borrow().as_ref().filter(|look| self.is_fresh(look)) {
            return look.clone();
        }
        let look = self.look(way);
        kept(self).replace(Some(look.clone()));
        let looks = self.clone();
        tokio::task::spawn_local(async move {
            sleep(looks.interval).await;
            kept(&looks).take();
        });
        look
    }

    /// Looks for those who follow, without end.
    pub(super) async fn keep_looking(&self) {
        loop {
            while self.frame.receiver_count() == 0 {
                self.somebody.notified().await;
            }
            let last = self.frame.borrow().as_ref().map(|look| look.at);
            if let Some(last) = last {
                sleep_until(last + self.interval).await;
            }
            if self.frame.receiver_count() > 0 {
                self.next_frame();
            }
        }
    }

    fn next_frame(&self) -> Look {
        let look = self.look(Source::frame);
        self.frame.send_replace(Some(look.clone()));
        look
    }

    fn look(&self, way: fn(&mut Source) -> Seen) -> Look {
        let Seen { there, text } = way(&mut self.source.borrow_mut());
        // The time after it, so that looks that take long are not made without a pause.
        Look::now(there, text)
    }

    fn is_fresh(&self, look: &Look) -> bool {
        look.at.elapsed() < self.interval
    }
}
