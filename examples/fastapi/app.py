"""An inference server as many are: FastAPI, `/generate`, an answer at once or word by word.

It knows nothing of tokens, limits or prompts that should not be answered: `reverse_proxy` stands in front of it.
"""

import asyncio
import json

from fastapi import FastAPI, Header
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

app = FastAPI()

# How many answers were begun, ended, and left by their readers: for those who watch it.
counts = {"begun": 0, "ended": 0, "left": 0}


class Ask(BaseModel):
    prompt: str
    max_tokens: int = Field(default=16, ge=1, le=4096)
    stream: bool = False


def words(ask: Ask):
    """The prompt's words, over and over: a small language model."""
    asked = ask.prompt.split() or ["nothing"]
    for n in range(ask.max_tokens):
        yield asked[n % len(asked)] + " "


def usage(ask: Ask, completion: int):
    prompt = len(ask.prompt.split())
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


async def events(ask: Ask):
    count, ended = 0, False
    try:
        for word in words(ask):
            count += 1
            yield f"data: {json.dumps({'text': word}, ensure_ascii=False)}\n\n"
            await asyncio.sleep(0.01)
        last = {"text": "", "finish_reason": "length", "usage": usage(ask, count)}
        yield f"data: {json.dumps(last)}\n\n"
        yield "data: [DONE]\n\n"
        ended = True
    finally:
        counts["ended" if ended else "left"] += 1


@app.post("/generate")
async def generate(ask: Ask, x_auth_subject: str | None = Header(default=None)):
    counts["begun"] += 1
    if ask.stream:
        return StreamingResponse(events(ask), media_type="text/event-stream")
    counts["ended"] += 1
    text = "".join(words(ask))
    return {
        "text": text,
        "finish_reason": "length",
        "usage": usage(ask, ask.max_tokens),
        "asked_by": x_auth_subject,
    }


@app.get("/counts")
async def how_many():
    return counts
