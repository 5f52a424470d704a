//! How many may ask at once, and for how long: nobody keeps others from asking.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Sleep, sleep};

/// Connections at once; further ones wait to be accepted.
pub const MOST_CONNECTIONS: usize = 64;
/// A connection ends after so long, whatever it is at. A client that asks again makes another.
pub const LONGEST: Duration = Duration::from_mins(1);

/// A listener that accepts so many at once.
pub struct Limited<L> {
    listener: L,
    room: Arc<Semaphore>,
    longest: Duration,
}

impl<L> Limited<L> {
    /// So many connections at once, each for so long.
    pub fn new(listener: L, most: usize, longest: Duration) -> Self {
        Self {
            listener,
            room: Arc::new(Semaphore::new(most)),
            longest,
        }
    }
}

impl<L: Listener> Listener for Limited<L> {
    type Io = Connection<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // It is never closed.
        let place = Arc::clone(&self.room).acquire_owned().await.ok();
        let (io, address) = self.listener.accept().await;
        let connection = Connection {
            io,
            end: Box::pin(sleep(self.longest)),
            _place: place,
        };
        (connection, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// A connection that ends in time.
pub struct Connection<I> {
    io: I,
    end: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<I> Connection<I> {
    /// What it goes by.
    pub fn io(&self) -> &I {
        &self.io
    }
}

impl<I: Unpin> Connection<I> {
    /// What it goes by, unless its time is over.
    fn in_time(&mut self, context: &mut Context<'_>) -> io::Result<Pin<&mut I>> {
        match self.end.as_mut().poll(context) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(Pin::new(&mut self.io)),
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Connection<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.in_time(context) {
            Ok(io) => io.poll_read(context, buffer),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Connection<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.in_time(context) {
            Ok(io) => io.poll_write(context, bytes),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.in_time(context) {
            Ok(io) => io.poll_flush(context),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::mpsc::channel;

    use axum::Router;
    use axum::routing::get;
    use tokio::net::TcpListener;

    use super::*;

    /// A server with room for one, on a thread that ends with the test.
    fn server(longest: Duration) -> SocketAddr {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().route("/", get(|| async { "here" }));
                axum::serve(Limited::new(listener, 1, longest), router)
                    .await
                    .unwrap();
            });
        });
        told.recv().unwrap()
    }

    fn ask(address: SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    /// One that says nothing has the only place until its time is over; then others are
    /// answered.
    #[test]
    fn who_says_nothing_does_not_keep_others_out() {
        let longest = Duration::from_millis(300);
        let address = server(longest);
        assert!(ask(address).ends_with("here"));
        let began = std::time::Instant::now();
        let mut silent = TcpStream::connect(address).unwrap();
        assert!(ask(address).ends_with("here"));
        assert!(began.elapsed() >= longest, "there was no limit");
        assert_eq!(silent.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
