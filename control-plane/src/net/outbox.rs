//! A queue with one writer and one reader, for streams that are idle most of their life: empty, it holds no memory for
//! values. (tokio's channel keeps a block for 32 values, more than everything else that an idle stream needs.)

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Puts values in. Dropping it ends the queue after what is in it.
#[derive(Debug)]
pub struct Sender<T>(Arc<Mutex<State<T>>>);

/// Takes values out, in order. Dropping it drops what is in the queue.
#[derive(Debug)]
pub struct Receiver<T>(Arc<Mutex<State<T>>>);

#[derive(Debug)]
struct State<T> {
    values: VecDeque<T>,
    reader: Option<Waker>,
    /// One side is gone.
    is_closed: bool,
}

/// An empty queue. It has no limit of its own.
pub fn outbox<T>() -> (Sender<T>, Receiver<T>) {
    let state = State { values: VecDeque::new(), reader: None, is_closed: false };
    let state = Arc::new(Mutex::new(state));
    (Sender(Arc::clone(&state)), Receiver(state))
}

impl<T> Sender<T> {
    /// Adds a value at the end.
    ///
    /// # Errors
    /// The value, if nobody will read it.
    pub fn send(&self, value: T) -> Result<(), T> {
        let mut state = lock(&self.0);
        if state.is_closed {
            return Err(value);
        }
        state.values.push_back(value);
        wake(state);
        Ok(())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.is_closed = true;
        wake(state);
    }
}

impl<T> Receiver<T> {
    /// The next value; `None` when the sender is gone and everything has been taken.
    pub async fn recv(&mut self) -> Option<T> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`Receiver::recv`] for a task that waits for several things at once.
    pub fn poll_recv(&mut self, cx: &Context<'_>) -> Poll<Option<T>> {
        let mut state = lock(&self.0);
        match state.values.pop_front() {
            Some(value) => {
                if state.values.is_empty() {
                    state.values = VecDeque::new();
                }
                Poll::Ready(Some(value))
            }
            None if state.is_closed => Poll::Ready(None),
            None => {
                match &mut state.reader {
                    Some(reader) => reader.clone_from(cx.waker()),
                    reader => *reader = Some(cx.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0);
        state.is_closed = true;
        let values = std::mem::take(&mut state.values);
        drop(state);
        drop(values);
    }
}

fn lock<T>(state: &Mutex<State<T>>) -> MutexGuard<'_, State<T>> {
    // Nothing panics between two consistent states.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the reader, outside the lock that it takes next.
fn wake<T>(mut state: MutexGuard<'_, State<T>>) {
    let reader = state.reader.take();
    drop(state);
    if let Some(reader) = reader {
        reader.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn values_come_in_order_and_the_end_after_them() {
        let (sender, mut receiver) = outbox();
        let reader = tokio::spawn(async move {
            let mut seen = Vec::new();
            while let Some(value) = receiver.recv().await {
                seen.push(value);
            }
            seen
        });
        for value in 0..100 {
            sender.send(value).unwrap();
            tokio::task::yield_now().await;
        }
        drop(sender);
        assert_eq!(reader.await.unwrap(), (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_queue_without_reader_takes_nothing() {
        let (sender, receiver) = outbox();
        sender.send(1).unwrap();
        drop(receiver);
        assert_eq!(sender.send(2), Err(2));
    }

    #[test]
    fn an_empty_queue_keeps_no_room_for_values() {
        let (sender, mut receiver) = outbox();
        sender.send([0_u8; 1000]).unwrap();
        let cx = Context::from_waker(Waker::noop());
        assert!(receiver.poll_recv(&cx).is_ready() && receiver.poll_recv(&cx).is_pending());
        assert_eq!(lock(&receiver.0).values.capacity(), 0);
    }
}
