//! Which node of a Redis Cluster has which slots.

use crc::{CRC_16_XMODEM, Crc};
use redis::{Value, from_redis_value};

/// A node's host and port.
pub(super) type Address = (String, u16);

/// Who is the master of each slot, as a node tells it.
#[derive(Clone, Debug, Default)]
pub(super) struct SlotMap {
    /// First slot, last slot, and where they are: in order.
    ranges: Vec<(u16, u16, Address)>,
    /// Slots that have moved since.
    moved: Vec<(u16, Address)>,
}

impl SlotMap {
    /// What `CLUSTER SLOTS` answers. A node that does not know its own address is `asked`. `None`: that can't be read, or
    /// there are no slots.
    pub(super) fn read(answer: Value, asked: &Address) -> Option<Self> {
        let rows: Vec<Vec<Value>> = from_redis_value(answer).ok()?;
        let mut ranges = Vec::with_capacity(rows.len());
        for row in rows {
            let mut row = row.into_iter();
            let (first, last, master) = (row.next()?, row.next()?, row.next()?);
            let mut master = from_redis_value::<Vec<Value>>(master).ok()?.into_iter();
            let host: Option<String> = from_redis_value(master.next()?).ok()?;
            let port: u16 = from_redis_value(master.next()?).ok()?;
            let host = match host.as_deref() {
                None | Some("") => asked.0.clone(),
                // One that is not known yet.
                Some("?") => continue,
                Some(host) => host.to_owned(),
            };
            ranges.push((
                from_redis_value(first).ok()?,
                from_redis_value(last).ok()?,
                (host, port),
            ));
        }
        ranges.sort_unstable();
        (!ranges.is_empty()).then_some(Self { ranges, moved: Vec::new() })
    }

    pub(super) fn master_of(&self, slot: u16) -> Option<&Address> {
        if let Some((_, address)) = self.moved.iter().find(|(moved, _)| *moved == slot) {
            return Some(address);
        }
        let after = self.ranges.partition_point(|(first, ..)| *first <= slot);
        let (_, last, address) = self.ranges.get(after.checked_sub(1)?)?;
        (slot <= *last).then_some(address)
    }

    /// Hears that a slot has another master than this says.
    pub(super) fn moved(&mut self, slot: u16, address: Address) {
        self.moved.retain(|(moved, _)| *moved != slot);
        self.moved.push((slot, address));
        // The whole map is on its way: until then, these will do.
        if self.moved.len() > MOST_MOVED {
            self.moved.remove(0);
        }
    }

    pub(super) fn masters(&self) -> impl Iterator<Item = &Address> {
        let moved = self.moved.iter().map(|(_, address)| address);
        self.ranges.iter().map(|(.., address)| address).chain(moved)
    }
}

/// The slot of a key: that of what stands in its first braces, if anything does.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(tag, _)| tag);
    let hashed = tag.filter(|tag| !tag.is_empty()).unwrap_or(key);
    Crc::<u16>::new(&CRC_16_XMODEM).checksum(hashed.as_bytes()) % SLOTS
}

pub(super) const SLOTS: u16 = 16_384;
const MOST_MOVED: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// As the specification of Redis Cluster has it.
    #[test]
    fn keys_have_their_slots() {
        assert_eq!(slot_of("123456789"), 0x31c3);
        assert_eq!(slot_of("{user1000}.following"), slot_of("{user1000}.followers"));
        assert_eq!(slot_of("foo{bar}{zap}"), slot_of("bar"));
        assert_eq!(slot_of("foo{{bar}}zap"), slot_of("{bar"));
        assert_ne!(slot_of("foo{}{bar}"), slot_of("bar"));
        assert_eq!(slot_of(""), 0);
    }

    fn node(host: Value, port: i64) -> Value {
        Value::Array(vec![host, Value::Int(port), Value::BulkString(b"id".to_vec())])
    }

    #[test]
    fn a_map_is_read_and_corrected() {
        let host = |name: &str| Value::BulkString(name.as_bytes().to_vec());
        let row = |first, last, master| {
            Value::Array(vec![Value::Int(first), Value::Int(last), master, node(host("r"), 9)])
        };
        let answer = Value::Array(vec![
            row(100, 200, node(host("b"), 2)),
            row(0, 99, node(Value::Nil, 1)),
            row(300, 300, node(host("?"), 3)),
        ]);
        let asked = ("a".to_owned(), 7);
        let mut map = SlotMap::read(answer, &asked).unwrap();
        let at =
            |map: &SlotMap, slot| map.master_of(slot).map(|(host, port)| format!("{host}:{port}"));
        assert_eq!(at(&map, 0).unwrap(), "a:1");
        assert_eq!(at(&map, 99).unwrap(), "a:1");
        assert_eq!(at(&map, 100).unwrap(), "b:2");
        assert_eq!([at(&map, 201), at(&map, 300), at(&map, 16_383)], [None, None, None]);
        map.moved(99, ("c".to_owned(), 3));
        map.moved(99, ("d".to_owned(), 4));
        assert_eq!(at(&map, 99).unwrap(), "d:4");
        assert_eq!(at(&map, 98).unwrap(), "a:1");
        assert!(SlotMap::read(Value::Array(vec![]), &asked).is_none());
        assert!(SlotMap::read(Value::Int(1), &asked).is_none());
        assert!(
            SlotMap::read(Value::Array(vec![Value::Array(vec![Value::Int(0)])]), &asked).is_none()
        );
    }
}
