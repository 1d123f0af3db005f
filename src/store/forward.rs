//! A pointer to a store is a store.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    Admission, Charge, Decision, Distinct, FactStore, Key, LimiterStore, RecordPage, RecordStore,
    Seen, Settlement, Standings, StoreFuture,
};

macro_rules! forward_stores {
    ($($pointer:ident),*) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: LimiterStore + ?Sized> LimiterStore for $pointer<T> {
            fn acquire(&self, admission: &Admission<'_>) -> StoreFuture<Decision> {
                (**self).acquire(admission)
            }
            fn settle(&self, settlement: &Settlement<'_>) {
                (**self).settle(settlement);
            }
            fn standings(&self, charges: &[Charge], seen: &Seen) -> Standings {
                (**self).standings(charges, seen)
            }
            fn peek(&self, admission: &Admission<'_>) -> StoreFuture<Standings> {
                (**self).peek(admission)
            }
            fn reset(&self, record: Key) -> StoreFuture<()> {
                (**self).reset(record)
            }
            fn flush(&self) -> StoreFuture<()> {
                (**self).flush()
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<T: FactStore + ?Sized> FactStore for $pointer<T> {
            fn first_use(&self, key: Key, ttl: Duration) -> StoreFuture<bool> {
                (**self).first_use(key, ttl)
            }
            fn raise(&self, key: Key, value: u64, ttl: Duration) -> StoreFuture<u64> {
                (**self).raise(key, value, ttl)
            }
            fn get(&self, key: Key) -> StoreFuture<Option<u64>> {
                (**self).get(key)
            }
            fn distinct(
                &self,
                key: Key,
                member: Key,
                window: Duration,
                cap: u32,
            ) -> StoreFuture<Distinct> {
                (**self).distinct(key, member, window, cap)
            }
        }

        #[deny(clippy::missing_trait_methods)]
        impl<T: RecordStore + ?Sized> RecordStore for $pointer<T> {
            fn read(&self, table: &'static str, key: Key) -> StoreFuture<Option<Bytes>> {
                (**self).read(table, key)
            }
            fn compare_and_swap(
                &self,
                table: &'static str,
                key: Key,
                old: Option<Bytes>,
                new: Bytes,
            ) -> StoreFuture<bool> {
                (**self).compare_and_swap(table, key, old, new)
            }
            fn page(&self, table: &'static str, cursor: Option<Bytes>) -> StoreFuture<RecordPage> {
                (**self).page(table, cursor)
            }
        }
    )*};
}

forward_stores!(Arc, Box);
