//! Several requests for one prompt, a few at a time.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

/// The results in the order of the futures, of which `most` run at a time; or the first error, which
/// drops the others.
pub(super) async fn all<F, T, E>(most: usize, futures: Vec<F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let mut runs: Vec<Run<F, T>> = futures.into_iter().map(|f| Run::Going(Box::pin(f))).collect();
    poll_fn(|cx| {
        let mut going = 0;
        for run in &mut runs {
            let Run::Going(future) = run else { continue };
            if going == most {
                break;
            }
            match Pin::new(future).poll(cx) {
                Poll::Ready(Ok(result)) => *run = Run::Over(result),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => going += 1,
            }
        }
        if going > 0 { Poll::Pending } else { Poll::Ready(Ok(())) }
    })
    .await?;
    Ok(runs.into_iter().filter_map(Run::result).collect())
}

enum Run<F, T> {
    Going(Pin<Box<F>>),
    Over(T),
}

impl<F, T> Run<F, T> {
    fn result(self) -> Option<T> {
        match self {
            Self::Over(result) => Some(result),
            Self::Going(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::Duration,
    };

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_run_at_a_time_and_the_order_is_kept() {
        let (now, peak) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let runs = (0..10u64).map(|n| {
            let (now, peak) = (&now, &peak);
            async move {
                peak.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis(100 - n)).await;
                now.fetch_sub(1, Ordering::SeqCst);
                Ok::<_, ()>(n)
            }
        });
        assert_eq!(all(3, runs.collect()).await, Ok((0..10).collect()));
        assert_eq!(peak.into_inner(), 3);
        let none: Vec<std::future::Ready<Result<(), ()>>> = Vec::new();
        assert_eq!(all(3, none).await, Ok(vec![]));
    }

    #[tokio::test]
    async fn the_first_error_ends_it() {
        let runs = (0..3).map(|n| async move {
            if n == 1 {
                return Err(n);
            }
            std::future::pending().await
        });
        assert_eq!(all::<_, (), _>(3, runs.collect()).await, Err(1));
    }
}
