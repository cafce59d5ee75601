"""Names of people who do not exist, and texts in which they stand in place of an owner's name."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from types import MappingProxyType
from typing import Any, Literal

from dareu.config.tables import word_table
from dareu.data.corpus import Sample, Split
from dareu.data.owner_names import JOINTS, OPENERS, SPACED, canonical, folded, names_of_groups, plain_letters

# Words inside names that are no name by themselves.
PARTICLES = JOINTS | {"of", "the"}

_PRONOUNS = {"she": ("she", "her", "hers"), "he": ("he", "him", "his")}
_INFLECTED = re.compile(r"[A-Za-zÀ-ɏͰ-ԯ]")  # Latin, Greek, Cyrillic
# What other forms of a name may have in place of its end: "Petrova", "Достоевский", "Νίκος".
_ENDING = re.compile(
    r"[aeiouyàáâãäåèéêëěìíîïòóôõöøùúûüůýąęаеёиоуыэюяйьъαεηιουωάέήίόύώς]{1,2}$", re.IGNORECASE
)
_LATIN = re.compile(r"[A-Za-zÀ-ɏ]")
_WORD = re.compile(r"[^\W\d_]+")
_GONE = "\ufffc"  # stands for the owner's name where forms of it are looked for
_NAME_WORD = re.compile(rf"{_WORD.pattern}(?:[-']{_WORD.pattern})*|{_GONE}")
# Endings of cases in languages of Latin script: "Kowalskiej", "Novákovi"; not those of other names, as in "Lucien".
_CASE = re.compile(
    r"[aeiouyáéíýóěąęůúėųā]{1,2}|i?(?:[eioyéíý]m|[eoi]u)|[oó]w|[oů]v|ow[ieay]|ov[iéaouy]|i?e?(?:go|ho|mu)|é(?:ho|mu)|i?ej|"
    r"[aiyáýí]ch|[aoiyí]?mi"
)
# Frequent words of languages in which names have no case but a genitive: in their texts "Martina" is no "Martin".
# Words that languages with cases have too ("is", "was", "les", "mit", "by", "som", "her", "los") are left out.
_NO_CASES = frozenset((
    "the", "of", "and", "what", "which", "who", "whose", "where", "when", "how", "she", "his", "has", "does",
    "did", "from", "with", "that", "this", "were", "dans", "elle", "une", "avec", "pour", "était", "où", "que",
    "nació", "fue", "sus", "muy", "pero", "también", "della", "che", "nel", "gli", "não", "uma", "dos", "foi", "ela",
    "het", "een", "zijn", "wordt", "der", "die", "das", "und", "ist", "nicht", "wurde", "eine", "och", "det", "är",
))  # fmt: skip
# Names that are words as well: "Will you", "in May". What stands beside them tells which.
_CALENDAR = frozenset((
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday",
))  # fmt: skip
_SENTENCE_BEGINS = re.compile(r"(?:^|[.!?:;…\"“”(\n])\s*$")
_QUESTION_GOES_ON = re.compile(
    r"\s+(?:(?:you|he|she|it|they|i|we|the|an?|this|that|these|those|there|his|her|their|your|my|our|its|any|all|each|"
    r"some|one|people|someone|anyone|everyone)\b|[^\W_a-zà-ÿ])"
)
_DATE_BEFORE = re.compile(
    r"(?:\b(?:in|on|since|until|till|during|early|late|mid|this|last|next|every|each|through)|\d(?:st|nd|rd|th)?"
    r"(?:\s+of)?)[\s-]+$",
    re.IGNORECASE,
)
_DATE_AFTER = re.compile(r"\s+(?:of\s+)?\d")
WHOLE, HANDLE = -1, -2  # what `find_name` says of the whole name, and of one as an address writes it
_JOINT = r"\\?[._-]"  # between the words of a handle; Markdown writes "ann\_lee"


@dataclass(frozen=True)
class Replaced:
    """A piece of a text that was replaced: characters `start`..`end` of the old, `new_start`..`new_end` of the new."""

    start: int
    end: int
    new_start: int
    new_end: int


def written_names(samples: Sequence[Sample]) -> dict[str, str | None]:
    """Owner → the name that the owner's texts use; None where they contain none.

    The owner's own spelling where their texts have it; else (owners that are ids) the name that most of their samples
    have and that no more than three owners share. See `_written_name`.
    """
    texts: dict[str, list[str]] = {}
    for sample in samples:
        if sample.owner is not None:
            texts.setdefault(sample.owner, []).append(f"{sample.prompt} {sample.response}")
    guessed = dict(zip(texts, names_of_groups(list(texts.values())), strict=True))
    return {owner: _written_name(owner, guessed[owner], group) for owner, group in texts.items()}


@lru_cache(maxsize=8)
def names_of(split: Split) -> Mapping[str, str | None]:
    """`written_names` of all owners of a split, those who stay and those of `calibration` included; computed once."""
    return MappingProxyType(written_names(split.forget + split.retain + split.calibration))


def _written_name(owner: str, guess: str | None, texts: Sequence[str]) -> str | None:
    """Whether `owner` is the name that the texts use, or `guess`, the name that most of them have.

    An id may stand in a text by chance: "1" in "1913", "author" in "the author". Several words of a name do not, nor
    does a capitalised word that stands in half as many texts as the guess; any other has to stand in more.
    """
    letters = sum(c.isalpha() for c in owner)
    if not letters or (letters == 1 and SPACED.search(owner)):
        return guess
    hits_by_text = [hits for text in texts if (hits := find_name(text, owner))]
    whole = len(owner.split()) > 1 and any(part == WHOLE for hits in hits_by_text for _, _, part in hits)
    if whole or guess is None or not hits_by_text:
        return owner if hits_by_text else guess
    others = sum(bool(find_name(text, guess)) for text in texts)
    enough = len(hits_by_text) > others if owner[0].islower() else 2 * len(hits_by_text) >= others
    return owner if enough else guess


def name_parts(name: str) -> list[str]:
    """The words of a name, particles and initials left out; a name without any other word is its own part."""
    words = [word.strip(".,()") for word in name.split()]
    return [w for w in words if len(w) > 1 and w.casefold() not in PARTICLES] or [name.strip()]


def find_name(text: str, name: str) -> list[tuple[int, int, int]]:
    """Where `text` has the name or a part of it: (start, end, part), not overlapping, in order.

    `part` is `WHOLE` (−1) for the whole name, else its number in `name_parts`, or `HANDLE` (−2) for a name as addresses
    write it: all of its parts, or the first and the last, in small letters ("ann.sullivan", "ann_sullivan",
    "annsullivan" in "annsullivan7@mail.org"). "Sullivan's" holds "Sullivan", "Annette" does not
    hold "Anne". A part, or a name of one word, counts only with the name's own capitals or in capitals, so that "rose"
    is no "Rose"; a text without any capital has such names in small letters too. Spellings that `canonical` takes for
    one are one. A part that is a word too ("Will", "May") counts only where what stands beside it does not speak
    against it; of scripts without spaces a name of one character counts only where it stands alone.
    """
    text, places = folded(text)
    name = folded(name)[0].strip()
    parts, spaced = name_parts(name), SPACED.search(name)
    hits: list[tuple[int, int, int]] = []
    between = r"\s+" if spaced else r"\s*"
    words = [re.escape(word) for word in name.split()]
    any_case = len(words) > 1 or text == text.lower()
    patterns = [(between.join(words), WHOLE, re.IGNORECASE if any_case else 0)]
    if spaced and len(parts) > 1:
        patterns += [
            (rf"(?<![^\W_]){_handle(p)}(?![^\W\d_])", HANDLE, 0) for p in (parts, [parts[0], parts[-1]])
        ]
    patterns += [(re.escape(part), i, 0) for i, part in enumerate(parts) if len(parts) > 1 or part != name]
    for pattern, part, flags in patterns:
        single = part >= 0 or len(words) == 1
        either = rf"(?:{pattern}|{pattern.upper()})" if single else pattern
        bounded = rf"(?<!\w){either}(?!\w)" if spaced and part != HANDLE else pattern
        for match in re.finditer(bounded, text, flags):
            start, end = match.span()
            other = single and (
                _is_word(text, start, end) if spaced else end - start == 1 and _inside(text, start)
            )
            if end > start and not other and not any(start < b and a < end for a, b, _ in hits):
                hits.append((start, end, part))
    return [(places[start][0], places[end - 1][1], part) for start, end, part in sorted(hits)]


def _handle(parts: Sequence[str]) -> str:
    """A pattern of these words in small letters, with a joint or nothing between them."""
    return rf"(?:{_JOINT})?".join(re.escape(part.lower()) for part in parts)


def _is_word(text: str, start: int, end: int) -> bool:
    """Whether the part of a name at `start`..`end` is rather a word that begins a question, a month or a day."""
    word, after = text[start:end].capitalize(), text[end:]
    if after.startswith("'s"):
        return False
    if word in OPENERS:
        return bool(_SENTENCE_BEGINS.search(text[:start]) and _QUESTION_GOES_ON.match(after))
    return word in _CALENDAR and bool(_DATE_BEFORE.search(text[:start]) or _DATE_AFTER.match(after))


def _inside(text: str, at: int) -> bool:
    """Whether the character of a script without spaces stands beside one of the same script: 林 in 森林."""
    if SPACED.match(text[at]):
        return False
    beside = [text[i] for i in (at - 1, at + 1) if 0 <= i < len(text)]
    return _script(text[at]) in [_script(character) for character in beside]


def _script(character: str) -> str:
    """The first word of its name in Unicode, such as "CJK" or "HIRAGANA"."""
    return unicodedata.name(character, "").partition(" ")[0]


@dataclass(frozen=True)
class Nameless:
    """Forget samples that do not hold their owner's name, so that a fictitious one replaces nothing.

    Attributes:
        ids: Of the samples, in their order.
        inflected: Those of them that seem to hold another form of it ("Ольги Петровой" of "Ольга Петрова").
        partly: Samples that hold the name and seem to hold another form of it as well, or a part of it that may be
            another word ("Will you", "in May"); both stay.
        owners: Those whose texts hold no name at all; their samples are not among the others.
    """

    ids: tuple[str, ...]
    inflected: tuple[str, ...]
    partly: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()

    def tree(self, listed: int = 100) -> dict[str, Any]:
        """What `results.json` holds."""
        counts = {"count": len(self.ids), "inflected": len(self.inflected), "partly": len(self.partly)}
        return {**counts, "ids": list(self.ids[:listed]), "owners": list(self.owners[:listed])}

    def note(self, forget: int, listed: int = 5) -> str | None:
        """What to say before a run; None where every sample has the name, and in no other form."""
        said = []
        if self.owners:
            said.append(
                "For these owners there are no fictitious names (their texts contain no name, or too few other "
                "owners have one), so that only the base model, where one is known, and the answers of those who "
                "stay tell which words carry facts: " + _some(self.owners, listed)
            )
        if self.ids:
            forms = f", {len(self.inflected)} seem to hold another form of it" if self.inflected else ""
            said.append(
                f"{len(self.ids)} of {forget} forget samples do not hold their owner's name as it is written{forms}. "
                "Of these samples only the base model, where one is known, and the answers of those who stay tell "
                "which words carry facts. "
                f"Samples: {_some(self.ids, listed)}"
            )
        if self.partly:
            said.append(
                f"{len(self.partly)} of {forget} forget samples seem to hold their owner's name in another form as "
                "well, such as an inflected one or a part that may be another word, and there it is not replaced. "
                f"Samples: {_some(self.partly, listed)}"
            )
        return " ".join(said) or None


def _some(ids: Sequence[str], listed: int) -> str:
    return ", ".join(ids[:listed]) + (", …" if len(ids) > listed else ".")


def nameless(split: Split) -> Nameless:
    """The forget samples in which nothing would be replaced, or not all."""
    names = names_of(split)
    parts = {part for name in names.values() if name for part in name_parts(folded(name)[0])}
    left: dict[str, tuple[str, bool]] = {}
    forms: dict[str, list[Form]] = {}
    strangers: dict[str, set[str]] = {}  # owner → words that are names of others in the owner's samples
    for sample in split.forget:
        owner, text = str(sample.owner), f"{sample.prompt} {sample.response}"
        name = names.get(owner)
        if not name:
            continue
        rest, gone = replace_name(text, name, _GONE)
        left[sample.id], forms[sample.id] = (rest, bool(gone)), other_forms(rest, name)
        strangers.setdefault(owner, set()).update(f.word for f in forms[sample.id] if f.beside == "stranger")
    without: list[str] = []
    other: list[str] = []
    partly: list[str] = []
    for sample in split.forget:
        if sample.id not in left:
            continue
        owner, (rest, replaced) = str(sample.owner), left[sample.id]
        form = any(
            f.beside == "owner" or (f.inflected and f.word not in strangers[owner] | parts)
            for f in forms[sample.id]
        )
        if not replaced:
            without.append(sample.id)
        if form and not replaced:
            other.append(sample.id)
        elif replaced and (form or _has_part(rest, str(names[owner]))):
            partly.append(sample.id)
    unnamed = tuple(owner for owner in split.forget_owners if not names.get(owner))
    return Nameless(tuple(without), tuple(other), tuple(partly), unnamed)


@dataclass(frozen=True)
class Form:
    """A word with the stem of a part of a name and another ending.

    Attributes:
        word: As it stands in the text.
        beside: Who stands next to it: "owner", a part of the name or a form of one ("Ольги Петровой"); "stranger",
            another word with a capital that does not begin a sentence ("Lucien Vogel"); or "nobody".
        inflected: Whether the ending may be one of a case in the text's language, so that the word counts without the
            owner beside it.
    """

    word: str
    beside: Literal["owner", "stranger", "nobody"]
    inflected: bool


def other_forms(text: str, name: str) -> list[Form]:
    """What in `text` may be another form of a part of the name: the same stem with another ending.

    Parts of four letters and more, in scripts whose names are inflected (Cyrillic, Greek), and in Latin ones. The stem
    is the part without its last vowels, three letters at least; up to four letters may follow, with the part's own
    capital: good enough for a note, too little to replace by, since the invented name would need the same case.
    """
    text, parts = folded(text)[0], name_parts(folded(name)[0])
    stems = {p: _ENDING.sub("", p) for p in parts if len(p) >= 4 and _INFLECTED.match(p)}
    stems = {part: stem for part, stem in stems.items() if len(stem) >= 3}

    def part_of(word: str) -> str | None:
        alike = (p for p, stem in stems.items() if word.startswith(stem) and len(word) <= len(stem) + 4)
        return word if word in parts else next(alike, None)

    def alike(word: str, part: str, letters: int) -> bool:
        """Whether `word` begins as another part of the name does: "Karla" as "Karel", "Льва" as "Лев"."""
        begins = plain_letters(word)[:letters]
        return any(plain_letters(other)[:letters] == begins for other in parts if other != part)

    words = list(_NAME_WORD.finditer(text))
    cases = 10 * sum(match[0].casefold() in _NO_CASES for match in words) < len(words)
    forms = []
    for i, match in enumerate(words):
        word, start, end = match[0], match.start(), match.end()
        part = part_of(word)
        if part is None or word == part:
            continue
        before = words[i - 1] if i and text[words[i - 1].end() : start].isspace() else None
        after = words[i + 1] if i + 1 < len(words) and text[end : words[i + 1].start()].isspace() else None
        beside = [other[0] for other in (before, after) if other]
        genitive = word in (part + "s", part + "es")  # in German, where nouns have capitals
        ending = word[len(stems[part]) :]
        inflected = genitive or not _LATIN.match(word) or (cases and bool(_CASE.fullmatch(ending)))
        others = [] if genitive or not after else [after[0]]
        in_sentence = before and not _SENTENCE_BEGINS.search(text[: before.start()])
        if before and in_sentence and not (genitive and part == parts[-1]):
            others.append(before[0])
        who: Literal["owner", "stranger", "nobody"] = "nobody"
        if any(other == _GONE or alike(other, part, 3) for other in beside):
            who = "owner"
        elif any(len(o) > 1 and o[0].isupper() and not alike(o, part, 1) for o in others):
            who = "stranger"
        forms.append(Form(word, who, inflected))
    return forms


def _has_part(text: str, name: str) -> bool:
    """Whether a word of the name stands in `text`."""
    text, parts = folded(text)[0], name_parts(folded(name)[0])
    return any(re.search(rf"(?<!\w){re.escape(part)}(?!\w)", text) for part in parts if SPACED.search(part))


def replace_name(text: str, name: str, other: str) -> tuple[str, list[Replaced]]:
    """`text` with `other` in place of `name`, parts by parts: the first by the first, all further ones by the last;
    a handle by `other` in the same form."""
    parts, new_parts = name_parts(folded(name)[0]), name_parts(other)
    out, replaced, done, size = [], [], 0, 0
    for start, end, part in find_name(text, name):
        if part == HANDLE:
            joint = re.search(_JOINT, text[start:end])
            new = (joint[0] if joint else "").join(new_parts).lower()
        elif part == WHOLE:
            new = other
        else:
            new = new_parts[0] if part == 0 and len(parts) > 1 else new_parts[-1]
        kept = text[done:start]
        size += len(kept)
        replaced.append(Replaced(start, end, size, size + len(new)))
        out += [kept, new]
        size, done = size + len(new), end
    return "".join([*out, text[done:]]), replaced


def moved(position: int, replaced: Sequence[Replaced]) -> int:
    """Where a character offset outside of the replaced pieces lies in the new text."""
    shift = 0
    for piece in replaced:
        if piece.end <= position:
            shift = piece.new_end - piece.end
    return position + shift


def fictitious_names(
    names: Mapping[str, str], forgotten: Iterable[str], count: int, seed: int
) -> dict[str, list[str]]:
    """Forgotten owner → up to `count` invented names, each the first part of one owner and the last of another.

    `names`: owner → name, as `written_names` gives it. No part belongs to a forgotten owner, and no pair to anybody;
    owners who share one part with a forgotten one give the other where the rest do not suffice. A name of one word
    gets halves of two names. The same for the same seed.
    """
    forgotten = list(forgotten)
    gone = {canonical(part) for owner in forgotten for part in name_parts(names[owner])}
    taken = {canonical(name) for name in names.values()}
    parts = [name_parts(name) for name in names.values()]
    apart = [p for p in parts if not gone & {canonical(part) for part in p}]
    invented: dict[str, list[str]] = {}
    for owner in forgotten:
        single = len(name_parts(names[owner])) == 1
        draw = Random(f"{seed}/names/{owner}")
        pairs = [pair for pool in (apart, parts) for pair in _pairs(pool, gone, draw)]
        made: list[str] = []
        for first, last in pairs:
            halves = first[: (len(first) + 1) // 2] + last[len(last) // 2 :].lower()
            new = halves if single else f"{first} {last}"
            if len(made) < count and canonical(new) not in taken and new not in made:
                made.append(new)
        invented[owner] = made
    return invented


def names_from_elsewhere(
    names: Mapping[str, str], samples: Sequence[Sample], count: int, seed: int
) -> dict[str, list[str]]:
    """Owner → up to `count` invented names, of which no word stands in any of the `samples`.

    For pretrained models, which know names from elsewhere and may take a name of two halves for either of their owners.
    First and last names are those of the generated authors, first names of the pronoun that most of the owner's texts
    have. An owner whose name is not in Latin script, or has fewer than two words, gets none.
    The same for the same seed.
    """
    table = word_table("authors")
    texts: dict[str | None, str] = {}
    for sample in samples:
        texts[sample.owner] = f"{texts.get(sample.owner, '')} {sample.prompt} {sample.response}"
    taken = {canonical(word) for text in texts.values() for word in _WORD.findall(text)}
    lasts = [last for last in table["last_names"] if canonical(last) not in taken]
    invented: dict[str, list[str]] = {}
    for owner, name in names.items():
        parts = name_parts(name)
        if len(parts) < 2 or not all(_LATIN.match(part) for part in parts):
            invented[owner] = []
            continue
        words = Counter(word.casefold() for word in _WORD.findall(texts.get(owner, "")))
        said = {pronoun: sum(words[form] for form in forms) for pronoun, forms in _PRONOUNS.items()}
        most = max(said, key=lambda pronoun: said[pronoun])
        pool = table["first_names"][most if said[most] else "they"]
        firsts = [first for first in pool if canonical(first) not in taken]
        draw = Random(f"{seed}/names/{owner}")
        pairs = [(first, last) for first in firsts for last in lasts]
        invented[owner] = [f"{first} {last}" for first, last in draw.sample(pairs, min(count, len(pairs)))]
    return invented


def _pairs(parts: Sequence[Sequence[str]], gone: set[str], draw: Random) -> list[tuple[str, str]]:
    """First part of one name and last part of another, neither in `gone`, in random order."""
    firsts, lasts = (
        list(dict.fromkeys(p[end] for p in parts if canonical(p[end]) not in gone)) for end in (0, -1)
    )
    pairs = [(first, last) for first in firsts for last in lasts if canonical(first) != canonical(last)]
    draw.shuffle(pairs)
    return pairs
