"""Runs the guard's peers: what each says of texts, and how long it takes.

    run verdicts     JSON lines with `text` on standard input; for each, the names of the peers that flag it
    run times        JSON lines with `text` on standard input; then the median microseconds of each peer for one
    run personal     JSON lines with `text` and `spans`; then each peer's precision and recall for each kind
"""

import collections
import functools
import importlib.util
import json
import logging
import pathlib
import statistics
import subprocess
import sys
import time
import types

import regex
import spacy
import structlog
import tldextract
from plumblint import scan as plumblint
from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
from presidio_analyzer.nlp_engine import SpacyNlpEngine
from stackone_defender.classifiers.pattern_detector import PatternDetector

KINDS = ["EMAIL_ADDRESS", "CREDIT_CARD", "IBAN_CODE", "US_SSN", "PHONE_NUMBER", "IP_ADDRESS"]
# What LLM Guard's patterns call the same.
LLM_GUARD_KINDS = {
    "EMAIL_ADDRESS_RE": "EMAIL_ADDRESS",
    "CREDIT_CARD_RE": "CREDIT_CARD",
    "US_SSN_RE": "US_SSN",
}
# Its other patterns are not looked for unless they are asked for (its DEFAULT_ENTITY_TYPES).
LLM_GUARD_DEFAULT = {"CREDIT_CARD", "CREDIT_CARD_RE", "EMAIL_ADDRESS_RE", "US_SSN_RE", "UUID"}


def packages_without_models(*names):
    """Stands in for a package's `__init__`, which would load torch for scanners that are not asked."""
    for name in names:
        spec = importlib.util.find_spec(name.partition(".")[0])
        package = types.ModuleType(name)
        package.__path__ = ["/".join([*spec.submodule_search_locations, *name.split(".")[1:]])]
        sys.modules[name] = package
        # `find_spec` asks a module that is loaded already for its own.
        package.__spec__ = spec


def llm_guard():
    packages_without_models("llm_guard", "llm_guard.input_scanners", "llm_guard.input_scanners.anonymize_helpers")
    from llm_guard.input_scanners.anonymize_helpers.regex_patterns import get_regex_patterns
    from llm_guard.input_scanners.invisible_text import InvisibleText
    from llm_guard.input_scanners.secrets import Secrets

    return Secrets(), InvisibleText(), get_regex_patterns()


class Blank(SpacyNlpEngine):
    """No language model: the recognizers by pattern alone."""

    def __init__(self):
        super().__init__()
        self.nlp = {"en": spacy.blank("en")}


def presidio():
    # The list of top-level domains that comes with it: nothing is fetched.
    tldextract.extract = tldextract.TLDExtract(suffix_list_urls=())
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers()
    return AnalyzerEngine(nlp_engine=Blank(), registry=registry)


structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
logging.disable(logging.CRITICAL)
secrets, invisible, patterns = llm_guard()
analyzer = presidio()
stackone = PatternDetector()
compiled = [
    (pattern["name"], regex.compile(expression))
    for pattern in patterns
    if pattern["name"] in LLM_GUARD_DEFAULT
    for expression in pattern["expressions"]
]


def presidio_spans(text):
    found = analyzer.analyze(text=text, language="en", entities=KINDS, score_threshold=0.4)
    return [(found.start, found.end, found.entity_type) for found in found]


def llm_guard_spans(text):
    return [
        (match.start(), match.end(), LLM_GUARD_KINDS.get(name, name))
        for name, pattern in compiled
        for match in pattern.finditer(text)
    ]


@functools.cache
def jailguard():
    run = pathlib.Path(__file__).resolve().parents[1] / "jailguard/run"
    return subprocess.Popen([run], stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8")


def jailguard_flags(text):
    process = jailguard()
    print(json.dumps(text), file=process.stdin, flush=True)
    answer = process.stdout.readline().strip()
    if answer not in ("true", "false"):
        sys.exit("jailguard has ended")
    return answer == "true"


PEERS = {
    "jailguard": jailguard_flags,
    "plumblint": lambda text: plumblint(text).verdict == "injection",
    # Its patterns alone; its models need ONNX.
    "StackOne Defender, tier 1": lambda text: stackone.analyze(text).suggested_risk in ("high", "critical"),
    "LLM Guard InvisibleText": lambda text: not invisible.scan(text)[1],
    "LLM Guard Secrets": lambda text: not secrets.scan(text)[1],
    "LLM Guard Anonymize, patterns": lambda text: bool(llm_guard_spans(text)),
    "Presidio, patterns": lambda text: bool(presidio_spans(text)),
}


def texts():
    return [json.loads(line) for line in sys.stdin.read().split("\n") if line.strip()]


def verdicts():
    for line in texts():
        print(json.dumps([name for name, flags in PEERS.items() if flags(line["text"])]), flush=True)


def times():
    lines = [line["text"] for line in texts()]
    for flags in PEERS.values():
        flags("What is loaded for the first text is loaded now.")
    taken = collections.defaultdict(list)
    for text in lines:
        # In turns, so that what else the machine does hits all alike.
        for name, flags in PEERS.items():
            started = time.perf_counter()
            flags(text)
            taken[name].append(time.perf_counter() - started)
    print(json.dumps({name: statistics.median(each) * 1e6 for name, each in taken.items()}))


def personal():
    counts = collections.defaultdict(lambda: [0, 0, 0])
    for line in texts():
        wanted = [span for span in line["spans"] if span[2] in KINDS]
        for name, spans in [("Presidio", presidio_spans), ("LLM Guard", llm_guard_spans)]:
            found = [span for span in spans(line["text"]) if span[2] in KINDS]
            covers = lambda one, other: one[2] == other[2] and one[0] < other[1] and other[0] < one[1]
            for span in found:
                counts[name, span[2]][0 if any(covers(span, other) for other in wanted) else 1] += 1
            for span in wanted:
                counts[name, span[2]][2] += not any(covers(span, other) for other in found)
    for (name, kind), (right, wrong, missed) in sorted(counts.items()):
        if right + wrong == 0:
            # It has nothing that looks for this kind, or nothing that finds it.
            print(f"| {name} | {kind} | | 0.000 |")
            continue
        precision, recall = right / max(right + wrong, 1), right / max(right + missed, 1)
        print(f"| {name} | {kind} | {precision:.3f} | {recall:.3f} |")


if __name__ == "__main__":
    {"verdicts": verdicts, "times": times, "personal": personal}[sys.argv[1]]()
