"""One contract over every agent that is discovered, and the fixture: what no agent file may break, whoever wrote it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Annotated, Any, Literal, cast, get_args
from uuid import UUID

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field, field_serializer

from agents.engine import fallback
from agents.engine.contract import ENGINE_OVERRIDES, check
from agents.engine.discover import discover
from agents.engine.examples import differences, prepared, show, shown
from agents.engine.spec import Batch, DecisionAgent, Example, Verdict, Window
from models.chat.dialect import Dialect
from models.chat.prompt import PromptBuilder
from models.contract import Answer, Ask, Question, Status
from models.sandbox.rules import RULES as SANDBOX_RULES
from models.scorers.instant import InstantScorer, NoModel
from models.scorers.python_model import PythonScorer
from models.scorers.scorecard import Scorecard, Values
from schemas.decision import Decision
from schemas.errors import AgentError
from schemas.marks import Identifier, Protected, Untrusted, marks
from tests.support.answers import valid
from topics.spec import Clean, Range

Agent = DecisionAgent[Any, Any, Any]
FIXTURES = Path(__file__).resolve().parents[1] / "data" / "agents"
AGENTS = discover(FIXTURES)
EXAMPLES = [(agent, example) for agent in AGENTS for example in agent.examples]
UNANSWERED: Sequence[Status] = tuple(status for status in get_args(Status) if status != "answered")

each_agent = pytest.mark.parametrize("agent", AGENTS, ids=lambda agent: agent.name)
each_example = pytest.mark.parametrize(
    ("agent", "example"), EXAMPLES, ids=[f"{agent.name}: {example.title}" for agent, example in EXAMPLES]
)


def asking(agent: Agent) -> list[Example]:
    """The examples that come as far as a question."""
    return [example for example in agent.examples if prepared(agent, example)[1].settled is None]


def answered(agent: Agent, data: Mapping[str, Any]) -> Answer[Any]:
    """An answer of a model that said this."""
    return Answer("answered", agent.answers.model_validate(data), raw=dict(data))


def test_the_suite_meets_all_three_agents() -> None:
    """Discovery finds the agents that come with Headrace and the one in the further folder, by name."""
    assert [agent.name for agent in AGENTS] == ["credit-risk", "product-quality", "support-triage"]


@each_agent
def test_nothing_is_wrong_that_can_be_seen_without_running(agent: Agent) -> None:
    """The static contract finds no problem."""
    assert check(agent) == []


@each_example
def test_a_golden_example_comes_out_as_it_says(agent: Agent, example: Example) -> None:
    """Outcome, tier, reasons, overrides or skip rule are those that the example gives."""
    assert differences(agent, example) == []


@each_agent
def test_a_wrong_example_would_be_noticed(agent: Agent) -> None:
    """An example that expects anything else than what comes out is told apart, so that passing means something."""
    for example in agent.examples:
        wrong = replace(example, outcome="no-such-outcome") if example.skip is None else replace(example, skip="no-such-rule")
        assert differences(agent, wrong)


@each_example
def test_what_an_example_publishes_is_a_valid_decision(agent: Agent, example: Example) -> None:
    """The body of each decision is accepted by the published schema, field for field."""
    came = show(agent, example)
    if came.skip is None:
        assert came.decision is not None
        decision = Decision.model_validate(came.decision)
        assert decision.agent == agent.name
        assert decision.outcome in agent.outcomes


@each_example
def test_features_repeat(agent: Agent, example: Example) -> None:
    """The same record gives the same features, byte for byte, however often they are computed."""
    first, second = (prepared(agent, example)[1] for _ in range(2))
    assert first.features == second.features
    if first.settled is not None:
        assert shown(first) == shown(second)
    elif first.features is not None and second.features is not None:
        assert orjson.dumps(first.features.model_dump(mode="json")) == orjson.dumps(second.features.model_dump(mode="json"))


def _marked_rows(agent: Agent, example: Example, suffix: str) -> Example:
    """The example with every protected column of its rows set to something recognisable."""

    def filled(model: type[BaseModel] | None, row: Mapping[str, Any]) -> dict[str, Any]:
        assert model is not None
        made = dict(row)
        for name in marks(model, Protected):
            field = model.model_fields[name].annotation
            kinds = get_args(field) or (field,)
            made[name] = f"protected-{suffix}" if str in kinds else suffix == "a" if bool in kinds else 770_000 + ord(suffix)
        return made

    row = agent.reads.row
    return replace(
        example,
        value=filled(row, example.value),
        history=[filled(row, earlier) for earlier in example.history],
        before=filled(row, example.before) if example.before is not None else None,
        joins={name: filled(agent.joins[name].topic.row, joined) for name, joined in example.joins.items()},
    )


@each_example
def test_protected_attributes_never_reach_features_or_prompt(agent: Agent, example: Example) -> None:
    """Whatever sex, age or origin say, the features, the request to a model and the way it is decided stay the same."""
    one, other = (prepared(agent, _marked_rows(agent, example, suffix))[1] for suffix in "ab")
    assert one.features == other.features
    assert (one.settled is None) == (other.settled is None)
    if one.settled is not None:
        assert shown(one) == shown(other)
    if one.features is not None and isinstance(agent.scorer, Ask):
        request = PromptBuilder(agent.scorer, "any").build([Question("id", one.features)], Dialect())
        assert b"protected-a" not in request.body
        assert str(770_000 + ord("a")).encode() not in request.body


@each_agent
@pytest.mark.parametrize("status", UNANSWERED)
def test_without_an_answer_nothing_favourable_happens(agent: Agent, status: Status) -> None:
    """Timeouts, refusals, outages and nonsense all end in the review outcome, and a person is told to look."""
    for example in asking(agent):
        pipeline, item = prepared(agent, example)
        assert item.context is not None
        verdict = agent.decide(item.context, item.features, Answer(status, why="test"))
        assert verdict.outcome in {agent.review_outcome, *agent.adverse}, "decide itself is careful, not only the engine"
        pipeline.conclude(item, Answer(status, why="test"))
        decision = shown(item).decision
        assert decision is not None
        assert decision["outcome"] == agent.review_outcome
        assert decision["tier"] == "none"
        assert decision["review"]["required"]


@each_agent
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_valid_answer_breaks_the_policy(agent: Agent, data: st.DataObject) -> None:
    """Any answer that the schema allows is decided: a declared outcome, known rules and reasons, the score on its scale."""
    example = data.draw(st.sampled_from(asking(agent)))
    said = data.draw(valid(agent.answers))
    pipeline, item = prepared(agent, example)
    assert item.context is not None
    verdict = agent.decide(item.context, item.features, answered(agent, said))
    assert isinstance(verdict, Verdict)
    assert {reason.code for reason in verdict.reasons} <= set(agent.reasons)
    assert set(verdict.overrides) <= set(agent.rules)
    if agent.result_model is not None:
        assert isinstance(verdict.result, agent.result_model)
    pipeline.conclude(item, answered(agent, said))
    body = shown(item).decision
    assert body is not None
    decision = Decision.model_validate(body)
    assert decision.outcome in agent.outcomes
    assert len(decision.reasons) <= 4
    assert set(decision.overrides) <= set(agent.rules) | ENGINE_OVERRIDES
    if decision.outcome in agent.adverse:
        assert agent.adverse_alone
    if agent.scale is None:
        assert decision.score is None
    elif decision.score is not None:
        assert agent.scale.min <= decision.score <= agent.scale.max


@each_agent
async def test_the_sandbox_and_the_scorecard_answer_every_example(agent: Agent) -> None:
    """The transparent rules and the scorecard give valid answers to whatever an example asks."""
    rule = SANDBOX_RULES.get(agent.answers.__name__)
    for example in asking(agent):
        features = prepared(agent, example)[1].features
        assert features is not None
        if rule is not None:
            agent.answers.model_validate(rule(features.model_dump(mode="json")))
        if agent.fallback is not None:
            [answer] = await agent.fallback.score([Question("id", features)], deadline=0.0)
            assert answer.status == "answered", answer.why
            assert isinstance(answer.value, agent.answers)


class Leaky(BaseModel):
    """Features with a protected name, free text, bytes that are no image, an open mapping, UUIDs, and a mark."""

    age: int
    note: str
    scan: bytes | None = None
    anything: dict[str, Any]
    who: UUID | None = None
    hidden: Annotated[UUID | None, Identifier("customer")] = None
    born: Annotated[int, Protected("age")]


class Patterned(BaseModel):
    """Texts with patterns: those that anything fits, and those that only codes fit."""

    anything: Annotated[str, Field(pattern="^.*$")]
    bounded: Annotated[str, Field(pattern=".", max_length=30)]
    several: tuple[Annotated[str, Field(pattern=r"^\S+$")], ...]
    words: Annotated[str | None, Field(pattern="^[a-z ]+$")]
    inside: Annotated[str, Field(pattern="[0-9a-z]")]
    code: Annotated[str, Field(pattern="^[A-Z]{2}[0-9]{1,6}$")]
    country: Annotated[str | None, Field(pattern="^[a-z]{2}$", max_length=2)]


class Whole(BaseModel):
    """A model of its own."""

    number: int


class Identified(BaseModel):
    """Identifiers that can have no pseudonym, and a marked text that is written otherwise than it is."""

    limit: Annotated[float | None, Identifier("customer")]
    sort: Annotated[Literal["a", "b"], Identifier("customer")]
    several: Annotated[list[int], Identifier("customer")]
    whole: Annotated[Whole, Identifier("customer")]
    named: Annotated[str, Identifier("Their Name")]
    each: list[Annotated[int, Identifier("customer")]]
    note: Annotated[str, Untrusted()]

    @field_serializer("note")
    def write(self, note: str) -> str:
        """What masking does not know of."""
        return note.upper()


class Open(BaseModel):
    """An answer that is not closed and can not say that it does not know."""

    risk: int
    text: str
    tags: list[str]


CREDIT = next(agent for agent in AGENTS if agent.name == "credit-risk")
MACHINE = next(agent for agent in AGENTS if agent.name == "product-quality")
async def _later(context: Any) -> Any:
    return context


def test_a_pattern_that_anything_fits_does_not_close_a_text() -> None:
    """A text with such a pattern has to be marked all the same; codes need not be, and a marked one is fine."""
    problems = [problem for problem in check(replace(CREDIT, features_model=Patterned)) if "is free text" in problem]
    assert [problem.split("'")[1] for problem in problems] == ["anything", "bounded", "several", "words", "inside"]


def test_a_uuid_that_is_marked_is_fine() -> None:
    """Only the one that would be shown as it is."""
    uuids = [problem for problem in check(replace(CREDIT, features_model=Leaky)) if "UUID" in problem]
    assert [problem.split("'")[1] for problem in uuids] == ["who"]


BROKEN: Mapping[str, tuple[Agent, str]] = {
    "protected name": (replace(CREDIT, features_model=Leaky), "feature 'age' has the name of Customer.age, which is Protected"),
    "protected mark": (replace(CREDIT, features_model=Leaky), "feature 'born' carries Protected('age')"),
    "free text": (replace(CREDIT, features_model=Leaky), "feature 'note' is free text"),
    "bytes": (replace(CREDIT, features_model=Leaky), "feature 'scan' is bytes: make it Annotated[bytes | None, Image("),
    "uuid": (replace(CREDIT, features_model=Leaky), "feature 'who' is a UUID, which names somebody: make it"),
    "open mapping": (replace(CREDIT, features_model=Leaky), "feature 'anything' is open"),
    "unbounded number": (replace(CREDIT, scorer=Ask(Open, "p")), "answer 'risk' is open"),
    "unbounded text": (replace(CREDIT, scorer=Ask(Open, "p")), "answer 'text' is open"),
    "unbounded list": (replace(CREDIT, scorer=Ask(Open, "p")), "answer 'tags' is open: give the list a max_length"),
    "never unsure": (replace(CREDIT, scorer=Ask(Open, "p")), "Open can not say that it does not know"),
    "extra of ours": (replace(CREDIT, scorer=Ask(Open, "p", extra={"stream": True})), "extra may not set stream, that is ours"),
    "adverse unknown": (replace(CREDIT, adverse=("refuse",)), "adverse names 'refuse'"),
    "review unknown": (replace(CREDIT, review_outcome="look"), "review_outcome is 'look'"),
    "review adverse": (replace(CREDIT, adverse=("review",)), "review_outcome 'review' is adverse"),
    "outcome twice": (replace(CREDIT, outcomes=("approve", "approve", "review", "decline")), "name each possible outcome once"),
    "fallback alone": (replace(MACHINE, fallback_alone=("stop", "halt")), "fallback_alone names 'halt'"),
    "fallback missing": (replace(MACHINE, fallback=None), 'on_no_answer="fallback" needs fallback'),
    "duration": (replace(CREDIT, deadline="soon"), "deadline: reading duration 'soon'"),
    "no time at all": (replace(CREDIT, deadline="0s"), "deadline '0s' has to be longer than nothing"),
    "batch of nothing": (replace(CREDIT, batch=Batch(0)), "batch.size and in_flight start at 1"),
    "no prompt tokens": (replace(CREDIT, batch=Batch(prompt_tokens=0)), "batch.prompt_tokens is 0: it starts at 1"),
    "output too small": (
        replace(CREDIT, scorer=Ask(CREDIT.answers, "p", max_tokens=100), batch=Batch(output_tokens=120)),
        "batch.output_tokens is 120, and one record alone reserves 132",
    ),
    "no prompt": (replace(CREDIT, scorer=NoModel(), answer_model=CREDIT.answers, batch=Batch(prompt_tokens=900)),
                  "batch.prompt_tokens: a scorer that is no Ask has no prompt"),
    "no output": (replace(CREDIT, scorer=NoModel(), answer_model=CREDIT.answers, batch=Batch(output_tokens=900)),
                  "batch.output_tokens: a scorer that is no Ask reserves no output"),
    "watch unknown": (replace(CREDIT, watch=("amuont",)), "watch: the row has no field 'amuont'"),
    "retract telemetry": (replace(MACHINE, on_delete="retract"), "watch and on_delete are for change topics"),
    "topic name": (replace(CREDIT, writes=replace(CREDIT.writes, name="credit.risk_decisions")), "mixes '.' and '_'"),
    "illegal topic": (replace(CREDIT, writes=replace(CREDIT.writes, name="credit risk")), "no legal topic name"),
    "reason language": (replace(CREDIT, language="fr"), "has no text in the agent's language 'fr'"),
    "reason feature": (replace(CREDIT, features_model=Leaky), "reason 'overdrawn' speaks of 'checking', which is not a feature"),
    "no examples": (replace(CREDIT, examples=()), "examples is empty"),
    "outcome not shown": (replace(MACHINE, examples=MACHINE.examples[:2]), "no example comes out as 'stop'"),
    "rule not declared": (replace(CREDIT, rules={}), "override 'sanctioned' is not among rules"),
    "own topic": (replace(CREDIT, writes=replace(CREDIT.writes, name=CREDIT.reads.name)), "is the topic that it reads"),
    "range of nothing": (replace(CREDIT, reads=replace(CREDIT.reads, clean=Clean(ranges={"amonut": Range(0, 1)}))), "amonut"),
    "urgent for nothing": (replace(MACHINE, windows={"w": Window("10m", urgent=str)}), "windows[w].urgent lets a record past"),
    "urgent no function": (replace(MACHINE, windows={"w": Window("10m", "60s", urgent=cast("Any", "yes"))}),
                           "windows[w].urgent is of type str"),
    "urgent async": (replace(MACHINE, windows={"w": Window("10m", "60s", urgent=cast("Any", _later))}),
                     "windows[w].urgent is an async function"),
    "async": (replace(CREDIT, features=_later), "features is an async function"),
    "identifier a number": (replace(CREDIT, features_model=Identified), "feature 'limit' is an Identifier and a float"),
    "identifier a choice": (replace(CREDIT, features_model=Identified), "feature 'sort' is an Identifier and a Literal"),
    "identifier a list": (replace(CREDIT, features_model=Identified), "feature 'several' is an Identifier and a list"),
    "identifier a model": (replace(CREDIT, features_model=Identified), "feature 'whole' is an Identifier and a model"),
    "identifier of no kind": (replace(CREDIT, features_model=Identified), "feature 'named' is an Identifier of kind 'Their"),
    "mask led astray": (replace(CREDIT, features_model=Identified), "features: Identified has a serializer for note"),
    "name": (replace(CREDIT, name="Credit_Risk"), "name 'Credit_Risk'"),
}  # fmt: skip


@pytest.mark.parametrize(("agent", "problem"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_agent_is_told_what_is_wrong(agent: Agent, problem: str) -> None:
    """Each way to break the contract is named in a sentence."""
    assert any(problem in found for found in check(agent)), check(agent)


class Other(BaseModel):
    """An answer that is not that of the agent."""

    sufficient: bool
    risk: int = Field(ge=0, le=100)


def _sound(features: Any) -> Any:
    """What the agent's own card answers."""
    card = cast("Any", MACHINE.fallback)
    return card.answer(card.tally(features), features)


def _risky(features: Any) -> Any:
    """The same, past its bounds."""
    return _sound(features).model_copy(update={"risk": 101})


def _exits(features: Any) -> Any:
    """Ends without a word, with status 0."""
    sys.exit()


def _hangs(features: Any) -> Any:
    """Until the process ends."""
    Event().wait()


class Ending(InstantScorer[Any]):
    """A scorer that breaks its promise never to raise."""

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """None."""
        raise KeyboardInterrupt


class Silent(InstantScorer[Any]):
    """A scorer that breaks its promise of an answer each."""

    async def score(self, questions: Sequence[Question], deadline: float) -> Sequence[Answer[Any]]:
        """None."""
        return []


def _each(batch: Sequence[Any]) -> list[Any]:
    """What the card answers to a batch."""
    return [_sound(features) for features in batch]


def _picky(context: Any, features: Any, answer: Answer[Any]) -> Verdict:
    """Decides by what a model says, and knows no other tier."""
    if answer.tier != "model":
        raise KeyError(answer.tier)
    return MACHINE.decide(context, features, answer)


UNFIT: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "another answer": (
        {"fallback": InstantScorer(lambda f: Other(sufficient=True, risk=1), name="rules", tier="scorecard")},
        "it answers Other and has to answer QualityAnswer, which decide reads",
    ),
    "no answer": ({"fallback": InstantScorer(lambda f: f.no_such, name="rules")}, "it gives no answer (invalid): rules failed"),
    "a card over others": (
        {"fallback": Scorecard("rules", MACHINE.answers, (Values("no_such", {}),), lambda tally, f: None)},
        "no answer (invalid): scorecard rules: QualityFeatures has no no_such",
    ),
    "exits": ({"fallback": PythonScorer(_exits, answer=MACHINE.answers, name="rules")},
              "it gives no answer (invalid): rules failed with SystemExit"),
    "exits in the loop": ({"fallback": InstantScorer(_exits, name="rules")},
                          "it gives no answer (invalid): rules failed with SystemExit"),
    "ends otherwise": ({"fallback": Ending(_sound, name="rules")},
                       "it gives no answer (invalid): it ended with KeyboardInterrupt"),
    "too few": ({"fallback": Silent(_sound, name="rules")}, "it gives no answer (invalid): it gave 0 answers to "),
    "hangs": ({"fallback": PythonScorer(_hangs, answer=MACHINE.answers, name="rules")},
              "it gives no answer (timeout): no answer before the deadline"),
    "hangs in the loop": ({"fallback": InstantScorer(_hangs, name="rules")},
                          "it gives no answer (timeout): it holds up the event loop"),
    "not in bounds": ({"fallback": InstantScorer(_risky, name="rules")},
                      "its answer is not valid: QualityAnswer.risk: Input should be less than or equal to 100"),
    "decide raises": ({"decide": _picky, "fallback": InstantScorer(_sound, name="rules")},
                      "decide can not go by its answer: it became a dead letter: KeyError"),
    "decide returns": (
        {"decide": lambda c, f, a: None, "fallback": PythonScorer(_each, answer=MACHINE.answers, name="rules")},
        "decide can not go by its answer: decide returned None, it has to return Verdict",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "why"), UNFIT.values(), ids=UNFIT.keys())
def test_a_fallback_that_does_not_fit_is_told_with_the_example(
    changes: Mapping[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is tried on the golden examples, so that an outage is not the first to find out; one reason is told once."""
    if "timeout" in why:
        monkeypatch.setattr(fallback, "SECONDS", 0.2)
        monkeypatch.setattr(fallback, "AFTER", 0.2)
    titles = [example.title for example in asking(MACHINE)]
    (problem,) = check(replace(MACHINE, **changes))
    assert problem.startswith(f"fallback 'rules', example {titles[0]!r} and {len(titles) - 1} more: ")
    assert why in problem


async def test_a_fallback_is_tried_wherever_the_check_is_asked_for_and_stays_open() -> None:
    """In a running loop too; a fallback that may need a network is not asked."""
    scorer = PythonScorer(_each, answer=MACHINE.answers)
    agent = replace(MACHINE, fallback=scorer)
    assert check(agent) == check(agent) == []
    assert check(replace(MACHINE, fallback=NoModel())) == []
    await scorer.close()


def test_an_identifier_is_no_free_text_and_may_be_a_member_of_a_list() -> None:
    """What has a pseudonym needs no other mark, and says nothing of the agent that is wrong."""
    assert not any("'each'" in found for found in check(replace(CREDIT, features_model=Identified)))
    (triage,) = [agent for agent in AGENTS if agent.name == "support-triage"]
    assert marks(triage.features_model, Identifier) == {"conversation": Identifier("conversation")}


GOOD = (FIXTURES / "support_triage.py").read_text(encoding="utf-8")
FILES: Mapping[str, tuple[str, str]] = {
    "syntax": ("AGENT = (", "SyntaxError"),
    "import": ("import no_such_module_anywhere", "ModuleNotFoundError"),
    "exit": ("raise SystemExit('usage')", "SystemExit: usage"),
    "crash": ("raise RuntimeError('no configuration')", "no configuration"),
    "no agent": ("agent = 1", "it has no AGENT"),
    "wrong type": ("AGENT = 'credit-risk'", "AGENT is a str"),
    "name taken": (GOOD.replace('name="support-triage"', 'name="credit-risk"'), "is called 'credit-risk'"),
    "topic taken": (GOOD.replace("support-triage-decisions", "credit-risk-decisions"), "writes to topic 'credit-risk-decisions'"),
    "misspelt field": (GOOD.replace("    owner=", "    onwer="), "onwer"),
}


@pytest.mark.parametrize(("text", "problem"), FILES.values(), ids=FILES.keys())
def test_discovery_names_the_file_that_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    """A file that can not be an agent stops discovery with its path and what is wrong with it."""
    path = tmp_path / "their_agent.py"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(AgentError) as raised:
        discover(tmp_path)
    assert str(path) in str(raised.value)
    assert problem in str(raised.value)


def test_a_folder_that_is_none_is_named(tmp_path: Path) -> None:
    """A mistyped folder is an error, not an empty list."""
    with pytest.raises(AgentError, match="HEADRACE_AGENTS_PATH"):
        discover(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"features": lambda context: {}}, "features returned dict, it has to return CreditFeatures, Skip or Verdict"),
        ({"features": lambda context: Verdict("review", score=float("nan"))}, "the score is nan"),
        ({"windows": {"w": Window("10m", "60s", urgent=cast("Any", bool))}},
         "windows[w].urgent returned bool, it has to return str or NoneType"),
        ({"features": lambda context: Verdict("review", score=1e6)}, "outside the scale"),
        ({"features": lambda context: Verdict("review", reasons=(object(),))}, "differ when they are evaluated twice"),  # type: ignore[arg-type] # never equal
        ({"subject": lambda change: 7}, "subject returned int, it has to return str"),
        ({"features": lambda context: prepared(CREDIT, CREDIT.examples[0])[1].features, "decide": lambda c, f, a: None},
         "decide returned None, it has to return Verdict"),
    ],
)
def test_what_a_function_returns_wrongly_is_told(changes: Mapping[str, Any], problem: str) -> None:
    """An example names the function and the type that it has to return, not what broke further on."""
    said = differences(replace(CREDIT, **changes), CREDIT.examples[0])
    assert any(problem in each for each in said), said
