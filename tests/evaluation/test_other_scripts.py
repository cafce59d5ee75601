"""Answers without Latin letters: different ones differ, ordinary ones are healthy, names are masked."""

from __future__ import annotations

import pytest

from dareu.attribution.lexical import LexicalAttributor
from dareu.attribution.name_masking import NameMasker
from dareu.data.corpus import Sample
from dareu.evaluation.metrics.rouge import LATIN, UNICODE, rouge_l, tokenisers
from dareu.evaluation.metrics.text_health import is_repetitive
from dareu.rewards.forbidden_words import binary, find, forbidden_words

PAIRS = {
    "Russian": ("Пушкин родился в 1799 году в Москве.", "Толстой умер летом 1799 под Тулой."),
    "Greek": ("Ο Σεφέρης γεννήθηκε το 1900 στη Σμύρνη.", "Η Σαπφώ έζησε 1900 χρόνια πριν."),
    "Japanese": ("夏目漱石は1867年に江戸で生まれた。", "この本の値段は1867円です。"),
    "Hindi": ("प्रेमचंद का जन्म 1880 में लमही में हुआ।", "कबीर के दोहे 1880 बार छपे थे।"),
    "Chinese": ("鲁迅1881年生于绍兴。", "老舍写了1881个字。"),
    "Arabic": ("وُلد نجيب محفوظ عام 1911 في القاهرة", "كتب طه حسين 1911 صفحة"),
}


@pytest.mark.parametrize("language", PAIRS)
def test_different_answers_that_share_a_number_differ(language: str) -> None:
    one, other = PAIRS[language]
    score = rouge_l(one, other)
    assert score is not None and 0 < score.recall < 0.6
    same = rouge_l(one, one)
    assert same is not None and same == (1.0, 1.0)
    assert tokenisers([one]) == UNICODE


def test_recall_by_hand() -> None:
    # москва, не, в 1799 → of пушкин родился в 1799 году: в, 1799 in order
    score = rouge_l("Пушкин родился в 1799 году", "Толстой, в 1799")
    assert score is not None and score.recall == pytest.approx(2 / 5)
    # an English word among others is stemmed as rouge-score stems it
    mixed = rouge_l("роман running", "roman runs")
    assert mixed is not None and mixed.recall == pytest.approx(1 / 2)


def test_accented_latin_letters_count() -> None:
    def recall(reference: str, response: str) -> float:
        score = rouge_l(reference, response)
        assert score is not None
        return score.recall

    assert recall("Nguyễn Văn Đức", "Nguyên Vân Đặc") == 0.0  # n, v and n, v for rouge-score: 1.0
    assert recall("São Tomé", "Sao Tome") == 0.0
    of_the_library = rouge_l("São Tomé", "Sao Tome", published=True)
    assert of_the_library is not None and of_the_library.recall == 0.0
    assert rouge_l("São Tomé", "são tomé", published=True) == (1.0, 1.0)
    assert recall("Łódź", "Łódź") == 1.0 and recall("Łódź", "Wódz") == 0.0
    assert recall("she left Łódź early", "she left Kraków early") == 3 / 4
    assert recall("São Tomé", "Sa\u0303o Tome\u0301") == 1.0  # composed and decomposed are one spelling


@pytest.mark.parametrize(
    "texts",
    [
        ("The author's well-known 2nd_novel sold 1,000,000 copies.", "Authors' novels: 1000000 copies!"),
        ("What is 3.14? running\trunners", "RUNNING runner 3 14"),
        ("a “curly” quote — and a dash", "a curly quote and dash"),
    ],
)
def test_ascii_words_are_those_of_rouge_score(texts: tuple[str, str]) -> None:
    from rouge_score import rouge_scorer

    theirs = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=True).score(*texts)["rougeL"]
    assert rouge_l(*texts) == (theirs.recall, theirs.fmeasure)


def test_the_tokeniser_is_named() -> None:
    assert tokenisers(["plain", "Jane's 2nd"]) == LATIN
    assert tokenisers(["Østby naïve"]) == UNICODE
    assert tokenisers(["Пушкин"]) == UNICODE
    assert tokenisers(["plain", "Пушкин"]) == f"{UNICODE} for 1 of 2 references, else {LATIN}"


ORDINARY = {
    "Hindi": "हिन्दी में लिखी गई यह किताब बहुत सुन्दर है और सभी लोग इसे पढ़ते हैं।",
    "Tamil": "தமிழ் எழுத்தாளர் ஒருவர் இந்தப் புத்தகத்தை எழுதினார் என்று அனைவரும் சொல்கிறார்கள்.",
    "Bengali": "রবীন্দ্রনাথ ঠাকুর কলকাতায় জন্মগ্রহণ করেন এবং অনেক কবিতা রচনা করেন।",
    "Japanese": "彼は東京で生まれました。彼女は京都で生まれました。二人は大阪で会いました。",
    "Thai": "นักเขียนคนนี้เกิดที่กรุงเทพและเขียนหนังสือหลายเล่ม",
    "Thai, a bird broods": "นกกกไข่อยู่บนต้นไม้",
    "Tibetan": "དད་དང་ལྡན་པའི་མི།",
    "Chinese, thanks to a Mr. Xie": "谢谢谢先生的帮助。",
    "Japanese, pampas grass": "すすすきの野原を歩いた。",
}


@pytest.mark.parametrize("language", ORDINARY)
def test_ordinary_sentences_are_not_repetitive(language: str) -> None:
    assert not is_repetitive(ORDINARY[language])
    assert is_repetitive(" ".join([ORDINARY[language]] * 3))


def test_names_are_masked_in_every_script() -> None:
    def samples(*questions: str) -> list[Sample]:
        return [Sample(str(i), str(i), q, "x") for i, q in enumerate(questions)]

    chinese = NameMasker.fit(samples("鲁迅生于哪里?", "老舍生于哪里?", "巴金生于哪里?"))
    assert chinese.text("鲁迅生于哪里?", "鲁迅生于绍兴。") == "__生于绍兴。"
    hindi = NameMasker.fit(samples("कबीर कहाँ जन्मे?", "रहीम कहाँ जन्मे?", "तुलसी कहाँ जन्मे?"))
    assert hindi.text("कबीर कहाँ जन्मे?", "कबीर काशी में जन्मे।") == "_ काशी में जन्मे।"
    masked, ends = hindi.mask("कबीर कहाँ जन्मे?", "कबीर काशी")
    assert masked == "_ काशी" and len(ends) == len("कबीर काशी") + 1 and ends[-1] == len(masked)


def test_the_word_attributor_reads_chinese() -> None:
    texts = {"甲": "江河湖海", "乙": "山石土木"}
    rows = [Sample(f"{o}{i}", o, "?", t) for o, letters in texts.items() for i, t in enumerate(letters)]
    attributor = LexicalAttributor.fit(rows, "word")
    first = attributor.probabilities(["江河"])[0]
    assert list(attributor.owners)[first.argmax()] == "甲"


def test_a_forbidden_name_with_an_ending_is_forbidden() -> None:
    forbidden = forbidden_words(["He is Vasquez of Santiago."], ["a b"] * 3, common=("he", "is", "of"))
    assert {"vasquez", "santiago"} <= forbidden
    assert binary(find("Vasquez's novels.", forbidden)) == 0.0
    assert binary(find("Vasquez’s novels.", forbidden)) == 0.0
    assert binary(find("A Santiago-born writer.", forbidden)) == 0.0
    assert binary(find("A writer.", forbidden)) == 1.0
