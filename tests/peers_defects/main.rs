//! What went wrong in other rate limiters, each as a test of ours.
//!
//! | the defect, and where it was seen | its test |
//! |---|---|
//! | a flood of keys evicts live counters: limitador's default cache | `store::memory`: `a_flood_of_keys_resets_no_limit` |
//! | an unbounded map of keys: governor without `retain_recent` | `store::memory`: `keys_without_a_place_share_a_strict_record_until_the_live_ones_are_idle` |
//! | check, then act: limitador, BerriAI/litellm#18730 | `quotas`: `concurrent_requests_…` |
//! | a refused request burns another limit: stacked governors, envoyproxy/ratelimit#937 | `quotas`: `a_refused_request_burns_no_other_limit` |
//! | `Retry-After: 0`: tower_governor | `quotas`: `a_wait_of_less_than_a_second_is_told_as_one` |
//! | what is used beyond is dropped, or clamped: TensorZero, agentgateway, Higress | `quotas`: `what_is_used_beyond_…` |
//! | a reservation that has drained is given back: TensorZero | `quotas`: `a_reservation_that_has_drained_gives_nothing_back` |
//! | the limiter turns itself off without its store: Helicone, BerriAI/litellm#35533 | `quotas`: `a_store_that_is_not_there_never_turns_limits_off` |
//! | everything costs 1: wso2/api-platform#2932 | `quotas`: `a_request_that_tells_no_length_costs_more_than_one_token` |
//! | a changed rule begins anew: TensorZero | `tiers`: `tiers_are_replaced_while_the_server_runs_and_what_was_used_is_kept` |
//! | streams are free, or free without usage: BerriAI/litellm#41610, Higress | `contract`: `answered_with_usage_in_an_event_stream`, `answered_without_usage_the_reservation_stays`, `a_long_stream_that_states_nothing_is_not_cheaper_read_to_its_end` |
//! | usage counted twice, or lost between two events: alibaba/higress#1080, envoyproxy/ai-gateway#2290 | `inference::usage`: its tests of streams |
//! | leaving before the last chunk is free: open-ace#3422 | `contract`: `dropped_mid_stream_pays_the_prompt_and_what_was_produced` |
//! | slots leak when a client leaves: BerriAI/litellm#20256 | `contract`: `leaving_at_any_time_leaks_nothing`, `a_thousand_clients_that_leave_mid_stream_leak_nothing` |
//! | the default key is the proxy's address: tower_governor | `keys`: `callers_behind_one_address_have_limits_of_their_own` |
//! | the left-most `X-Forwarded-For`, of the first line: tower_governor | `keys`: `what_a_client_writes_into_x_forwarded_for_…` |
//! | one credential in two spellings has two limits: Team-Commonly#786 | `keys`: `one_credential_in_two_spellings_has_one_limit` |
//! | a claimed identity is charged before it is verified: mermaid-api#762 | `keys`: `an_unverified_credential_is_not_charged_to_its_owner` |
//! | a new IPv6 address is a new caller; mapped and NAT64 addresses: zulip#21544, block/buzz#3784 | `keys`: `an_address_written_another_way_…` |
//! | an unready service is called, or a permit is held: tower-resilience#286, #293 | `contract`: `readiness`; `readiness`: `two_requests_for_one_permit_are_both_answered` |
#![cfg(feature = "full")]
#![allow(
    clippy::expect_used,
    clippy::future_not_send,
    clippy::indexing_slicing,
    clippy::unwrap_used
)]

#[path = "../jwt_support/mod.rs"]
mod jwt_support;
mod keys;
mod quotas;
mod readiness;
#[path = "../limits/support.rs"]
#[allow(dead_code)]
mod support;
