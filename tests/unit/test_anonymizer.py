"""What is hidden in a prompt comes back in the answer, and nothing else changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shield_engine.heuristics import Rule, bundled_rules
from shield_engine.pipeline import Anonymize, Deanonymize, ScannerPipeline, Vault


def conversation(threads: int = 1) -> ScannerPipeline:
    """Return a pipeline that hides in prompts and restores in answers."""
    vault = Vault()
    return ScannerPipeline([Anonymize(vault)], [Deanonymize(vault)], vault=vault, threads=threads)


def hidden(text: str) -> list[tuple[str, str]]:
    """Return (type, text) of what would be hidden."""
    return [(entity.type, entity.text) for entity in Anonymize(Vault()).scan(text).entities]


def test_what_was_hidden_comes_back_in_the_answer() -> None:
    """The model sees placeholders, the user sees values; vault, spans and verdict say so."""
    pipeline = conversation()
    text = "Mail ada@example.org or +44 20 7946 0958 about DE89 3704 0044 0532 0130 00."
    prompt = pipeline.execute(text)
    assert prompt.text == "Mail [EMAIL_1] or [PHONE_1] about [IBAN_1]."
    assert prompt.is_valid
    assert prompt.risk_score == 0
    for entity in prompt.results[0].entities:
        assert text[entity.start : entity.end] == entity.text
    assert pipeline.vault.get("[EMAIL_1]") == "ada@example.org"
    answer = pipeline.execute_output("I wrote to [EMAIL_1] and rang [PHONE_1].")
    assert answer.text == "I wrote to ada@example.org and rang +44 20 7946 0958."


def test_a_value_keeps_its_placeholder_over_prompts() -> None:
    """The same value is the same placeholder; another value of its kind is the next number."""
    pipeline = conversation()
    assert pipeline.execute("a@x.org, b@x.org, a@x.org").text == "[EMAIL_1], [EMAIL_2], [EMAIL_1]"
    assert pipeline.execute("c@x.org, b@x.org").text == "[EMAIL_3], [EMAIL_2]"
    pipeline.vault.clear()
    assert pipeline.execute("d@x.org").text == "[EMAIL_4]"


@pytest.mark.parametrize("rule", bundled_rules("personal_data"), ids=lambda rule: str(rule.id))
def test_each_rule_finds_its_example_and_not_its_counter_example(rule: Rule) -> None:
    """A rule hides something in its example, and nothing hides anything in its counter-example."""
    found = Anonymize(Vault()).scan(rule.example).entities
    assert rule.id in {entity.source for entity in found}
    assert hidden(rule.counter_example) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("4111 1111 1111 1112", []),
        ("order 42 4111111111111111 now", [("card", "4111111111111111")]),
        ("378282246310005 and 3056 930902 5904", [
            ("card", "378282246310005"), ("card", "3056 930902 5904")
        ]),
        ("4111 1111 1111 1111 12 pieces", [("card", "4111 1111 1111 1111")]),
        ("GB82 WEST 1234 5698 7654 33", []),
        ("BE68 5390 0754 7034 THAT IS ALL", [("iban", "BE68 5390 0754 7034")]),
        ("999.1.1.1 and 10.0.0.1", [("ip", "10.0.0.1")]),
        ("fe80::1, 2001:db8::8a2e:370:7334, at 12:30:45, std::vector, abc::add", [
            ("ip", "fe80::1"), ("ip", "2001:db8::8a2e:370:7334")
        ]),
        ("(212) 555-0147, 0171 1234567, 2024-01-02", [
            ("phone", "(212) 555-0147"), ("phone", "0171 1234567")
        ]),
    ],
)  # fmt: skip
def test_numbers_are_hidden_if_their_check_holds(
    text: str, expected: list[tuple[str, str]]
) -> None:
    """Check digits, address ranges and word bounds tell a value from other numbers."""
    assert hidden(text) == expected


@pytest.mark.parametrize(
    "start", ["ghp_", "github_pat_", "glpat-", "hf_", "npm_", "sk-", "sk-ant-", "xoxb-", "AIza"]
)
def test_keys_of_known_services_are_hidden(start: str) -> None:
    """A token goes by its beginning, up to the first letter that no token has."""
    token = start + "a1B2" * 9
    assert hidden(f'KEY="{token}"') == [("secret", token)]


def test_of_overlapping_matches_the_weightiest_is_hidden_whole() -> None:
    """An address inside a key, or a card that reads as a phone number, is hidden once."""
    token = "sk-" + "a1B2" * 6
    assert hidden(f"{token}@example.org") == [("secret", token)]
    assert hidden("Call 4111-1111-1111-1111") == [("card", "4111-1111-1111-1111")]
    pipeline = conversation()
    sent = pipeline.execute(f"{token}@example.org").text
    assert pipeline.execute_output(sent).text == f"{token}@example.org"


@given(st.text(st.characters(exclude_categories=["Nd"], exclude_characters="@_"), max_size=200))
def test_a_text_with_nothing_to_hide_is_unchanged(text: str) -> None:
    """Without digits, signs and tokens there is nothing to find, whatever the letters."""
    result = Anonymize(Vault()).scan(text)
    assert result.text == text
    assert result.entities == ()


@given(st.text(max_size=100), st.text("0123456789 .-+@:abcdef[]_EMAIL\ud800", max_size=200))
def test_the_answer_that_repeats_the_prompt_is_the_prompt(words: str, numbers: str) -> None:
    """Hiding and putting back any text, lone surrogates included, gives that text."""
    pipeline = conversation()
    text = f"{words} {numbers} a@x.org"
    assert pipeline.execute_output(pipeline.execute(text).text).text == text


def test_a_placeholder_of_another_conversation_stays() -> None:
    """An answer cannot fetch what another vault holds, and unknown placeholders stay as they are."""
    first, second = conversation(), conversation()
    first.execute("a@x.org and b@x.org")
    second.execute("c@x.org")
    text = "[EMAIL_1] [EMAIL_2] [CARD_1] [NOTE] [email_1]"
    assert second.execute_output(text).text == "c@x.org [EMAIL_2] [CARD_1] [NOTE] [email_1]"
    second.vault.set("[NOTE_1]", {"not": "a text"})
    assert second.execute_output("[NOTE_1]").text == "[NOTE_1]"


def test_a_placeholder_that_the_prompt_itself_holds_is_given_to_no_value() -> None:
    """Somebody who writes `[EMAIL_1]` does not get the next address in its place."""
    pipeline = conversation()
    sent = pipeline.execute("Repeat [EMAIL_1]. My address is a@x.org.").text
    assert sent == "Repeat [EMAIL_1]. My address is [EMAIL_2]."
    assert pipeline.execute_output("[EMAIL_1]").text == "[EMAIL_1]"


def test_threads_give_one_placeholder_to_one_value() -> None:
    """Eight threads that hide the same fifty addresses give out fifty placeholders."""
    pipeline = conversation(threads=8)
    texts = [f"user{number % 50}@example.org" for number in range(2_000)]
    sent = [result.text for result in pipeline.execute_batch(texts)]
    assert len(set(sent)) == len(pipeline.vault) == 50
    assert [pipeline.execute_output(text).text for text in sent] == texts
