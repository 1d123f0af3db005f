//! Records: a hash for each table.

use bytes::Bytes;
use redis::cmd;

use super::{RedisStore, errors::store_error, link::Link, script::Program};
use crate::{
    future::ReadyOr,
    store::{
        Key, RecordPage, RecordStore, StoreError, StoreFuture,
        records::{self, PAGE},
    },
};

impl RecordStore for RedisStore {
    fn read(&self, table: &'static str, key: Key) -> StoreFuture<Option<Bytes>> {
        self.ask(move |link| async move {
            let (name, mut get) = (link.table(table), cmd("HGET"));
            get.arg(&name).arg(key.as_bytes());
            let found: Option<Vec<u8>> = link.send(&name, &get).await?;
            Ok(found.map(Bytes::from))
        })
    }

    fn compare_and_swap(
        &self,
        table: &'static str,
        key: Key,
        old: Option<Bytes>,
        new: Bytes,
    ) -> StoreFuture<bool> {
        if let Err(error) = records::check(&new) {
            return ReadyOr::ready(Err(error));
        }
        self.ask(move |link| async move {
            let keys = [link.table(table)];
            let mut arguments: Vec<&[u8]> = vec![key.as_bytes(), &new];
            arguments.extend(old.as_deref());
            link.run(Program::Swap, &keys, &arguments).await
        })
    }

    fn page(&self, table: &'static str, cursor: Option<Bytes>) -> StoreFuture<RecordPage> {
        let Some(cursor) = place(cursor.as_deref()) else {
            return ReadyOr::ready(Err(records::no_cursor()));
        };
        let link = self.link();
        self.in_time(async move { page(&link, table, cursor).await })
    }
}

async fn page(link: &Link, table: &str, cursor: u64) -> Result<RecordPage, StoreError> {
    let (name, mut scan) = (link.table(table), cmd("HSCAN"));
    scan.arg(&name).arg(cursor).arg("COUNT").arg(PAGE);
    let answer = link.send(&name, &scan).await.map_err(|error| store_error(&error))?;
    let (next, found): (u64, Vec<Vec<u8>>) = answer;
    let mut records = Vec::with_capacity(found.len() / 2);
    let mut found = found.into_iter();
    while let (Some(key), Some(record)) = (found.next(), found.next()) {
        let key = <[u8; 16]>::try_from(key);
        let key = key.map_err(|_| StoreError::permanent("a record's key can't be read"))?;
        records.push((Key::from_bytes(key), Bytes::from(record)));
    }
    Ok(RecordPage::new(records, (next != 0).then(|| Bytes::from(next.to_string()))))
}

/// Where a walk goes on: the server's own cursor. It begins at zero, and ends there.
fn place(cursor: Option<&[u8]>) -> Option<u64> {
    match cursor {
        None => Some(0),
        Some(cursor) => str::from_utf8(cursor).ok()?.parse().ok(),
    }
}
