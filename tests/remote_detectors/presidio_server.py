"""Presidio's analyzer as its own REST app serves it, without a language model: recognizers by pattern alone.

Prints the port that it listens on.
"""

import json

import spacy
import tldextract
from flask import Flask, Response, jsonify, request
from presidio_analyzer import (
    AnalyzerEngine,
    AnalyzerRequest,
    BatchAnalyzerEngine,
    RecognizerRegistry,
)
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from werkzeug.serving import make_server

# The list of top-level domains that comes with it: nothing is fetched.
tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())


class Blank(SpacyNlpEngine):
    def __init__(self):
        super().__init__()
        self.nlp = {"en": spacy.blank("en")}


registry = RecognizerRegistry()
registry.load_predefined_recognizers()
engine = BatchAnalyzerEngine(AnalyzerEngine(nlp_engine=Blank(), registry=registry))
app = Flask(__name__)


@app.post("/analyze")
def analyze():
    asked = AnalyzerRequest(request.get_json())
    if not asked.text or not asked.language:
        return jsonify(error="No text provided"), 500
    batch = isinstance(asked.text, list)
    try:
        results = list(
            engine.analyze_iterator(
                texts=asked.text if batch else [asked.text],
                language=asked.language,
                score_threshold=asked.score_threshold,
                entities=asked.entities,
            )
        )
    except Exception as error:
        return jsonify(error=str(error)), 500
    for result in results:
        for found in result:
            del found.recognition_metadata
    told = json.dumps(results if batch else results[0], default=lambda o: o.to_dict())
    return Response(told, content_type="application/json")


server = make_server("127.0.0.1", 0, app, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
