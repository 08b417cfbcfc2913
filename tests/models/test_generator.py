"""The generator: guidance runs what it needs, analyses have gradients, and parts make a whole."""

from typing import Any

import pytest
import torch
from torch import Tensor

from vidcomp.config import UserError
from vidcomp.models.conditioning import Condition
from vidcomp.models.generator import Generator, GeneratorConfig, repeated
from vidcomp.models.guidance import Guidance, GuidanceConfig
from vidcomp.objectives.base import OBJECTIVES
from vidcomp.samplers.base import SAMPLERS
from vidcomp.seeding import Rng, initial_weights
from vidcomp.types import Grid, Latents, LatentSpec, State
from vidcomp.world.concepts import choose

OBJECTIVE_NAMES = OBJECTIVES.names()
FACTORS = choose({"shape": ["circle", "square"], "motion": ["left", "up", "down"]})
SPEC = LatentSpec(Grid(4, 8, 8), 3, codebook_sizes=(7, 4))
GRIDS = (Grid(3, 2, 2), Grid(1, 3, 3))
BATCH = 4


def scaled(asked: Condition, guidance_scale: float) -> Guidance:
    return Guidance.of(GuidanceConfig(guidance_scale=guidance_scale), asked, FACTORS)


def generator_of(objective: str, **more: Any) -> Generator:
    """A generator with open gates, as after training."""
    config = GeneratorConfig.model_validate(
        {"objective": objective, "backbone": {"depth": 2, "width": 24, "heads": 2}, **more}
    )
    with initial_weights(0):
        generator = config.build(SPEC, FACTORS)
        for name, parameter in generator.named_parameters():
            if any(part in name for part in ("modulation", "null", "to_answer", "to_v")):
                torch.nn.init.normal_(parameter, std=0.2)
    generator.objective.learn_codes(lookup)
    return generator


def lookup(codes: Tensor) -> Latents:
    """Vectors of codes, of both codebooks together."""
    values = codes.float() @ torch.tensor([[0.3, -0.2, 0.1], [-0.4, 0.5, 0.2]])
    return Latents(values, codes)


def clean(grid: Grid, batch: int = BATCH) -> Latents:
    rng = Rng.make(0, "clean", torch.arange(batch))
    codes = torch.stack([rng.integers(k, *grid) for k in SPEC.codebook_sizes or ()], dim=-1)
    return Latents(rng.normal(*grid, SPEC.channels), codes)


def condition(batch: int = BATCH) -> Condition:
    classes = FACTORS.combinations()[:batch]
    return Condition.of(classes, FACTORS.prototypes(classes))


def rng(purpose: str = "draws", batch: int = BATCH) -> Rng:
    return Rng.make(0, purpose, torch.arange(batch))


def start(generator: Generator, grid: Grid, *, given_frames: int = 0) -> State:
    given = condition().given_frames(given_frames).given_positions(grid)
    return generator.objective.start(clean(grid), given, rng("start"))


def content(generator: Generator, guidance: Guidance, state: State) -> Tensor:
    with torch.no_grad():
        made = generator.denoiser(guidance, temperature=0.0)(state, rng())
    chosen = made.codes if made.values is None else made.values
    assert chosen is not None
    return chosen


def rows_run(generator: Generator, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The batch size of each pass through the trunk from now on."""
    rows: list[int] = []
    trunk = generator.network.trunk

    def counted(state: State, *args: Any, **kwargs: Any) -> Any:
        rows.append(len(state.level))
        return trunk(state, *args, **kwargs)

    monkeypatch.setattr(generator.network, "trunk", counted)
    return rows


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("scale, num_terms", [(1.0, 1), (0.0, 1), (2.5, 2)])
def test_a_term_of_weight_zero_is_never_run(
    name: str, scale: float, num_terms: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = generator_of(name)
    rows = rows_run(generator, monkeypatch)
    content(generator, scaled(condition(), scale), start(generator, GRIDS[0]))
    assert rows == [num_terms * BATCH], "all terms in one pass"


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_guidance_at_the_ends_is_one_of_its_terms(name: str) -> None:
    generator = generator_of(name)
    state = start(generator, GRIDS[0])
    asked, nothing = condition(), condition().null()

    def plain(term: Condition) -> Tensor:
        return content(generator, Guidance(term, ((term, 1.0),)), state)

    torch.testing.assert_close(content(generator, scaled(asked, 1.0), state), plain(asked))
    torch.testing.assert_close(content(generator, scaled(asked, 0.0), state), plain(nothing))
    if name == "givt":
        return  # it resamples where there are two terms: other draws of the same density
    twice = Guidance(asked, ((asked, 3.0), (asked, -2.0)))
    torch.testing.assert_close(content(generator, twice, state), plain(asked), rtol=1e-3, atol=1e-3)


def test_guidance_extrapolates_from_the_unconditional_prediction() -> None:
    generator = generator_of("flow")
    state = start(generator, GRIDS[0])
    asked = condition()
    with torch.no_grad():
        given, none = (generator.predict(state, c) for c in (asked, asked.null()))
    assert not torch.allclose(given, none)
    guided = content(generator, scaled(asked, 3.0), state)
    torch.testing.assert_close(guided, none + 3 * (given - none), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_more_than_two_terms_compose(name: str) -> None:
    generator = generator_of(name)
    asked = condition()
    terms = ((asked.null(), -1.0), (asked.keep([0]), 1.0), (asked.keep([1]), 1.0))
    grid = GRIDS[0]
    made = content(generator, Guidance(terms[0][0], terms), start(generator, grid))
    assert made.shape[:4] == (BATCH, *grid)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_predict_and_hidden_are_differentiable_and_have_their_shapes(name: str, grid: Grid) -> None:
    generator = generator_of(name)
    state = start(generator, grid)
    prediction = generator.predict(state, condition())
    assert prediction.shape[:4] == (BATCH, *grid)
    num_outputs = {"maskgit": 7 + 4, "flow": SPEC.channels}
    assert prediction.shape[-1] == num_outputs.get(name, prediction.shape[-1])
    hidden = generator.hidden(state, condition(), [0, 1])
    assert [h.shape for h in hidden] == [(BATCH, grid.size, 24)] * 2
    (weight, *_) = generator.network.embedding.of_level.parameters()
    for made in (prediction, *hidden):
        (gradient,) = torch.autograd.grad(made.square().sum(), weight, retain_graph=True)
        assert gradient.abs().sum() > 0


def test_hidden_refuses_layers_that_do_not_exist() -> None:
    generator = generator_of("flow")
    with pytest.raises(UserError, match=r"no layers \[2, -1\] in a trunk of 2; legal: 0 to 1"):
        generator.hidden(start(generator, GRIDS[0]), condition(), [2, 0, -1])


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_the_loss_of_a_clip_does_not_depend_on_the_batch(name: str) -> None:
    more = {"conditioning": {"drop_joint": 0.3, "drop_factor": 0.3, "prefix": 0.5}}
    generator = generator_of(name, jepa={}, **more)
    rows = torch.tensor([2, 0])
    with torch.no_grad():
        whole = generator(clean(GRIDS[0]), condition(), rng())
        part = generator(clean(GRIDS[0])[rows], condition()[rows], rng()[rows])
    assert whole.terms.keys() == part.terms.keys() and "jepa" in whole.terms
    for term in whole.terms:
        torch.testing.assert_close(whole.terms[term][rows], part.terms[term], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
@pytest.mark.parametrize("grid", GRIDS)
def test_every_sampler_that_fits_makes_clips_and_keeps_the_prefix(name: str, grid: Grid) -> None:
    generator = generator_of(name).eval()
    state = start(generator, grid, given_frames=grid.t - 1)
    fitting = 0
    for sampler_name in SAMPLERS.names():
        config = SAMPLERS.config({"name": sampler_name, "num_steps": 3})
        try:
            sampler = config.build(generator.objective.schedule)
        except UserError:
            continue
        fitting += 1
        denoise = generator.denoiser(scaled(condition(), 2.0))
        with torch.no_grad():
            *_, last = sampler(denoise, state, rng())
        given = state.known
        assert last.latents.values.isfinite().all()
        if last.latents.codes is not None:
            assert state.latents.codes is not None
            assert torch.equal(last.latents.codes[given], state.latents.codes[given])
            assert (last.latents.codes.amax((0, 1, 2, 3)) < torch.tensor(SPEC.codebook_sizes)).all()
        else:
            assert torch.equal(last.latents.values[given], state.latents.values[given])
    assert fitting


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_a_checkpoint_holds_everything(name: str) -> None:
    generator, other = generator_of(name, jepa={}), generator_of(name, jepa={})
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    other.load_state_dict(generator.state_dict())
    with torch.no_grad():
        losses = [g(clean(GRIDS[0]), condition(), rng()).total() for g in (generator, other)]
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", OBJECTIVE_NAMES)
def test_a_config_comes_back_from_what_is_stored(name: str) -> None:
    config = generator_of(name, jepa={"layers": [1]}).config
    stored = config.model_dump(mode="json")
    assert stored["objective"]["name"] == name
    assert GeneratorConfig.model_validate(stored) == config


@pytest.mark.parametrize("path", ["adaln", "tokens", "both"])
@pytest.mark.parametrize("null", ["learned", "zeros"])
def test_every_path_of_conditions_trains_and_samples(path: str, null: str) -> None:
    conditioning = {"path": path, "drop_to": null, "drop_factor": 0.3, "drop_per": "batch"}
    generator = generator_of("flow", conditioning=conditioning)
    generator(clean(GRIDS[0], 6), condition(6), rng(batch=6)).total().mean().backward()
    for name, parameter in generator.named_parameters():
        if parameter.requires_grad and name != "network.objective.known":
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    state = start(generator, GRIDS[0])
    asked = content(generator, scaled(condition(), 2.0), state)
    other = content(generator, scaled(condition()[torch.tensor([1, 2, 3, 0])], 2.0), state)
    assert asked.isfinite().all() and ((asked - other).flatten(1).abs().amax(1) > 1e-4).all()


@pytest.mark.parametrize("path", ["tokens", "both"])
def test_context_tokens_need_joint_attention(path: str) -> None:
    more = {"conditioning": {"path": path}, "backbone": {"attention": "factorised"}}
    with pytest.raises(ValueError, match=f"conditioning.path={path} .* set .*path=adaln"):
        GeneratorConfig.model_validate({"objective": "flow", **more})
    more["conditioning"]["path"] = "adaln"
    GeneratorConfig.model_validate({"objective": "flow", **more})


def test_an_unknown_objective_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"no 'maskgti' in objectives; did you mean 'maskgit'\?"):
        GeneratorConfig.model_validate({"objective": "maskgti"})


def test_repeated_stacks_the_batch() -> None:
    state = State(clean(GRIDS[0]), torch.rand(BATCH, *GRIDS[0]) < 0.5, torch.rand(BATCH))
    thrice = repeated(state, 3)
    assert thrice.latents.codes is not None and state.latents.codes is not None
    for i in range(3):
        rows = slice(i * BATCH, (i + 1) * BATCH)
        assert torch.equal(thrice.latents.values[rows], state.latents.values)
        assert torch.equal(thrice.latents.codes[rows], state.latents.codes)
        assert torch.equal(thrice.known[rows], state.known)
        assert torch.equal(thrice.level[rows], state.level)
