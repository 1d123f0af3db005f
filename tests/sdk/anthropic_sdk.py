"""The anthropic SDK against the example."""

import time

import anthropic

from common import ATTACK, BASE, PROMPT, SLOW_TOKEN, TOKEN, raises, run, wait_until_idle

ASK = [{"role": "user", "content": PROMPT}]


def client(token=TOKEN, max_retries=0):
    # Its own kind of token goes in `Authorization: Bearer`, an API key would go in `x-api-key`.
    return anthropic.Anthropic(
        base_url=BASE, auth_token=token, api_key=None, max_retries=max_retries
    )


def ask(with_client, messages=ASK, max_tokens=30, **options):
    return with_client.messages.create(
        model="trigram", max_tokens=max_tokens, messages=messages, **options
    )


def an_answer_with_its_usage():
    answer = ask(client(), system=[{"type": "text", "text": "Be brief."}])
    assert answer.content[0].text, answer
    assert answer.stop_reason in ("end_turn", "max_tokens"), answer
    assert answer.usage.input_tokens == 8, answer.usage
    assert 0 < answer.usage.output_tokens <= 30, answer.usage


def a_stream_with_its_usage():
    options = {"model": "trigram", "max_tokens": 30, "messages": ASK}
    with client().messages.stream(**options) as stream:
        texts = list(stream.text_stream)
        last = stream.get_final_message()
    assert texts and "".join(texts) == last.content[0].text, last
    assert last.usage.output_tokens == len(texts), last.usage


def a_stream_that_is_left_stops_the_engine():
    stream = ask(client(), max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
    for _ in range(5):
        next(stream)
    stream.close()
    wait_until_idle()


def a_bad_token():
    with raises(anthropic.AuthenticationError, 401) as caught:
        ask(client("no-token-at-all"))
    assert caught[0].body["error"]["type"] == "authentication_error", caught[0].body


def a_blocked_prompt():
    part = {"type": "text", "text": ATTACK}
    for content in [ATTACK, [part]]:
        with raises(anthropic.PermissionDeniedError, 403) as caught:
            ask(client(), [{"role": "user", "content": content}])
        error = caught[0].body["error"]
        assert error["type"] == "permission_error" and "content policy" in error["message"], error


def an_exceeded_limit():
    ask(client(SLOW_TOKEN))
    with raises(anthropic.RateLimitError, 429) as caught:
        ask(client(SLOW_TOKEN))
    headers = caught[0].response.headers
    assert int(headers["retry-after"]) >= 1, headers
    assert "anthropic-ratelimit-requests-limit" in headers, headers
    assert caught[0].body["error"]["type"] == "rate_limit_error", caught[0].body


def retry_after_is_honoured():
    began = time.monotonic()
    answer = ask(client(SLOW_TOKEN, max_retries=3))
    assert answer.content and 0.5 < time.monotonic() - began < 10


run([
    an_answer_with_its_usage,
    a_stream_with_its_usage,
    a_stream_that_is_left_stops_the_engine,
    a_bad_token,
    a_blocked_prompt,
    an_exceeded_limit,
    retry_after_is_honoured,
])
