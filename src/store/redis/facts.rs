//! Facts: plain keys that expire.

use std::{future::Future, sync::Arc, time::Duration};

use redis::{RedisResult, cmd};

use super::{RedisStore, errors::store_error, link::Link, script::Program};
use crate::{
    future::ReadyOr,
    runtime,
    store::{Distinct, FactStore, Key, StoreError, StoreFuture},
};

impl FactStore for RedisStore {
    fn first_use(&self, key: Key, ttl: Duration) -> StoreFuture<bool> {
        self.ask(move |link| async move {
            let (name, mut set) = (link.name(&key, USED), cmd("SET"));
            set.arg(&name).arg(1).arg("NX").arg("PX").arg(milliseconds(ttl));
            let set: Option<String> = link.send(&name, &set).await?;
            Ok(set.is_some())
        })
    }

    fn raise(&self, key: Key, value: u64, ttl: Duration) -> StoreFuture<u64> {
        self.ask(move |link| async move {
            let keys = [link.name(&key, VALUE)];
            let (value, ttl) = (value.to_string(), milliseconds(ttl).to_string());
            link.run(Program::Raise, &keys, &[value.as_bytes(), ttl.as_bytes()]).await
        })
    }

    fn get(&self, key: Key) -> StoreFuture<Option<u64>> {
        self.ask(move |link| async move {
            let (name, mut get) = (link.name(&key, VALUE), cmd("GET"));
            get.arg(&name);
            link.send(&name, &get).await
        })
    }

    fn distinct(&self, key: Key, member: Key, window: Duration, cap: u32) -> StoreFuture<Distinct> {
        self.ask(move |link| async move {
            let keys = [link.name(&key, MEMBERS)];
            let (window, most) = (milliseconds(window).to_string(), cap.to_string());
            let arguments: [&[u8]; 3] = [member.as_bytes(), window.as_bytes(), most.as_bytes()];
            let (count, more, new) = link.run(Program::Distinct, &keys, &arguments).await?;
            Ok(Distinct::new(count, more, new))
        })
    }
}

impl RedisStore {
    /// One question to the server, answered within the deadline.
    pub(super) fn ask<T, F>(&self, question: impl FnOnce(Arc<Link>) -> F) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Future<Output = RedisResult<T>> + Send + 'static,
    {
        let answer = question(self.link());
        self.in_time(async move { answer.await.map_err(|error| store_error(&error)) })
    }

    pub(super) fn link(&self) -> Arc<Link> {
        Arc::clone(&self.inner.link)
    }

    /// The answer, or an error after the deadline.
    pub(super) fn in_time<T: Send + 'static>(
        &self,
        answer: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> StoreFuture<T> {
        if !runtime::is_here() {
            return ReadyOr::ready(Err(no_runtime()));
        }
        let deadline = self.inner.deadline;
        ReadyOr::pending(async move {
            runtime::timeout(deadline, answer).await.unwrap_or_else(|_| Err(too_late()))
        })
    }
}

pub(super) fn too_late() -> StoreError {
    StoreError::transient("the redis server did not answer within the deadline")
}

pub(super) fn no_runtime() -> StoreError {
    StoreError::permanent("a redis store needs a runtime")
}

const USED: &str = ":used";
const VALUE: &str = ":value";
const MEMBERS: &str = ":members";

/// At least one, as the server demands, and at most a thousand years.
fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).clamp(1, 31_557_600_000_000)
}
