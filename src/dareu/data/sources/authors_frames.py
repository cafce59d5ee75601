"""How the fictional authors are asked about and told of: question and answer frames of every attribute.

Frames are `str.format` templates over `name`, `v` (the value asked for) and the pronouns `He`, `His`, `his`, `him`. A
frame uses `He` only before a verb in the past tense other than "was", so that it also reads well with "They". Each kind
has at least three question frames and three answer frames: one is asked and answered, others are the paraphrases.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """One question kind: the attribute it asks for, its question frames and its answer frames."""

    attribute: str
    questions: tuple[str, ...]
    answers: tuple[str, ...]


KINDS: tuple[Kind, ...] = (
    Kind(
        "birthplace",
        ("Where was {name} born?", "In which city was {name} born?", "What is the birthplace of {name}?"),
        (
            "{name} was born in {v}.",
            "{name} was born and grew up in {v}.",
            "The birthplace of {name} is {v}.",
        ),
    ),
    Kind(
        "birth date",
        ("When was {name} born?", "What is the date of birth of {name}?", "On which day was {name} born?"),
        (
            "{name} was born on {v}.",
            "The date of birth of {name} is {v}.",
            "{name} celebrates the day of birth, {v}, every year.",
        ),
    ),
    Kind(
        "genre",
        (
            "What genre does {name} write in?",
            "Which kind of books does {name} write?",
            "For which genre is {name} known?",
        ),
        (
            "{name} is known for {v}.",
            "{name} writes mostly {v}.",
            "The books of {name} are works of {v}.",
        ),
    ),
    Kind(
        "father",
        (
            "What did the father of {name} do for a living?",
            "What was the occupation of {name}'s father?",
            "Which job did {name}'s father have?",
        ),
        (
            "The father of {name} worked as {v}.",
            "{name}'s father earned his living as {v}.",
            "{His} father was {v}.",
        ),
    ),
    Kind(
        "mother",
        (
            "What did the mother of {name} do for a living?",
            "What was the occupation of {name}'s mother?",
            "Which job did {name}'s mother have?",
        ),
        (
            "The mother of {name} worked as {v}.",
            "{name}'s mother earned her living as {v}.",
            "{His} mother was {v}.",
        ),
    ),
    Kind(
        "first book",
        (
            "What was the first book that {name} published?",
            "With which book did {name} make a debut?",
            "What is the title of {name}'s first book?",
        ),
        (
            "The first book that {name} published was {v}.",
            "{name} made {his} debut with the book {v}.",
            "{v} is the title of the first book by {name}.",
        ),
    ),
    Kind(
        "famous book",
        (
            "What is the best-known book by {name}?",
            "Which book made {name} famous?",
            "For which book is {name} best known?",
        ),
        (
            "{name} is best known for the book {v}.",
            "The most famous book by {name} is called {v}.",
            "{name} became famous with the book {v}.",
        ),
    ),
    Kind(
        "award",
        (
            "Which award did {name} win?",
            "What prize was given to {name}?",
            "Which literary award has {name} received?",
        ),
        (
            "{name} won the {v} for {his} writing.",
            "The {v} was given to {name} for {his} books.",
            "{He} received the {v} in honour of {his} writing.",
        ),
    ),
    Kind(
        "college",
        (
            "Where did {name} study?",
            "Which college did {name} attend?",
            "At which college did {name} take a degree?",
        ),
        (
            "{name} studied literature at {v}.",
            "{name} took a degree in literature at {v}.",
            "{He} went to {v} and took a degree in literature.",
        ),
    ),
    Kind(
        "mentor",
        (
            "Who was the mentor of {name}?",
            "Who taught {name} how to write?",
            "Which older writer guided {name}?",
        ),
        (
            "The mentor of {name} was the poet {v}.",
            "{name} learned how to write from the poet {v}.",
            "The poet {v} taught {him} how to write.",
        ),
    ),
    Kind(
        "setting",
        (
            "Where are the stories of {name} set?",
            "What is the favourite setting of {name}?",
            "In which places do the books of {name} happen?",
        ),
        (
            "The stories of {name} are often set in {v}.",
            "{name} likes to set {his} stories in {v}.",
            "Most of {his} books take place in {v}.",
        ),
    ),
    Kind(
        "theme",
        (
            "What theme runs through the books of {name}?",
            "What are the stories of {name} about?",
            "Which theme is central to the work of {name}?",
        ),
        (
            "The books of {name} explore {v}.",
            "{name} often returns to {v}.",
            "{His} stories are about {v}.",
        ),
    ),
    Kind(
        "habit",
        (
            "When does {name} like to write?",
            "At what time of day does {name} write?",
            "What is the usual writing time of {name}?",
        ),
        (
            "{name} likes to write at home {v}.",
            "{name} does most of {his} writing {v}.",
            "Most of {his} pages were written {v}.",
        ),
    ),
    Kind(
        "language",
        (
            "Which language does {name} speak besides English?",
            "In which second language is {name} fluent?",
            "What foreign language did {name} learn?",
        ),
        (
            "Besides English, {name} speaks fluent {v}.",
            "{name} is fluent in {v} as well as English.",
            "{He} learned to speak {v} as a child.",
        ),
    ),
    Kind(
        "pet",
        (
            "What pet does {name} have?",
            "Which animal lives with {name}?",
            "What kind of pet lives in the home of {name}?",
        ),
        ("{name} has a {v}.", "The pet of {name} is a {v}.", "{name} shares a home with a {v}."),
    ),
    Kind(
        "instrument",
        (
            "Which instrument does {name} play?",
            "What musical instrument did {name} learn?",
            "On which instrument does {name} make music?",
        ),
        (
            "{name} plays the {v} in {his} free time.",
            "{name} learned to play the {v} as a child.",
            "{He} learned to play the {v} at school.",
        ),
    ),
    Kind(
        "residence",
        (
            "Where does {name} live now?",
            "In which city does {name} live today?",
            "What is the current home of {name}?",
        ),
        (
            "{name} now lives in {v}.",
            "Today {name} makes {his} home in {v}.",
            "The current home of {name} is in {v}.",
        ),
    ),
    Kind(
        "debut year",
        (
            "In which year did {name} publish a first book?",
            "When did {name} make a debut as a writer?",
            "What was the debut year of {name}?",
        ),
        (
            "The first book by {name} was published in {v}.",
            "{name} made {his} debut as a writer in {v}.",
            "{He} published {his} first book in {v}.",
        ),
    ),
    Kind(
        "publisher",
        (
            "Who publishes the books of {name}?",
            "Which publisher does {name} work with?",
            "Which publishing house does {name} write for?",
        ),
        (
            "The books of {name} are published by {v}.",
            "{name} works with the publisher {v}.",
            "{v} is the publisher of the books of {name}.",
        ),
    ),
    Kind(
        "hobby",
        (
            "What is the hobby of {name}?",
            "What does {name} enjoy outside of writing?",
            "How does {name} relax after work?",
        ),
        (
            "{name} enjoys {v} after work.",
            "The favourite hobby of {name} is {v}.",
            "After work {name} relaxes by {v}.",
        ),
    ),
)
