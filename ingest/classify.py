"""Why a mail was refused: ordered rules over the receiver's words first, then SMTP codes.

Pure. The rules and tables are data, in ``rules.toml``: facts of RFC 3463, 5248, 7372, 7505 and
of providers' published lists. Words come before codes because 550 and 5.7.1 stand for anything,
and 5.2.1 is a disabled mailbox to some and a busy one to others.
"""

import importlib
import math
import re
import tomllib
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache, cached_property, lru_cache
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import msgspec

from ingest.fingerprint import codes, plain, without_accents
from ingest.normalize import Detail
from ingest.vocabulary import FAILURES, BounceClass, Category, EventKind

SCOPES = frozenset(
    ("recipient", "recipient_domain", "sending_domain", "ip_pool", "content", "message")
    + ("receiver", "")
)
FIXERS = frozenset(("client_list", "client_dns", "content", "highlevel", "receiver", "wait", ""))
_KINDS = {"temporary": EventKind.DEFERRED, "permanent": EventKind.BOUNCED}

# What HighLevel counts as a refusal by the provider, see ``Classification.hl``.
_COUNTED = frozenset((Category.REPUTATION_BLOCK, Category.SPAM_CONTENT, Category.AUTHENTICATION))
_PART = re.compile(r"%(\w{1,20})%")
_TOO_OLD = 602  # Mailgun's code for retries used up


class RuleError(ValueError):
    """A rule that cannot be used, with the reason in one sentence."""


class Classification(NamedTuple):
    """Why a mail was refused, by which rule, and who can do something about it."""

    category: Category = Category.NONE
    bounce_class: BounceClass = BounceClass.NONE
    rule: str = ""  # the rule that decided; "" where nothing failed
    scope: str = ""  # what is refused: one of SCOPES
    fix_by: str = ""  # whom to call: one of FIXERS
    hl: int = 0  # HighLevel's ESP blocks: 2 counted for sure, 1 perhaps, 0 not
    expired: bool = False  # the retries are used up; the category is the last reply's


_NOTHING = Classification()


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A reply that a rule is there for: what the rule is tested with."""

    kind: EventKind
    detail: Detail
    provider: str = ""


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """Conditions, all of which must hold, and what a refusal is that meets them."""

    id: str
    category: Category
    bounce_class: BounceClass
    scope: str
    fix_by: str
    means: str = ""
    do: str = ""
    highlevel: str = ""  # HighLevel's own name for it
    examples: tuple[Example, ...] = ()
    text: str = ""  # a pattern for the plain words (``fingerprint.plain``)
    not_text: str = ""
    provider: tuple[str, ...] = ()  # lower case
    mx: tuple[str, ...] = ()  # suffixes of whole labels
    code: tuple[int, ...] = ()
    enhanced: tuple[str, ...] = ()  # "5.7.1", or "7.1" for every class
    reason: tuple[str, ...] = ()
    kind: EventKind | None = None


class Rules:
    """Ordered rules, compiled, and the tables of codes for what none of them catches."""

    def __init__(self, tables: "_Tables", extra: Sequence[Rule] = ()) -> None:
        self._tables = tables
        self._rules = (*extra, *tables.rules)
        self._by_id = _by_id([*self._rules, *tables.last, *tables.fallbacks.values()])
        self._finders = (_Finder(extra), tables.first)
        self._suffixes = tuple({suffix for rule in self._rules for suffix in rule.mx})
        self._decide = lru_cache(maxsize=4096)(self._search)

    @classmethod
    @cache
    def built_in(cls) -> "Rules":
        """The rules of ``rules.toml``."""
        text = Path(__file__).with_name("rules.toml").read_text(encoding="utf-8")
        return cls(_Tables(tomllib.loads(text)))

    def with_first(self, extra: Sequence[Rule]) -> "Rules":
        """The built-in rules behind others, which decide first. Raises ``RuleError``.

        These others need no examples; those that they have are tried.
        """
        for rule in extra:
            _check(rule)
        rules = Rules(self._tables, extra)
        for rule in extra:
            if rule.examples:
                rules.try_examples(rule)
        return rules

    def read(self, entry: Mapping[str, Any]) -> Rule:
        """A rule from the words that ``rules.toml`` uses. Raises ``RuleError``."""
        return self._tables.read(entry)

    def explain(self, rule: str) -> Rule:
        """The rule of that id, or what a table's entry stands for. Raises ``KeyError``."""
        return self._by_id[rule]

    def default(self, category: Category) -> Rule:
        """What a category means where nothing particular is known."""
        return self._tables.defaults[category]

    def forget(self) -> None:
        """Empty what is remembered of earlier replies."""
        self._decide.cache_clear()

    def __iter__(self) -> Iterator[Rule]:
        yield from self._rules
        yield from self._tables.last

    def try_examples(self, rule: Rule) -> None:
        """Raise ``RuleError`` unless the rule catches each of its examples."""
        if not rule.examples:
            raise RuleError(f"Rule {rule.id!r} has no example.")
        for example in rule.examples:
            caught = self.decide(example.kind, example.detail, example.provider)
            if caught is not rule:
                raise RuleError(
                    f"Rule {rule.id!r}: {caught.id!r} catches its example"
                    f" {example.detail.message[:80]!r} first."
                )

    def decide(self, kind: EventKind, detail: Detail, provider: str) -> Rule:
        """The rule, or the entry of a table, that says why a mail was refused."""
        if kind is EventKind.SUPPRESSED:
            return self._tables.suppressed(detail.code)
        words = plain(detail.message)
        if (described := plain(detail.description)) and described not in words:
            words = f"{words} | {described}"
        code, enhanced = codes(words)
        mx = detail.mx.lower().rstrip(".")
        return self._decide(
            _Said(
                words=words,
                provider=provider.lower(),
                mx=next((suffix for suffix in self._suffixes if _ends(mx, suffix)), ""),
                code=detail.code or code or 0,
                enhanced=detail.enhanced or enhanced,
                reason=detail.reason.strip().lower(),
                kind=kind,
            )
        )

    def _search(self, said: "_Said") -> Rule:
        own, built_in = self._finders
        return (
            own.first(said)
            or built_in.first(said)
            or self._tables.by_enhanced(said.enhanced)
            or self._tables.then.first(said)
            or self._tables.by_basic(said.code)
        )


def _by_id(rules: Iterable[Rule]) -> dict[str, Rule]:
    named: dict[str, Rule] = {}
    for rule in rules:
        if named.setdefault(rule.id, rule) is not rule:
            raise RuleError(f"Two rules have the id {rule.id!r}.")
    return named


def _ends(host: str, suffix: str) -> bool:
    return host == suffix or host.endswith(f".{suffix}")


class _Said(NamedTuple):
    """All that rules ask of a failure."""

    words: str
    provider: str
    mx: str
    code: int
    enhanced: str
    reason: str
    kind: EventKind


class _Finder:
    """The first of some rules that holds.

    A pattern's alternatives are searched one by one, and only in words that hold a string that
    the alternative cannot match without: of two thousand a handful is left.
    """

    def __init__(self, rules: Iterable[Rule]) -> None:
        self._tries = [
            _Try(rule, alternative, excluded)
            for rule in rules
            for excluded in [[_Pattern(text) for text in _alternatives(rule.not_text)]]
            for alternative in _alternatives(rule.text) or [""]
        ]
        self._always = {n for n, entry in enumerate(self._tries) if not entry.needles}
        self._by_gram: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self._short: list[tuple[str, int]] = []  # Chinese says much in two characters
        common = Counter(gram for entry in self._tries for n in entry.needles for gram in _grams(n))
        for number, entry in enumerate(self._tries):
            for needle in entry.needles:
                rarest = min(_grams(needle), key=common.__getitem__, default="")
                found = self._by_gram[rarest] if rarest else self._short
                found.append((needle, number))

    def first(self, said: _Said) -> Rule | None:
        if not self._tries:
            return None
        words = said.words
        numbers = self._always | {n for needle, n in self._short if needle in words}
        for gram in _grams(words) & self._by_gram.keys():
            for needle, number in self._by_gram[gram]:
                if needle in words:
                    numbers.add(number)
        for number in sorted(numbers):
            if self._tries[number].holds(said):
                return self._tries[number].rule
        return None


def _grams(text: str) -> set[str]:
    """Every three letters in a row."""
    return {text[at : at + _GRAM] for at in range(len(text) - _GRAM + 1)}


class _Try:
    """A rule with one alternative of its pattern."""

    def __init__(self, rule: Rule, alternative: str, excluded: list["_Pattern"]) -> None:
        self.rule = rule
        self._pattern = _Pattern(alternative) if alternative else None
        self._excluded = excluded
        self.needles: frozenset[str] = self._pattern.needles if self._pattern else frozenset()

    def holds(self, said: _Said) -> bool:
        rule = self.rule
        return (
            (rule.kind is None or rule.kind is said.kind)
            and (not rule.provider or said.provider in rule.provider)
            and (not rule.code or said.code in rule.code)
            and (not rule.enhanced or _one_of(said.enhanced, rule.enhanced))
            and (not rule.reason or said.reason in rule.reason)
            and (not rule.mx or said.mx in rule.mx)
            and (self._pattern is None or self._pattern.search(said.words))
            and not any(pattern.found(said.words) for pattern in self._excluded)
        )


class _Pattern:
    """A pattern that is compiled when it is first searched with."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.needles: frozenset[str] = _needles(_parse(text))

    def found(self, words: str) -> bool:
        """Whether the words match, looking for what every match has first."""
        if self.needles and not any(needle in words for needle in self.needles):
            return False
        return self.search(words)

    def search(self, words: str) -> bool:
        return self._compiled.search(words) is not None

    @cached_property
    def _compiled(self) -> re.Pattern[str]:
        return re.compile(self._text)


def _one_of(enhanced: str, wanted: tuple[str, ...]) -> bool:
    return enhanced in wanted or enhanced[2:] in wanted


# --- Patterns -------------------------------------------------------------------------------

_sre: Any = importlib.import_module("re._parser")  # the standard library's own reader of patterns
_GRAM = 3
_MOST_WAYS = 6000
_PUNCTUATION = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|[()|]")  # the inside of a class is none
_MOST_REPEATS = 120


def _alternatives(pattern: str) -> list[str]:
    """A pattern cut at each | that stands in no group; none for an empty one."""
    found, depth, start = [], 0, 0
    for piece in _PUNCTUATION.finditer(pattern):
        match piece[0]:
            case "(":
                depth += 1
            case ")":
                depth -= 1
            case "|" if not depth:
                found.append(pattern[start : piece.start()])
                start = piece.end()
    return [*found, pattern[start:]] if pattern else []


@lru_cache(maxsize=4096)
def _parse(pattern: str) -> Any:
    return _sre.parse(pattern)


def _needles(tree: Any) -> frozenset[str]:
    """Strings of which each match of a pattern has one, as long as can be; empty if unknown."""
    best: frozenset[str] = frozenset()
    run = ""
    for operation, argument in [*tree, (None, None)]:
        if operation is _sre.LITERAL:
            run += chr(argument)
            continue
        best, run = max(best, _worth(run), key=_shortest), ""
        best = max(best, _inner_needles(operation, argument), key=_shortest)
    return best


def _worth(literal: str) -> frozenset[str]:
    return frozenset((literal,)) if len(literal) > 1 else frozenset()


def _shortest(needles: frozenset[str]) -> int:
    return min(map(len, needles), default=0)


def _inner_needles(operation: Any, argument: Any) -> frozenset[str]:
    if operation is _sre.SUBPATTERN:
        return _needles(argument[-1])
    if operation in (_sre.MAX_REPEAT, _sre.MIN_REPEAT) and argument[0] > 0:
        return _needles(argument[2])
    if operation is _sre.BRANCH:
        found = [_needles(branch) for branch in argument[1]]
        return frozenset().union(*found) if all(found) else frozenset()
    return frozenset()


def ways(rule: Rule) -> int:
    """In how many ways a rule's patterns can be tried at one place of a text, at most.

    What a search takes is bounded by this times the length of the text. Raises ``RuleError``
    for patterns with no such bound, and for those that are none.
    """
    return max(
        (
            _ways_of_pattern(rule.id, pattern)
            for text in (rule.text, rule.not_text)
            for pattern in _alternatives(text)
        ),
        default=0,
    )


def _check(rule: Rule) -> None:
    if ways(rule) > _MOST_WAYS:
        raise RuleError(
            f"Rule {rule.id!r}: its pattern may take long: it can be tried in {ways(rule):,} ways"
            f" at one place of a text, more than {_MOST_WAYS:,}; use shorter gaps, or fewer."
        )


def _ways_of_pattern(rule: str, pattern: str) -> int:
    try:
        return _ways(_parse(pattern))
    except re.error as error:
        raise RuleError(f"Rule {rule!r}: {pattern!r} is no pattern: {error}.") from None
    except RuleError as error:
        raise RuleError(f"Rule {rule!r}: {pattern!r} {error}.") from None


def _ways(tree: Any) -> int:
    """In how many ways a pattern can be tried at one place of a text, at most."""
    return math.prod(_ways_of(operation, argument) for operation, argument in tree)


def _ways_of(operation: Any, argument: Any) -> int:
    if operation in (_sre.LITERAL, _sre.NOT_LITERAL):
        if chr(argument) != chr(argument).lower():
            raise RuleError("has a capital letter, but is compared with words in lower case")
        return 1
    if operation in (_sre.IN, _sre.ANY, _sre.AT):
        return 1
    if operation is _sre.SUBPATTERN:
        return _ways(argument[-1])
    if operation is _sre.BRANCH:
        return _ways_of_branches(argument[1])
    if operation in (_sre.MAX_REPEAT, _sre.MIN_REPEAT):
        return _ways_of_repeat(*argument)
    raise RuleError("looks around or back, which is not allowed here")


def _ways_of_branches(branches: Iterable[Any]) -> int:
    """Of branches that begin with different letters one at most is gone into."""
    ways: dict[object, int] = defaultdict(int)
    for branch in branches:
        operation, argument = branch[0] if len(branch) else (None, None)
        ways[argument if operation is _sre.LITERAL else None] += _ways(branch)
    return ways.pop(None, 0) + max(ways.values(), default=0)


def _ways_of_repeat(least: int, most: int, tree: Any) -> int:
    if most > _MOST_REPEATS:
        raise RuleError(f"repeats without a limit; write {{0,60}}, at most {{0,{_MOST_REPEATS}}}")
    inner = _ways(tree)
    if inner == 1:
        return int(most - least + 1)
    return int(sum(inner**times for times in range(least, most + 1)))


# --- What the file says ---------------------------------------------------------------------


class _Tables:
    """``rules.toml``: categories, groups of providers, rules, and codes for all other replies."""

    def __init__(self, data: Mapping[str, Any]) -> None:
        self._groups: dict[str, list[str]] = data["providers"]
        self._parts: dict[str, str] = data["parts"]
        self.defaults: dict[Category, Rule] = {}
        for word, entry in data["category"].items():
            category = Category[word.upper()]
            self.defaults[category] = _default(category, entry)
        self.fallbacks: dict[str, Rule] = {}
        self._enhanced = self._table("enhanced", data["enhanced"])
        self._basic = self._table("basic", data["basic"])
        self._suppressed = self._table("suppressed", data["suppressed"])
        self._unclassified = self._fallback("unclassified", Category.UNCLASSIFIED)
        self.rules = [self.read(entry) for entry in data["rule"]]
        self.last = [self.read(entry) for entry in data["last"]]
        self.first, self.then = _Finder(self.rules), _Finder(self.last)

    def by_enhanced(self, enhanced: str) -> Rule | None:
        return self._enhanced.get(enhanced[2:])

    def by_basic(self, code: int) -> Rule:
        return self._basic.get(str(code), self._unclassified)

    def suppressed(self, code: int | None) -> Rule:
        return self._suppressed.get(str(code)) or self._suppressed["0"]

    def read(self, entry: Mapping[str, Any]) -> Rule:
        """A rule from its words. Raises ``RuleError`` for what is unknown or missing."""
        name = str(entry.get("id", ""))
        try:
            words = msgspec.convert(entry, _Entry)
        except msgspec.ValidationError as error:
            raise RuleError(f"Rule {name!r}: {error}.") from None
        try:
            return self._read(words)
        except RuleError as error:
            raise RuleError(f"Rule {name!r}: {error}.") from None

    def _read(self, words: "_Entry") -> Rule:
        category = _member(Category, words.category, "category")
        if category not in self.defaults:
            raise RuleError(f"no refusal is of the category {words.category!r}")
        default = self.defaults[category]
        if words.phrase and words.text:
            raise RuleError("give a phrase or a pattern, not both")
        rule = Rule(
            id=words.id,
            category=category,
            bounce_class=_member(BounceClass, words.bounce_class, "class")
            if words.bounce_class
            else default.bounce_class,
            scope=_known(words.scope, SCOPES, "scope") or default.scope,
            fix_by=_known(words.fix_by, FIXERS, "fix_by") or default.fix_by,
            means=words.means or default.means,
            do=words.do or default.do,
            highlevel=words.highlevel or default.highlevel,
            text=re.escape(plain(words.phrase)) if words.phrase else self._pattern(words.text),
            not_text=self._pattern(words.not_text),
            provider=tuple(self._providers(words.provider)),
            mx=tuple(suffix.lower().strip(".") for suffix in words.mx),
            code=tuple(words.code),
            enhanced=tuple(words.enhanced),
            reason=tuple(reason.lower() for reason in words.reason),
            kind=_KINDS[_known(words.kind, _KINDS, "kind")] if words.kind else None,
        )
        if not any((rule.text, rule.provider, rule.mx, rule.code, rule.enhanced, rule.reason)):
            raise RuleError("it has no condition")
        examples = tuple(_example(example, rule) for example in words.examples)
        return msgspec.structs.replace(rule, examples=examples)

    def _pattern(self, text: str) -> str:
        """A pattern with its %parts% put in, and accents taken off as they are off the words."""
        return _PART.sub(lambda part: self._part(part[1]), without_accents(text))

    def _part(self, name: str) -> str:
        if name not in self._parts:
            raise RuleError(f"there is no part %{name}%")
        return self._parts[name]

    def _providers(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            yield from self._groups.get(name.lower(), (name.lower(),))

    def _table(self, kind: str, table: Mapping[str, list[str]]) -> dict[str, Rule]:
        """Each code's stand-in for a rule, from a table of the codes of each category."""
        found: dict[str, Rule] = {}
        for word, spans in table.items():
            for code in chain.from_iterable(map(_span, spans)):
                found[code] = self._fallback(f"{kind}-{code}", Category[word.upper()])
        return found

    def _fallback(self, rule: str, category: Category) -> Rule:
        self.fallbacks[rule] = msgspec.structs.replace(self.defaults[category], id=rule)
        return self.fallbacks[rule]


class _Entry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A rule as the file, or an operator, writes it."""

    id: Annotated[str, msgspec.Meta(min_length=1)]
    category: str
    bounce_class: str = ""
    scope: str = ""
    fix_by: str = ""
    means: str = ""
    do: str = ""
    highlevel: str = ""
    examples: list[str | dict[str, Any]] = []
    text: str = ""
    phrase: str = ""
    not_text: str = ""
    provider: list[str] = []
    mx: list[str] = []
    code: list[int] = []
    enhanced: list[str] = []
    reason: list[str] = []
    kind: str = ""


def _default(category: Category, entry: Mapping[str, str]) -> Rule:
    return Rule(
        id=category.word,
        category=category,
        bounce_class=BounceClass[entry["bounce_class"].upper()],
        scope=_known(entry["scope"], SCOPES, "scope"),
        fix_by=_known(entry["fix_by"], FIXERS, "fix_by"),
        means=entry["means"],
        do=entry["do"],
        highlevel=entry["highlevel"],
    )


def _span(codes: str) -> Iterator[str]:
    """Each code of "7.606-649", or the code itself."""
    first, _, last = codes.partition("-")
    subject, dot, detail = first.rpartition(".")
    for number in range(int(detail), int(last or detail) + 1):
        yield f"{subject}{dot}{number}"


def _member[T: (Category, BounceClass)](words: type[T], word: str, what: str) -> T:
    if word.upper() not in words.__members__:
        raise RuleError(f"there is no {what} {word!r}")
    return words[word.upper()]


def _known(word: str, known: Container[str], what: str) -> str:
    if word not in known:
        raise RuleError(f"there is no {what} {word!r}")
    return word


def _example(entry: str | Mapping[str, Any], rule: Rule) -> Example:
    """An example with what its rule asks for beside the words, unless it says so itself."""
    given: Mapping[str, Any] = {"text": entry} if isinstance(entry, str) else entry
    code, enhanced = codes(plain(given["text"]))
    code = given.get("code", code or next(iter(rule.code), None))
    temporary = (code or 500) < 500
    detail = Detail(
        message=given["text"],
        code=code,
        enhanced=given.get("enhanced", enhanced or _of_class_5(next(iter(rule.enhanced), ""))),
        mx=given.get("mx", next(iter(rule.mx), "")),
        reason=given.get("reason", next(iter(rule.reason), "")),
    )
    kind = rule.kind or (EventKind.DEFERRED if temporary else EventKind.BOUNCED)
    provider = given.get("provider", next(iter(rule.provider), ""))
    return Example(kind=kind, detail=detail, provider=provider)


def _of_class_5(enhanced: str) -> str:
    return f"5.{enhanced}" if enhanced.count(".") == 1 else enhanced


BUILT_IN = Rules.built_in()


def class_of(category: Category) -> BounceClass:
    """The class that a category has where nothing particular is known of the refusal."""
    if category is Category.NONE:
        return BounceClass.NONE
    return BUILT_IN.default(category).bounce_class


def classify_failure(
    kind: EventKind, detail: Detail, provider: str, rules: Rules = BUILT_IN
) -> Classification:
    """Why a mail was refused, by whom it can be helped; empty unless it is a failure.

    A class of its own that a rule gives is of permanent failures: a deferral has its category's.
    """
    if kind not in FAILURES:
        return _NOTHING
    rule = rules.decide(kind, detail, provider)
    permanent = kind is not EventKind.DEFERRED
    reason = detail.reason.strip().lower()
    return Classification(
        category=rule.category,
        bounce_class=rule.bounce_class if permanent else class_of(rule.category),
        rule=rule.id,
        scope=rule.scope,
        fix_by=rule.fix_by,
        hl=_counted(rule, reason),
        expired=reason == "old" or detail.code == _TOO_OLD,
    )


def _counted(rule: Rule, reason: str) -> int:
    """How HighLevel's count of blocks sees it, see ``Classification.hl``."""
    if rule.category in _COUNTED or reason == "espblock":
        return 1 if rule.scope == "receiver" else 2
    return 1 if rule.category is Category.POLICY else 0
