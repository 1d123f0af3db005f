"""The openai SDK against the example."""

import time

import openai

from common import ATTACK, BASE, PROMPT, SLOW_TOKEN, TOKEN, raises, run, wait_until_idle

ASK = [{"role": "user", "content": PROMPT}]


def client(token=TOKEN, max_retries=0):
    return openai.OpenAI(base_url=BASE + "/v1", api_key=token, max_retries=max_retries)


def ask(with_client, messages=ASK, **options):
    return with_client.chat.completions.create(model="trigram", messages=messages, **options)


def an_answer_with_its_usage():
    answer = ask(client(), max_tokens=30)
    choice = answer.choices[0]
    assert choice.message.content and choice.finish_reason in ("stop", "length"), answer
    assert answer.usage.prompt_tokens == 5, answer.usage
    assert 0 < answer.usage.completion_tokens <= 30, answer.usage
    assert [model.id for model in client().models.list()] == ["trigram"]


def a_stream_with_its_usage():
    stream = ask(client(), max_tokens=30, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text and len(chunks) > 3, chunks
    assert chunks[-1].usage.completion_tokens == len(chunks) - 3, chunks[-1]


def the_same_seed_the_same_text():
    texts = {ask(client(), max_tokens=30, seed=7).choices[0].message.content for _ in range(3)}
    assert len(texts) == 1, texts


def a_stream_that_is_left_stops_the_engine():
    stream = ask(client(), max_tokens=2000, stream=True, extra_body={"ignore_eos": True})
    for _ in range(3):
        next(stream)
    stream.close()
    wait_until_idle()


def a_bad_token():
    for token in ["no-token-at-all", TOKEN[:-4] + "AAAA"]:
        with raises(openai.AuthenticationError, 401) as caught:
            ask(client(token), max_tokens=5)
        challenge = caught[0].response.headers["www-authenticate"]
        assert challenge.startswith("Bearer") and "invalid_token" in challenge, challenge
        assert token not in str(caught[0])


def a_blocked_prompt():
    for stream in [False, True]:
        with raises(openai.PermissionDeniedError, 403) as caught:
            ask(client(), [{"role": "user", "content": ATTACK}], max_tokens=5, stream=stream)
        error = caught[0]
        # The SDK reads the message out of the body: it must be there, and say what happened.
        assert error.code and "content policy" in error.body["message"], error.body
        assert ATTACK not in str(error)


def a_request_that_makes_no_sense():
    with raises(openai.BadRequestError, 400):
        client().post("/chat/completions", body={"messages": 7}, cast_to=object)


def an_exceeded_limit():
    ask(client(SLOW_TOKEN), max_tokens=5)
    with raises(openai.RateLimitError, 429) as caught:
        ask(client(SLOW_TOKEN), max_tokens=5)
    error = caught[0]
    assert int(error.response.headers["retry-after"]) >= 1, error.response.headers
    assert error.code and error.body["message"], error.body
    assert "x-ratelimit-limit-requests" in error.response.headers, error.response.headers


def retry_after_is_honoured():
    # Still out of quota: the SDK waits as long as it was told to, and is then admitted.
    began = time.monotonic()
    answer = ask(client(SLOW_TOKEN, max_retries=3), max_tokens=5)
    assert answer.choices and 0.5 < time.monotonic() - began < 10


def what_never_fits_is_not_retried():
    began = time.monotonic()
    with raises(openai.RateLimitError, 429):
        ask(client(max_retries=3), max_tokens=100_000_000)
    assert time.monotonic() - began < 5, "the SDK slept for a quota that can never fit"


run([
    an_answer_with_its_usage,
    a_stream_with_its_usage,
    the_same_seed_the_same_text,
    a_stream_that_is_left_stops_the_engine,
    a_bad_token,
    a_blocked_prompt,
    a_request_that_makes_no_sense,
    an_exceeded_limit,
    retry_after_is_honoured,
    what_never_fits_is_not_retried,
])
