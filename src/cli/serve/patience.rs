//! A connection that is given up when its client takes nothing for too long.

use hyper::rt::{Read, ReadBufCursor, Write};
use std::future::Future;
use std::io::{Error, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::time::{Sleep, sleep};

/// A connection whose writes fail with `TimedOut` after waiting so long for the client.
pub(super) struct Patience<T> {
    inner: T,
    longest: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl<T> Patience<T> {
    /// Waits so long.
    pub(super) fn new(inner: T, longest: Duration) -> Self {
        Self { inner, longest, waiting: None }
    }

    /// What a write came to, or that it has waited too long.
    fn or_too_long<R>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<Result<R, Error>>,
    ) -> Poll<Result<R, Error>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        let longest = self.longest;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(longest)));
        ready!(waiting.as_mut().poll(context));
        Poll::Ready(Err(Error::from(ErrorKind::TimedOut)))
    }
}

impl<T: Read + Unpin> Read for Patience<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: Write + Unpin> Write for Patience<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.or_too_long(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.or_too_long(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(context);
        self.or_too_long(context, flushed)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(context);
        self.or_too_long(context, shut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// A client that takes so many bytes and no more.
    struct Full(usize);

    impl Write for Full {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<Result<usize, Error>> {
            let taken = bytes.len().min(self.0);
            self.0 -= taken;
            if taken > 0 { Poll::Ready(Ok(taken)) } else { Poll::Pending }
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Pending
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
            Poll::Pending
        }
    }

    #[test]
    fn a_client_that_takes_nothing_is_given_up() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut io = Patience::new(Full(3), Duration::from_millis(20));
            let mut write =
                async || poll_fn(|context| Pin::new(&mut io).poll_write(context, b"xx")).await;
            assert_eq!(write().await.ok(), Some(2));
            assert_eq!(write().await.ok(), Some(1));
            assert_eq!(write().await.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
            let mut io = Patience::new(Full(0), Duration::from_millis(20));
            let flushed = poll_fn(|context| Pin::new(&mut io).poll_flush(context)).await;
            assert_eq!(flushed.map_err(|error| error.kind()), Err(ErrorKind::TimedOut));
        });
    }

    #[test]
    fn what_is_taken_begins_the_wait_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut io = Patience::new(Full(0), Duration::from_secs(60));
            let once = async |io: &mut Patience<Full>| {
                poll_fn(|context| Poll::Ready(Pin::new(&mut *io).poll_write(context, b"x"))).await
            };
            assert!(once(&mut io).await.is_pending());
            assert!(io.waiting.is_some());
            io.inner.0 = 1;
            assert!(once(&mut io).await.is_ready());
            assert!(io.waiting.is_none());
        });
    }
}
