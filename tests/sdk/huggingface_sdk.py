"""huggingface_hub's client of text-generation-inference against the example."""

from huggingface_hub import InferenceClient
from huggingface_hub.errors import OverloadedError, TextGenerationError, ValidationError

from common import ATTACK, BASE, PROMPT, SLOW_TOKEN, TOKEN, raises, run


def client(token=TOKEN):
    return InferenceClient(model=BASE + "/generate", token=token)


def cause(error):
    """The answer behind one of its exceptions."""
    return error.__cause__.response


def an_answer():
    text = client().text_generation(PROMPT, max_new_tokens=30)
    assert isinstance(text, str) and text, text


def an_answer_with_details():
    answer = client().text_generation(PROMPT, max_new_tokens=30, details=True)
    details = answer.details
    assert details.finish_reason in ("length", "eos_token"), details
    assert details.generated_tokens == len(details.tokens) > 0, details


def a_stream():
    # A stream ends with its client, so the client must have a name.
    asking = client()
    events = list(asking.text_generation(PROMPT, max_new_tokens=30, details=True, stream=True))
    text = "".join(event.token.text for event in events if not event.token.special)
    assert len(events) > 1 and events[-1].generated_text == text, events[-1]
    assert events[-1].details.input_length == 5, events[-1].details
    own_route = InferenceClient(model=BASE + "/generate_stream", token=TOKEN)
    assert "".join(own_route.text_generation(PROMPT, max_new_tokens=5, stream=True))


def a_bad_token():
    with raises(TextGenerationError) as caught:
        client("no-token-at-all").text_generation(PROMPT, max_new_tokens=5)
    assert cause(caught[0]).status_code == 401
    # Each kind of error has an exception of its own there: this one is not about load or shape.
    assert not isinstance(caught[0], (OverloadedError, ValidationError)), caught[0]


def a_blocked_prompt():
    for stream in [False, True]:
        with raises(TextGenerationError) as caught:
            list(client().text_generation(ATTACK, max_new_tokens=5, stream=stream))
        assert cause(caught[0]).status_code == 403
        assert "content policy" in str(caught[0]), caught[0]


def a_request_that_makes_no_sense():
    with raises(ValidationError):
        client().text_generation(7, max_new_tokens=5)


def an_exceeded_limit():
    client(SLOW_TOKEN).text_generation(PROMPT, max_new_tokens=5)
    with raises(OverloadedError) as caught:
        client(SLOW_TOKEN).text_generation(PROMPT, max_new_tokens=5)
    assert cause(caught[0]).status_code == 429
    assert int(cause(caught[0]).headers["retry-after"]) >= 1


run([
    an_answer,
    an_answer_with_details,
    a_stream,
    a_bad_token,
    a_blocked_prompt,
    a_request_that_makes_no_sense,
    an_exceeded_limit,
])
