"""credit-risk: a loan application (row change) and its customer (joined row) become a risk score and approve, review or decline.

The values in the rows are those of the UCI German Credit data, as the source system writes them; the features are closed
lists and whole numbers. Not features: sex, age and nationality (protected); job (it mixes skill with residence status);
dependants, telephone and years of residence (they stand in for family and origin). `income` and `sanctioned` are not in that
data set: they are columns that a real bank has and that a demo has to make up.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from decimal import Decimal
from math import ceil, floor
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from agents.engine.spec import Batch, Context, DecisionAgent, Example, Go, Join, Order, Reason, ReasonCode, Scale, Skip, Verdict
from models.contract import Answer, Ask
from models.scorers.scorecard import Bins, Scorecard, Tally, Values
from schemas.change import Change
from schemas.decision import Review
from schemas.marks import Protected
from topics.spec import Clean, Range, change_topic, out_topic

# ---------------------------------------------------------------------------------------------------------------- what is read


class LoanApplication(BaseModel):
    """A row of the applications table. `amount` in DM; `installment_rate` 1 (35 % of income and more) to 4 (under 20 %).

    `status` belongs to the business systems, which write a decision back into it; it is not watched.
    """

    id: int
    customer_id: int
    amount: Decimal
    duration_months: int
    purpose: str = ""
    installment_rate: int | None = None
    other_debtors: str = ""
    other_installment_plans: str = ""
    property: str = ""
    status: str = "submitted"
    submitted_at: datetime | None = None


class Customer(BaseModel):
    """A row of the customers table. `income` is net, in DM a month, and unknown for some.

    `sanctioned` None: the source said nothing of it, which is not the same as false.
    """

    id: int
    checking_account: str = ""
    savings: str = ""
    employment_since: str = ""
    credit_history: str = ""
    existing_credits: int | None = None
    housing: str = ""
    residence_since: int | None = None
    job: str = ""
    dependants: int | None = None
    telephone: str = ""
    income: Decimal | None = None
    sanctioned: bool | None = None
    personal_status_and_sex: Annotated[str | None, Protected("sex")] = None
    age: Annotated[int | None, Protected("age")] = None
    foreign_worker: Annotated[bool | None, Protected("nationality")] = None


LOAN_APPLICATIONS = change_topic(
    "loan-applications", LoanApplication, key=("id",), owner="lending",
    description="Row changes of the table of loan applications",
    clean=Clean(ranges={"amount": Range(1, 10_000_000), "duration_months": Range(1, 480)}),
)  # fmt: skip
CUSTOMERS = change_topic(
    "customers", Customer, key=("id",), cleanup="compact", retention_ms=-1, owner="lending",
    description="Row changes of the table of customers, compacted",
    clean=Clean(ranges={"income": Range(0, 10_000_000, "null")}),
)  # fmt: skip
RISK_DECISIONS = out_topic("credit-risk-decisions", retention_ms=90 * 86_400_000, owner="lending",
                           description="One decision for each change of a loan application")  # fmt: skip

# ------------------------------------------------------------------------------------------------------- what a model may see

Checking = Literal["none", "overdrawn", "under-200", "200-and-more", "unknown"]
Savings = Literal["under-100", "100-to-500", "500-to-1000", "1000-and-more", "unknown"]
Employment = Literal["unemployed", "under-1-year", "1-to-4-years", "4-to-7-years", "7-years-and-more", "unknown"]
History = Literal["no-credits", "all-paid-duly", "paid-duly-until-now", "delays-in-the-past", "other-credits", "unknown"]
Purpose = Literal["car-new", "car-used", "furniture", "radio-television", "appliances", "repairs", "education", "retraining",
                  "business", "other"]  # fmt: skip
Rate = Literal["35-and-more", "25-to-35", "20-to-25", "under-20", "unknown"]
Property = Literal["real-estate", "savings-agreement", "car-or-other", "none", "unknown"]

CHECKING: Final[Mapping[str, Checking]] = {
    "no checking account": "none", "... < 0 DM": "overdrawn", "0 <= ... < 200 DM": "under-200",
    "... >= 200 DM / salary assignments for at least 1 year": "200-and-more",
}  # fmt: skip
SAVINGS: Final[Mapping[str, Savings]] = {
    "... < 100 DM": "under-100", "100 <= ... < 500 DM": "100-to-500", "500 <= ... < 1000 DM": "500-to-1000",
    "... >= 1000 DM": "1000-and-more",
}  # fmt: skip
EMPLOYMENT: Final[Mapping[str, Employment]] = {
    "unemployed": "unemployed", "... < 1 year": "under-1-year", "1 <= ... < 4 years": "1-to-4-years",
    "4 <= ... < 7 years": "4-to-7-years", "... >= 7 years": "7-years-and-more",
}  # fmt: skip
HISTORY: Final[Mapping[str, History]] = {
    "no credits taken/ all credits paid back duly": "no-credits", "all credits at this bank paid back duly": "all-paid-duly",
    "existing credits paid back duly till now": "paid-duly-until-now", "delay in paying off in the past": "delays-in-the-past",
    "critical account/ other credits existing (not at this bank)": "other-credits",
}  # fmt: skip
PURPOSE: Final[Mapping[str, Purpose]] = {
    "car (new)": "car-new", "car (used)": "car-used", "furniture/equipment": "furniture", "radio/television": "radio-television",
    "domestic appliances": "appliances", "repairs": "repairs", "education": "education", "retraining": "retraining",
    "business": "business",
}  # fmt: skip
RATE: Final[Mapping[int | None, Rate]] = {1: "35-and-more", 2: "25-to-35", 3: "20-to-25", 4: "under-20"}
PROPERTY: Final[Mapping[str, Property]] = {
    "real estate": "real-estate", "building society savings agreement/ life insurance": "savings-agreement",
    "car or other, not in attribute Savings account/bonds": "car-or-other", "unknown / no property": "none",
}  # fmt: skip


class CreditFeatures(BaseModel):
    """All that may be looked at. Money is in whole DM; `amount_in_incomes` is the amount in monthly net incomes.

    `instalment_share` is one month's repayment without interest in per cent of the monthly net income. The amount is rounded down
    and the two shares up, to the places of the policy's limits: so a feature is past a limit exactly where the number itself is.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    amount: int
    duration_months: int
    purpose: Purpose
    monthly_income: int
    amount_in_incomes: float
    instalment_share: float
    instalment_class: Rate
    checking: Checking
    savings: Savings
    employment: Employment
    history: History
    existing_credits: int | None
    other_debtors: Literal["none", "co-applicant", "guarantor", "unknown"]
    other_plans: Literal["none", "bank", "stores", "unknown"]
    property: Property
    housing: Literal["own", "rent", "for-free", "unknown"]


Driver = Literal["overdrawn", "low-savings", "solid-savings", "short-employment", "long-employment", "late-payments", "paid-duly",
                 "other-credits", "long-term", "short-term", "high-amount", "high-instalment", "other-plans", "guarantor",
                 "no-property", "real-estate"]  # fmt: skip


class RiskAnswer(BaseModel):
    """What may be answered: whether the information suffices, what drives the risk, strongest first, and the risk."""

    model_config = ConfigDict(extra="forbid")

    sufficient: bool
    drivers: list[Driver] = Field(max_length=4)
    risk: int = Field(ge=0, le=100)


class CreditResult(BaseModel):
    """What subscribers need beside the outcome: exact money, as JSON strings."""

    amount: Decimal
    monthly_instalment: Decimal
    currency: Literal["DM"] = "DM"


PROMPT = """You assess consumer loans. For each record estimate the risk that the loan is not repaid as agreed, from 0 (certain to
be repaid) to 100 (certain to default). Use only the fields given. Money is in Deutsche Mark; `instalment_share` is in per cent
of the monthly net income, `instalment_class` the applicant's own statement of it, `amount_in_incomes` in monthly net incomes.
In `drivers` name up to four codes that the fields bear out, strongest first, whether they raise or lower the risk. Where the
fields are too few or contradict each other, set `sufficient` to false. Do not decide on approval; rules of the bank do."""

# ------------------------------------------------------------------------------------------------------------------ the policy

POLICY: Final[Mapping[str, float]] = {
    "approve_below": 35,  # risk
    "decline_from": 70,  # risk
    "most_amount_in_incomes": 24,
    "most_instalment_share": 40,  # per cent
    "person_from_amount": 12_000,  # DM
}
RULES: Final = {
    "application-withdrawn": "The application was withdrawn or paid out; there is nothing to decide.",
    "customer-missing": "No row of the customer arrived in time, so a person reviews the application.",
    "sanctioned": "The customer is on a sanctions list, so the application is declined.",
    "sanctions-unknown": "Whether the customer is on a sanctions list is not known, so a person reviews the application.",
    "income-missing": "The customer's income is unknown, so a person reviews the application.",
    "insufficient-information": "The assessment says that the information does not suffice.",
    "amount-over-income": "The amount is too many monthly incomes to be approved without a person.",
    "instalment-over-income": "The instalment is too large a share of the income to be approved without a person.",
    "large-amount": "Amounts of this size are never approved without a person.",
}
_QUEUE = "credit-desk"
_FINAL = frozenset({"withdrawn", "paid-out"})
_CENT = Decimal("0.01")


def subject(change: Change[LoanApplication]) -> str:
    """The application's id; also there when the row was deleted."""
    return str(change.key["id"])


def customer_of(change: Change[LoanApplication]) -> int | None:
    """Which customer to join; none for a deleted application."""
    return change.after.customer_id if change.after is not None else None


def is_open(change: Change[LoanApplication]) -> Go | Skip:
    """Withdrawn and paid out applications are not decided. A row that business systems already acted on may be amended."""
    return Skip("application-withdrawn") if change.row.status in _FINAL else Go()


def features(context: Context[Change[LoanApplication]]) -> CreditFeatures | Verdict:
    """The rules before the model, then what it may see."""
    row = context.value.row
    customer = context.joined("customer", Customer)
    if customer is None:
        return _review("customer-missing", row, missing=("customer",))
    if customer.sanctioned:
        return Verdict("decline", reasons=(Reason("sanctioned"),), result=_result(row), overrides=("sanctioned",))
    if customer.sanctioned is None:
        return _review("sanctions-unknown", row, missing=("customer.sanctioned",))
    if not customer.income:
        return _review("income-missing", row, missing=("customer.income",))
    return CreditFeatures(
        amount=floor(row.amount),
        duration_months=row.duration_months,
        purpose=PURPOSE.get(row.purpose, "other"),
        monthly_income=round(customer.income),
        amount_in_incomes=ceil(10 * row.amount / customer.income) / 10,
        instalment_share=ceil(1000 * row.amount / (row.duration_months * customer.income)) / 10,
        instalment_class=RATE.get(row.installment_rate, "unknown"),
        checking=CHECKING.get(customer.checking_account, "unknown"),
        savings=SAVINGS.get(customer.savings, "unknown"),
        employment=EMPLOYMENT.get(customer.employment_since, "unknown"),
        history=HISTORY.get(customer.credit_history, "unknown"),
        existing_credits=customer.existing_credits,
        other_debtors=_one_of(row.other_debtors, "none", "co-applicant", "guarantor"),
        other_plans=_one_of(row.other_installment_plans, "none", "bank", "stores"),
        property=PROPERTY.get(row.property, "unknown"),
        housing=_one_of(customer.housing.replace(" ", "-"), "own", "rent", "for-free"),
    )


def decide(context: Context[Change[LoanApplication]], f: CreditFeatures, answer: Answer[RiskAnswer]) -> Verdict:
    """Thresholds on the risk, then the floors. Without an answer, or with an unsure one, a person decides."""
    row, value = context.value.row, answer.value
    if value is None:
        return Verdict("review", reasons=(Reason("no-answer"),), result=_result(row), review=_look("no-answer"))
    if not value.sufficient:
        return _review("insufficient-information", row)
    told = _TOLD["scorecard" if answer.tier == "scorecard" else "model"]
    drivers = [told[code] for code in dict.fromkeys(value.drivers)]
    if value.risk >= POLICY["decline_from"]:
        proposed = "decline"
    elif value.risk >= POLICY["approve_below"]:
        proposed = "review"
    else:
        proposed = "approve"
    floors = _floors(f) if proposed == "approve" else []
    outcome = "review" if floors else proposed
    return Verdict(
        outcome,
        score=float(value.risk),
        reasons=[*(_TOLD["rule"][rule] for rule in floors), *drivers],
        result=_result(row),
        review=_REVIEWS[outcome] if not floors else _look(floors[0]),
        proposed=proposed,
        overrides=floors,
    )


def _floors(f: CreditFeatures) -> list[str]:
    """Why this may not be approved without a person, whatever the risk."""
    return [code for code, holds in _FLOORS.items() if holds(f)]


def _review(rule: str, row: LoanApplication, missing: tuple[str, ...] = ()) -> Verdict:
    return Verdict(
        "review", reasons=(Reason(rule),), result=_result(row), review=_look(rule), missing=missing, overrides=(rule,)
    )


def _look(why: str) -> Review:
    return Review(required=True, why=why, queue=_QUEUE)


_REVIEWS: Final[Mapping[str, Review]] = {
    "approve": Review(),
    "review": _look("risk-in-between"),
    "decline": Review(queue=_QUEUE),  # the engine makes it a review when a model alone proposed it; here is where it goes
}


def _result(row: LoanApplication) -> CreditResult:
    instalment = (row.amount / row.duration_months).quantize(_CENT)
    return CreditResult.model_construct(amount=row.amount, monthly_instalment=instalment, currency="DM")


def _one_of(text: str, *known: str) -> Any:
    """The text where it is one of the closed list, "unknown" where it is not: no free text reaches a feature."""
    return text if text in known else "unknown"


def _code(en: str, de: str, *names: str, holds: Callable[[CreditFeatures], bool] | None = None) -> ReasonCode:
    return ReasonCode({"en": en, "de": de}, names, holds)


_FLOORS: Final[Mapping[str, Callable[[CreditFeatures], bool]]] = {
    "amount-over-income": lambda f: f.amount_in_incomes > POLICY["most_amount_in_incomes"],
    "instalment-over-income": lambda f: f.instalment_share > POLICY["most_instalment_share"],
    "large-amount": lambda f: f.amount >= POLICY["person_from_amount"],
}
REASONS: Final[Mapping[str, ReasonCode]] = {
    "sanctioned": _code("The applicant is on a sanctions list.", "Die Person steht auf einer Sanktionsliste."),
    "sanctions-unknown": _code("Sanctions lists could not be checked.", "Sanktionslisten konnten nicht geprüft werden."),
    "customer-missing": _code("No data of the applicant was available.", "Es lagen keine Daten zur Person vor."),
    "income-missing": _code("The income is not known.", "Das Einkommen ist nicht bekannt."),
    "insufficient-information": _code("The information does not suffice.", "Die Angaben reichen nicht aus."),
    "no-answer": _code("No assessment was available in time.", "Es lag rechtzeitig keine Bewertung vor."),
    "amount-over-income": _code(
        "The amount is very high for the income.", "Der Betrag ist sehr hoch für das Einkommen.", "amount_in_incomes",
        holds=_FLOORS["amount-over-income"],
    ),
    "instalment-over-income": _code(
        "The instalment is very high for the income.", "Die Rate ist sehr hoch für das Einkommen.", "instalment_share",
        holds=_FLOORS["instalment-over-income"],
    ),
    "large-amount": _code(
        "An amount of this size needs a person.", "Ein Betrag dieser Höhe braucht eine Person.", "amount",
        holds=_FLOORS["large-amount"],
    ),
    "overdrawn": _code("The current account is overdrawn.", "Das Girokonto ist überzogen.", "checking",
                       holds=lambda f: f.checking == "overdrawn"),
    "low-savings": _code("There are hardly any savings.", "Es gibt kaum Ersparnisse.", "savings",
                         holds=lambda f: f.savings == "under-100"),
    "solid-savings": _code("There are solid savings.", "Es gibt solide Ersparnisse.", "savings",
                           holds=lambda f: f.savings in ("500-to-1000", "1000-and-more")),
    "short-employment": _code("The employment is recent, or there is none.", "Die Anstellung ist neu, oder es gibt keine.",
                              "employment", holds=lambda f: f.employment in ("unemployed", "under-1-year")),
    "long-employment": _code("The employment is long-standing.", "Die Anstellung besteht seit langem.", "employment",
                             holds=lambda f: f.employment in ("4-to-7-years", "7-years-and-more")),
    "late-payments": _code("Earlier credits were paid back late.", "Frühere Kredite wurden verspätet zurückgezahlt.", "history",
                           holds=lambda f: f.history == "delays-in-the-past"),
    "paid-duly": _code("Earlier credits were paid back duly.", "Frühere Kredite wurden ordnungsgemäß zurückgezahlt.", "history",
                       holds=lambda f: f.history in ("all-paid-duly", "paid-duly-until-now")),
    "other-credits": _code("There are credits at other banks.", "Es gibt Kredite bei anderen Banken.", "history",
                           holds=lambda f: f.history == "other-credits"),
    "long-term": _code("The term is long.", "Die Laufzeit ist lang.", "duration_months", holds=lambda f: f.duration_months >= 36),
    "short-term": _code("The term is short.", "Die Laufzeit ist kurz.", "duration_months",
                        holds=lambda f: f.duration_months <= 12),
    "high-amount": _code("The amount is high.", "Der Betrag ist hoch.", "amount", holds=lambda f: f.amount >= 7_500),
    "high-instalment": _code("The instalment takes a large share of the income.", "Die Rate nimmt viel vom Einkommen.",
                             "instalment_share", holds=lambda f: f.instalment_share >= 25),
    "other-plans": _code("There are other instalment plans.", "Es gibt weitere Ratenverträge.", "other_plans",
                         holds=lambda f: f.other_plans in ("bank", "stores")),
    "guarantor": _code("Somebody guarantees for the loan.", "Es gibt eine Bürgschaft.", "other_debtors",
                       holds=lambda f: f.other_debtors == "guarantor"),
    "no-property": _code("There is no known property.", "Es ist kein Vermögen bekannt.", "property",
                         holds=lambda f: f.property == "none"),
    "real-estate": _code("There is real estate.", "Es gibt Immobilienbesitz.", "property",
                         holds=lambda f: f.property == "real-estate"),
}  # fmt: skip

_Origin = Literal["rule", "model", "scorecard"]
_ORIGINS: Final[tuple[_Origin, ...]] = ("rule", "model", "scorecard")
_TOLD: Final[Mapping[_Origin, Mapping[str, Reason]]] = {
    origin: {code: Reason(code, entry.features[0], origin) for code, entry in REASONS.items() if entry.features}
    for origin in _ORIGINS
}
"""Each reason that speaks of a feature, made once: this is done for every record."""

# --------------------------------------------------------------------------------------------------------- without a model

_TOLD_OF: Final[Mapping[str, tuple[Driver, ...]]] = {
    name: tuple(code for code in get_args(Driver) if REASONS[code].features == (name,)) for name in CreditFeatures.model_fields
}


def _points_answer(tally: Tally, f: CreditFeatures) -> RiskAnswer:
    """The points as risk, what added most as drivers; unsure where most of what is known of a customer is unknown."""
    unknown = (f.checking, f.savings, f.employment, f.history, f.property).count("unknown")
    drivers = [code for name, _ in tally.drivers(6) for code in _TOLD_OF[name] if _borne_out(code, f)]
    return RiskAnswer(sufficient=unknown <= 2, drivers=drivers[:4], risk=tally.clamped(0, 100))


def _borne_out(code: str, f: CreditFeatures) -> bool:
    holds = REASONS[code].holds
    return holds is None or holds(f)


SCORECARD = Scorecard(
    "credit-points", RiskAnswer, intercept=34, answer=_points_answer,
    table=(
        Values("checking", {"overdrawn": 16, "under-200": 10, "200-and-more": 0, "none": -16}, otherwise=4),
        Values("history", {"no-credits": 12, "all-paid-duly": 12, "paid-duly-until-now": 0, "delays-in-the-past": 3,
                           "other-credits": -8}, otherwise=4),
        Values("savings", {"under-100": 5, "100-to-500": 2, "500-to-1000": -7, "1000-and-more": -7}, otherwise=0),
        Values("employment", {"unemployed": 6, "under-1-year": 6, "1-to-4-years": 0, "4-to-7-years": -5, "7-years-and-more": -5}),
        Values("other_plans", {"bank": 7, "stores": 7}),
        Values("other_debtors", {"guarantor": -9, "co-applicant": 4}),
        Values("property", {"real-estate": -5, "none": 5}),
        Bins("duration_months", ((12, -7), (24, 0), (35, 5)), above=11),
        Bins("amount", ((7_499, 0),), above=9),
        Bins("instalment_share", ((24.9, 0),), above=4),
    ),
)  # fmt: skip
"""For `headrace agents try --model scorecard` and for comparison: without an answer this agent sends to a person."""

# ------------------------------------------------------------------------------------------------------------- golden examples

_LOAN = {"id": 1, "customer_id": 7, "amount": "1169.00", "duration_months": 6, "purpose": "radio/television",
         "installment_rate": 4, "other_debtors": "none", "other_installment_plans": "none",
         "property": "real estate"}  # fmt: skip
_PERSON = {"id": 7, "checking_account": "0 <= ... < 200 DM", "savings": "... >= 1000 DM", "employment_since": "... >= 7 years",
           "credit_history": "existing credits paid back duly till now", "existing_credits": 1, "housing": "own",
           "income": "2400.00", "sanctioned": False, "job": "skilled employee / official",
           "personal_status_and_sex": "male : single", "age": 67,
           "foreign_worker": True}  # fmt: skip
_LOW = {"sufficient": True, "drivers": ["solid-savings", "long-employment", "overdrawn"], "risk": 12}

EXAMPLES = (
    Example("A small loan of a solid customer is approved; a driver that the features do not bear out is dropped", _LOAN,
            joins={"customer": _PERSON}, answer=_LOW, outcome="approve", tier="model",
            reasons=("solid-savings", "long-employment"), overrides=()),
    Example("A risk in between is reviewed", _LOAN, joins={"customer": _PERSON},
            answer={"sufficient": True, "drivers": ["short-term"], "risk": 50}, outcome="review", tier="model"),
    Example("A model does not decline by itself", {**_LOAN, "duration_months": 48}, joins={"customer": _PERSON},
            answer={"sufficient": True, "drivers": ["long-term"], "risk": 90}, outcome="review", tier="model",
            overrides=("adverse-needs-review",)),
    Example("Whoever is on a sanctions list is declined by rule", _LOAN, joins={"customer": {**_PERSON, "sanctioned": True}},
            outcome="decline", tier="rule", reasons=("sanctioned",), overrides=("sanctioned",)),
    Example("Where the source says nothing of sanctions a person decides", _LOAN,
            joins={"customer": {**_PERSON, "sanctioned": None}}, outcome="review", tier="rule", reasons=("sanctions-unknown",),
            overrides=("sanctions-unknown",)),
    Example("Without an income nothing is asked and a person decides", _LOAN, joins={"customer": {**_PERSON, "income": None}},
            outcome="review", tier="rule", reasons=("income-missing",), overrides=("income-missing",)),
    Example("Without the customer's row a person decides", _LOAN, outcome="review", tier="rule", overrides=("customer-missing",)),
    Example("No risk is low enough to approve an amount of more than two years' income",
            {**_LOAN, "amount": "11900.00", "duration_months": 60}, joins={"customer": {**_PERSON, "income": "480.00"}},
            answer=_LOW, outcome="review", tier="model", overrides=("amount-over-income", "instalment-over-income")),
    Example("A large amount needs a person", {**_LOAN, "amount": "12000.00", "duration_months": 48}, joins={"customer": _PERSON},
            answer=_LOW, outcome="review", tier="model", overrides=("large-amount",)),
    Example("An unsure model sends the application to a person", _LOAN, joins={"customer": _PERSON},
            answer={"sufficient": False, "drivers": [], "risk": 0}, outcome="review", tier="model",
            overrides=("insufficient-information",)),
    Example("Without an answer a person decides", _LOAN, joins={"customer": _PERSON}, outcome="review", tier="none",
            reasons=("no-answer",)),
    Example("Writing a decision back into the row decides nothing", {**_LOAN, "status": "approved"}, before=_LOAN,
            joins={"customer": _PERSON}, skip="unwatched-change"),
    Example("An amended amount is decided anew", {**_LOAN, "amount": "1500.00"}, before=_LOAN, joins={"customer": _PERSON},
            answer=_LOW, outcome="approve", tier="model"),
    Example("A withdrawn application is not decided", {**_LOAN, "status": "withdrawn"}, joins={"customer": _PERSON},
            skip="application-withdrawn"),
)  # fmt: skip

AGENT: DecisionAgent[Change[LoanApplication], CreditFeatures, RiskAnswer] = DecisionAgent(
    name="credit-risk",
    version=1,
    owner="lending",
    description="Scores loan applications and proposes to approve, review or decline them",
    reads=LOAN_APPLICATIONS,
    writes=RISK_DECISIONS,
    subject=subject,
    subject_type="loan-application",
    # Not `status`: business systems write decisions back into it. So a row that only its status reopens is not decided again;
    # the lending system resubmits by amending a watched column or inserting a row.
    watch=("customer_id", "amount", "duration_months", "purpose", "installment_rate", "other_debtors", "other_installment_plans",
           "property"),
    on_delete="retract",
    # No max_age: a customer's row that has not changed for years is still the customer's row.
    joins={"customer": Join(CUSTOMERS, on=customer_of, wait="2s")},
    when=is_open,
    features=features,
    features_model=CreditFeatures,
    scorer=Ask(RiskAnswer, PROMPT),
    decide=decide,
    outcomes=("approve", "review", "decline"),
    adverse=("decline",),
    review_outcome="review",
    on_no_answer="review",
    fallback=SCORECARD,
    result_model=CreditResult,
    scale=Scale(0, 100, higher_is="riskier", meaning="risk that the loan is not repaid as agreed"),
    reasons=REASONS,
    rules=RULES,
    policy=POLICY,
    order=Order.KEY,
    batch=Batch(16, within="250ms"),
    deadline="5s",
    valid_for="30d",
    examples=EXAMPLES,
)  # fmt: skip
