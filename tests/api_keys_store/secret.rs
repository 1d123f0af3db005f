//! What nobody gets to see.

use super::*;

#[tokio::test]
async fn nothing_secret_shows_or_is_kept() {
    on_each(async |setup| {
        let store = setup.process();
        let keys = store.open();
        let issued = store.issue(new("ann")).await.unwrap();
        let heir = store.rotate(&issued.record.id, STALE).await.unwrap();
        assert!(verify(&keys, &issued).await.is_ok());
        keys.flush().await.unwrap();
        let mut listing = store.records();
        let first = listing.next().await.unwrap().unwrap();
        let page = setup.stores().records().page(TABLE, None).await.unwrap();
        let record = String::from_utf8(page.records[0].1.to_vec()).unwrap();
        let hash = record.split("\"hash\":\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(hash.len(), 43);
        let error = store.revoke(issued.key.expose()).await.unwrap_err();
        let shown: [&dyn Debug; 8] =
            [&issued, &store, &keys, &listing, &first, &error, &page, &setup.stores()];
        let shown = shown.map(|it| format!("{it:?}")).concat() + &error.to_string();
        assert!(!shown.contains(hash) && !shown.contains("a pepper"), "{shown}");

        let mut kept = format!("{:?}", page.records);
        kept += &format!("{:?}", setup.stores().records().page("api-key-uses", None).await);
        if let Backend::Redis(server) = &setup.backend {
            for name in server.command(&["KEYS", "*"]).lines() {
                kept += name;
                if name.starts_with("palisade") {
                    kept += &server.command(&["HGETALL", name]);
                }
            }
            assert!(kept.contains("palisade:{api-keys}:records"), "{kept}");
            assert!(kept.contains("palisade:{api-key-uses}:records"), "{kept}");
        }
        assert!(kept.contains(hash), "it is the records that are looked at");
        for key in [&issued, &heir] {
            let secret = &key.key.expose()["sk-pal-".len()..];
            for part in [secret, &secret[..12], &secret[20..32]] {
                assert!(!shown.contains(part) && !kept.contains(part));
            }
        }
        assert!(!kept.contains("a pepper"));
    })
    .await;
}
