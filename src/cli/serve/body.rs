//! Bodies of answers: a whole one, or frames without end as server-sent events.

use super::looks::Look;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::sync::{OwnedSemaphorePermit, watch};

type Frames = watch::Receiver<Option<Look>>;
type Next = Pin<Box<dyn Future<Output = Option<(Bytes, Frames)>>>>;

/// Bytes that are given to be sent at once. What has been given is no longer counted as an answer on its way.
const PART: usize = 64 * 1024;

/// What is sent.
pub(super) enum Answer {
    /// This.
    Whole(Option<Bytes>),
    /// The latest frame whenever the one before has been sent: nothing piles up for a client that is slow.
    Frames(Next),
}

/// An answer and its place among those that may be on their way at once.
pub(super) struct Sent {
    answer: Answer,
    _place: Option<OwnedSemaphorePermit>,
}

impl Sent {
    /// A whole body.
    pub(super) fn whole(body: impl Into<Bytes>, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { answer: Answer::Whole(Some(body.into())), _place: place }
    }

    /// Frames, from now on.
    pub(super) fn frames(frames: Frames, place: OwnedSemaphorePermit) -> Self {
        Self { answer: Answer::Frames(Box::pin(next(frames))), _place: Some(place) }
    }
}

/// Takes the next part of a body.
fn part(body: &mut Option<Bytes>) -> Option<Bytes> {
    let rest = body.as_mut()?;
    if rest.len() > PART { Some(rest.split_to(PART)) } else { body.take() }
}

/// The next frame as an event.
async fn next(mut frames: Frames) -> Option<(Bytes, Frames)> {
    frames.changed().await.ok()?;
    let text = frames.borrow_and_update().as_ref().map(|look| look.text.clone())?;
    let event = [b"data: ", text.as_ref(), b"\n\n"].concat();
    Some((event.into(), frames))
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next_frame = match &mut self.answer {
            Answer::Whole(body) => {
                return Poll::Ready(part(body).map(|part| Ok(Frame::data(part))));
            }
            Answer::Frames(next_frame) => next_frame,
        };
        match next_frame.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => {
                self.answer = Answer::Whole(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some((event, frames))) => {
                self.answer = Answer::Frames(Box::pin(next(frames)));
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.answer, Answer::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match &self.answer {
            Answer::Whole(body) => {
                SizeHint::with_exact(body.as_ref().map_or(0, |body| body.len() as u64))
            }
            Answer::Frames(_) => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    fn on_this_thread<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
    }

    async fn data(sent: &mut Sent) -> Option<Bytes> {
        let frame = poll_fn(|context| Pin::new(&mut *sent).poll_frame(context)).await;
        frame.map(|frame| frame.unwrap().into_data().unwrap())
    }

    #[test]
    fn a_whole_body_is_sent_once_and_its_length_is_known() {
        let mut sent = Sent::whole("body", None);
        assert_eq!((sent.size_hint().exact(), sent.is_end_stream()), (Some(4), false));
        assert_eq!(on_this_thread(data(&mut sent)), Some("body".into()));
        assert!(sent.is_end_stream());
        assert_eq!(on_this_thread(data(&mut sent)), None);
    }

    #[test]
    fn a_long_body_keeps_its_place_until_all_of_it_is_on_its_way() {
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().unwrap();
        let long: Bytes = (0..=u8::MAX).cycle().take(3 * PART / 2).collect();
        let mut sent = Sent::whole(long.clone(), Some(place));
        assert_eq!(sent.size_hint().exact(), Some(long.len() as u64));
        let mut taken = on_this_thread(data(&mut sent)).unwrap().to_vec();
        // A server that has taken all of it drops what it was taken from, however slow the client is.
        assert!(taken.len() <= PART && !sent.is_end_stream());
        taken.extend(on_this_thread(data(&mut sent)).unwrap());
        assert!(sent.is_end_stream() && taken == long);
        drop(sent);
        assert_eq!(places.available_permits(), 1);
    }

    #[test]
    fn whoever_is_slow_gets_the_latest_frame_and_none_of_those_before() {
        let looks = watch::Sender::new(None);
        let places = Arc::new(Semaphore::new(1));
        let place = places.clone().try_acquire_owned().unwrap();
        let mut sent = Sent::frames(looks.subscribe(), place);
        on_this_thread(async {
            for text in ["1", "2", "3"] {
                looks.send_replace(Some(Look::now(true, text.into())));
            }
            assert_eq!(data(&mut sent).await, Some("data: 3\n\n".into()));
            let nothing = poll_fn(|context| Poll::Ready(Pin::new(&mut sent).poll_frame(context)));
            assert!(nothing.await.is_pending());
            looks.send_replace(Some(Look::now(true, "4".into())));
            assert_eq!(data(&mut sent).await, Some("data: 4\n\n".into()));
            assert_eq!((looks.receiver_count(), places.available_permits()), (1, 0));
            drop(sent);
            assert_eq!((looks.receiver_count(), places.available_permits()), (0, 1));
        });
    }
}
