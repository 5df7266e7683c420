//! A client that does not read its answer does not hold its connection: a stream whose writing has a time limit.
//!
//! What the kernel takes at once costs nothing. From the first write that it does not take, the client has [`Settings::answer_wait_max`] to
//! take another [`PROGRESS_BYTES`], or all that is left; then the connection ends. A limit on the whole answer would cut off honest clients behind a
//! slow line; one that any byte renews would let a client hold a connection for days.
//!
//! [`Settings::answer_wait_max`]: crate::Settings::answer_wait_max

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// So much must a client take within the limit, unless less is left.
const PROGRESS_BYTES: usize = 64 * 1024;

/// The stream of one connection.
#[derive(Debug)]
pub(crate) struct Unhurried<S> {
    stream: S,
    limit: Duration,
    /// Set while the client is waited for.
    deadline: Option<Pin<Box<Sleep>>>,
    /// Taken since the deadline was set.
    taken: usize,
}

impl<S> Unhurried<S> {
    pub(crate) fn new(stream: S, limit: Duration) -> Self {
        Self { stream, limit, deadline: None, taken: 0 }
    }

    /// What became of a write; an error when the client was waited for long enough.
    fn judge(
        &mut self,
        written: Poll<io::Result<usize>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(count)) => {
                self.taken = self.taken.saturating_add(count);
                if self.taken >= PROGRESS_BYTES {
                    self.rest();
                }
                Poll::Ready(Ok(count))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => {
                if self.deadline.is_none() {
                    self.taken = 0;
                }
                let limit = self.limit;
                let deadline = self.deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
                ready!(deadline.as_mut().poll(context));
                let said = format!("the client did not read its answer within {} ms", self.limit.as_millis());
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, said)))
            }
        }
    }

    /// The client is not waited for any more.
    fn rest(&mut self) {
        self.deadline = None;
        self.taken = 0;
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unhurried<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judge(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, parts);
        self.judge(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// Whoever writes flushes when all that was to be written is taken.
    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        self.rest();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Unhurried<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test(start_paused = true)]
    async fn client_that_reads_nothing_is_given_up_after_the_limit() {
        let (ours, _theirs) = tokio::io::duplex(1024);
        let mut stream = Unhurried::new(ours, LIMIT);
        let began = tokio::time::Instant::now();
        let error = stream.write_all(&[0; 4096]).await.unwrap_err();
        assert_eq!((error.kind(), began.elapsed().as_secs()), (io::ErrorKind::TimedOut, 30));
    }

    #[tokio::test(start_paused = true)]
    async fn single_bytes_now_and_then_do_not_renew_the_limit() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = Unhurried::new(ours, LIMIT);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if theirs.read_u8().await.is_err() {
                    return;
                }
            }
        });
        let began = tokio::time::Instant::now();
        assert!(stream.write_all(&[0; 4096]).await.is_err());
        assert_eq!(began.elapsed().as_secs(), 30);
    }

    #[tokio::test(start_paused = true)]
    async fn slow_client_that_takes_enough_gets_all_of_it() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = Unhurried::new(ours, LIMIT);
        let reading = tokio::spawn(async move {
            let (mut buffer, mut read) = (vec![0; 1024], 0);
            loop {
                // 64 KiB in 20 s.
                match theirs.read(&mut buffer).await {
                    Ok(0) | Err(_) => return read,
                    Ok(count) => read += count,
                }
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        });
        let began = tokio::time::Instant::now();
        stream.write_all(&vec![0; 1024 * 1024]).await.unwrap();
        stream.flush().await.unwrap();
        assert!(began.elapsed() > LIMIT * 5, "longer than the limit in all: {:?}", began.elapsed());
        drop(stream);
        assert_eq!(reading.await.unwrap(), 1024 * 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn time_between_answers_does_not_count() {
        let (ours, mut theirs) = tokio::io::duplex(1024);
        let mut stream = Unhurried::new(ours, LIMIT);
        for _ in 0..3 {
            let reading = async {
                tokio::time::sleep(Duration::from_secs(20)).await;
                theirs.read_exact(&mut [0; 2048]).await.unwrap();
            };
            let writing = async {
                stream.write_all(&[0; 2048]).await.unwrap();
                stream.flush().await.unwrap();
            };
            tokio::join!(reading, writing);
            tokio::time::sleep(Duration::from_secs(100)).await;
        }
    }
}
