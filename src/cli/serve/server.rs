//! Listening: as many connections as are bearable, each for as long as it behaves.

use super::access::Access;
use super::answer::Service;
use super::looks::Looks;
use super::patience::Patience;
use super::source::Source;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::{Future, poll_fn, ready};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use tokio::task::spawn_local;
use tokio::time::sleep;

/// Connections at once; those that come then are closed.
const CONNECTIONS: usize = 128;
/// How long a client may take for the head of its next request.
const HEAD: Duration = Duration::from_secs(10);
/// How long a client may take nothing of what it is sent.
const UNREAD: Duration = Duration::from_secs(20);
/// Bytes of a head, and of an answer that waits to be sent.
const BUFFER: usize = 32 * 1024;

/// Bytes that the kernel keeps of what a client has not taken yet. What waits there is old.
const UNSENT: u32 = 64 * 1024;
/// Connections that may wait to be accepted.
const WAITING: u32 = 128;

/// Listens at an address.
pub(super) fn listener(place: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if place.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // The connections of a server that has ended are no reason not to begin another.
    socket.set_reuseaddr(true)?;
    socket.set_send_buffer_size(UNSENT)?;
    socket.bind(place)?;
    socket.listen(WAITING)
}

/// Ends when the process is told to: SIGINT or SIGTERM.
pub(super) fn told_to_end() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(poll_fn(move |context| {
        let told =
            interrupt.poll_recv(context).is_ready() || terminate.poll_recv(context).is_ready();
        if told { Poll::Ready(()) } else { Poll::Pending }
    }))
}

/// Serves until `end`.
pub(super) async fn run(
    listener: TcpListener,
    source: Source,
    access: Access,
    interval: Duration,
    end: impl Future<Output = ()>,
) {
    let looks = Rc::new(Looks::new(source, interval));
    let service = Rc::new(Service::new(access, looks.clone()));
    // Both end, as all connections do, when the set of tasks that they are in is dropped.
    spawn_local(async move { looks.keep_looking().await });
    spawn_local(listen(listener, service));
    end.await;
}

async fn listen(listener: TcpListener, service: Rc<Service>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // There may be no descriptor left; somebody has to end first.
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(place) = places.clone().try_acquire_owned() else {
            continue;
        };
        let service = service.clone();
        spawn_local(async move {
            talk(stream, service).await;
            drop(place);
        });
    }
}

async fn talk(stream: TcpStream, service: Rc<Service>) {
    let _ = stream.set_nodelay(true);
    let io = Patience::new(TokioIo::new(stream), UNREAD);
    let answer = service_fn(|request| ready(Ok::<_, Infallible>(service.answer(&request))));
    // What a client does wrong is answered or ends its connection, and is nobody else's concern.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_headers(100)
        .max_header_size(BUFFER)
        .max_buf_size(BUFFER)
        .serve_connection(io, answer)
        .await;
}
