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
