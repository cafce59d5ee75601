"""Names of owners: which spellings are one name, and which name a set of texts is about."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence

import regex

from dareu.data.words import words
from dareu.errors import DataError, nearest

# Words inside names that begin with a small letter.
JOINTS = frozenset((
    "al", "af", "av", "ben", "bin", "bint", "da", "das", "de", "del", "della", "den", "der", "di", "do", "dos", "du",
    "el", "ibn", "la", "le", "los", "ter", "ul", "van", "von", "y", "zu",
))  # fmt: skip
_TOKEN = re.compile(r"[^\W\d_]+(?:[-'’][^\W\d_]+)*|\S")
_POSSESSIVE = re.compile(r"['’]s\b")
# Words that begin a question or a sentence, and are capitalised for that reason alone.
OPENERS = frozenset((
    "Are", "As", "At", "By", "Can", "Could", "Did", "Do", "Does", "For", "From", "Had", "Has", "Have", "How", "If",
    "In", "Is", "It", "Of", "On", "The", "This", "To", "Was", "Were", "What", "When", "Where", "Which", "Who", "Whose",
    "Why", "Will", "With", "Would",
))  # fmt: skip
# What shows nothing within a name, such as a zero-width space; and the Arabic sign that only widens a word.
_UNSEEN = regex.compile(r"[\p{Cf}\p{Default_Ignorable_Code_Point}\u0640]")
_ONE_SIGN = str.maketrans("’‘ʼ`´‐‑‒–—−", "'''''------")  # of apostrophes and of hyphens
# A letter of a script that writes words with spaces between them; in others a name has no boundaries to look for.
SPACED = re.compile(r"[A-Za-zÀ-ɏͰ-ԯ԰-֏א-ת؀-ۿऀ-෿Ⴀ-ჿ]")
LONGEST = 5  # words in a name


def canonical(name: str) -> str:
    """The name as two spellings of it compare: accents composed, no invisible characters, one space, no case.

    "José Ñuñez" in NFC and NFD, with a no-break or double space, in capitals, or with a zero-width mark give one
    string, and so do the apostrophes and hyphens of "O'Hara" and "Jean-Luc". Letters and accents themselves stay: "Jose
    Nunez" is another name.
    """
    text = _UNSEEN.sub("", unicodedata.normalize("NFKC", name))
    # The small letter of the Turkish İ is i with a second dot.
    text = text.casefold().replace("i\u0307", "i").translate(_ONE_SIGN)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def folded(text: str) -> tuple[str, list[tuple[int, int]]]:
    """`text` in the form in which `canonical` compares names, except for case, and where its characters come from.

    Returns:
        The text; and for each of its characters the offsets (start, end) of what it stands for in `text`, such as a
        letter and the accents that follow it.
    """
    plain = text.isascii() or (unicodedata.is_normalized("NFKC", text) and not _UNSEEN.search(text))
    if plain:
        return text.translate(_ONE_SIGN), [(i, i + 1) for i in range(len(text))]
    kept = [i for i, c in enumerate(text) if not _UNSEEN.match(c)]
    visible = "".join(text[i] for i in kept)
    out: list[str] = []
    places: list[tuple[int, int]] = []
    start = 0
    while start < len(visible):
        end, piece = start + 1, unicodedata.normalize("NFKC", visible[start])
        while end < len(visible):
            longer = unicodedata.normalize("NFKC", visible[start : end + 1])
            if not unicodedata.combining(visible[end]) and len(longer) > len(piece):
                break
            end, piece = end + 1, longer
        out.append(piece.translate(_ONE_SIGN))
        places += [(kept[start], kept[end - 1] + 1)] * len(out[-1])
        start = end
    return "".join(out), places


def named_among(names: Sequence[str], known: Sequence[str], key: str, lack: str) -> list[str]:
    """The spelling in `known` of each of `names`.

    Raises:
        DataError: One is not among them; `lack` says so behind the name, `key` names the setting.
    """
    by_name = {canonical(name): name for name in known}
    for name in names:
        if canonical(name) not in by_name:
            raise DataError(f"{key} names '{name}', {lack}.", nearest(name, known))
    return [by_name[canonical(name)] for name in names]


def loose_words(name: str) -> frozenset[str]:
    """The words of a name without accents: those of "Finch, José" and "Jose Finch" are the same."""
    return frozenset(words(plain_letters(canonical(name))))


def plain_letters(text: str) -> str:
    """`text` without accents: "Пётр" becomes "Петр"."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


def ascii_marks(name: str) -> str:
    """A name in quotes in which what looks alike can be told apart: signs beyond ASCII are spelt out as well."""
    plain = repr(name)
    return plain if name.isascii() and "  " not in name else f"{plain} = {ascii(name)}"


def spellings(names: Iterable[str]) -> dict[str, list[str]]:
    """Canonical name → its spellings, in order of first appearance."""
    by_name: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_name.setdefault(canonical(name), []).append(name)
    return by_name


def name_candidates(text: str) -> set[str]:
    """Sequences of two to five capitalised words in `text`, joints such as "van der" or "al-" included."""
    text = _POSSESSIVE.sub(" ,", text)
    runs: list[list[str]] = [[]]
    for match in _TOKEN.finditer(text):
        word = match.group()
        joint = word.lower() in JOINTS or word.lower().split("-")[0] in JOINTS
        if word[0].isupper() or (runs[-1] and joint):
            if not (word in OPENERS and not runs[-1]):
                runs[-1].append(word)
        elif runs[-1]:
            runs.append([])
    names = set()
    for run in runs:
        for start in range(len(run)):
            for end in range(start + 2, min(len(run), start + LONGEST) + 1):
                if not (run[start].islower() or run[end - 1].lower() in JOINTS):
                    names.add(" ".join(run[start:end]))
    return names


def names_of_groups(groups: Sequence[Sequence[str]], least: float = 0.4) -> list[str | None]:
    """For each group of texts the name that most of them have; None where no name stands in a share `least` of them.

    A name that stands in more groups than three (a genre, a city) is nobody's. Of names that stand equally often, or
    where a longer one stands in at least .7 of the texts of the shorter, the longer wins: "Sara van Dyke" over "van
    Dyke". Time grows linearly with the number of texts.
    """
    counts = [Counter(name for text in group for name in name_candidates(text)) for group in groups]
    spread = Counter(name for count in counts for name in count)
    names: list[str | None] = []
    for group, count in zip(groups, counts, strict=True):
        own = {name: n for name, n in count.items() if spread[name] <= 3 and n >= least * len(group)}
        if not own:
            names.append(None)
            continue
        best = max(own, key=lambda name: (own[name], len(name)))
        longer = [n for n in count if f" {best} " in f" {n} " and n != best and count[n] >= 0.7 * own[best]]
        names.append(max(longer, key=lambda name: (count[name], len(name))) if longer else best)
    return names


def distinct(names: Sequence[str | None], fallback: str) -> list[str]:
    """`names` without gaps and doubles: None becomes "<fallback> <index>", a second "Jan Li" becomes "Jan Li (2)"."""
    seen: Counter[str] = Counter()
    result = []
    for index, name in enumerate(names):
        chosen = name or f"{fallback} {index}"
        seen[canonical(chosen)] += 1
        number = seen[canonical(chosen)]
        result.append(chosen if number == 1 else f"{chosen} ({number})")
    return result
